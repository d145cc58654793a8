-- Who asked for privileged containers or the host's namespaces?
SELECT stage_timestamp, actor, verb, namespace, resource, name
FROM events
WHERE verb IN ('create', 'update', 'patch') AND stage = 'ResponseComplete'
  AND (request_object LIKE '%"privileged":true%' OR request_object LIKE '%"hostPID":true%'
       OR request_object LIKE '%"hostNetwork":true%' OR request_object LIKE '%"hostPath":%')
ORDER BY stage_timestamp, source_offset
