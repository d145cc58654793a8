-- Every exec into a pod, with its command line.
SELECT stage_timestamp, actor, source_ip, namespace, name, request_uri, response_code
FROM events
WHERE resource = 'pods' AND subresource IN ('exec', 'attach', 'portforward') AND stage <> 'RequestReceived'
ORDER BY stage_timestamp, source_offset
