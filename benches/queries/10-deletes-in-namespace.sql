-- What was deleted in this namespace?
SELECT stage_timestamp, actor, verb, resource, name, response_code, source_ip
FROM events
WHERE namespace = 'staging' AND verb IN ('delete', 'deletecollection') AND stage = 'ResponseComplete'
ORDER BY stage_timestamp, source_offset
