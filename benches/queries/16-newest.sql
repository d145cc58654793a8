-- The newest hundred events.
SELECT stage_timestamp, actor, verb, namespace, resource, name, response_code, source_ip
FROM events
ORDER BY stage_timestamp DESC
LIMIT 100
