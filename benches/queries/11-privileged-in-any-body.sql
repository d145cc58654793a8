-- Text search in bodies: anything that was created or changed with a privileged container.
SELECT stage_timestamp, actor, verb, resource, namespace, name
FROM events
WHERE request_object LIKE '%"privileged":true%'
ORDER BY stage_timestamp, audit_id, stage
