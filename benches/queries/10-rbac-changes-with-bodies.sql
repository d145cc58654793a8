-- Which roles and bindings changed, and to what? Returns the bodies.
SELECT stage_timestamp, actor, source_ip, verb, resource, name, request_object
FROM events
WHERE api_group = 'rbac.authorization.k8s.io' AND verb IN ('create', 'update', 'patch', 'delete')
      AND stage = 'ResponseComplete'
ORDER BY stage_timestamp, audit_id
