-- The last 100 requests of people, newest first: what a console shows.
SELECT stage_timestamp, actor, source_ip, verb, resource, namespace, name, response_code
FROM events
WHERE user_name LIKE '%@clinic.example'
ORDER BY stage_timestamp DESC, audit_id, stage
LIMIT 100
