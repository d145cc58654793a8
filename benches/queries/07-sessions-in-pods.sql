-- Who entered which pods, with what command line?
SELECT stage_timestamp, actor, source_ip, namespace, name, subresource, request_uri
FROM events
WHERE resource = 'pods' AND subresource IN ('exec', 'attach', 'portforward') AND stage = 'ResponseStarted'
ORDER BY stage_timestamp, audit_id
