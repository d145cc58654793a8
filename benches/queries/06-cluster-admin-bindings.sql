-- Who was made cluster-admin, and by whom?
SELECT stage_timestamp, actor, source_ip, name, request_object
FROM events
WHERE api_group = 'rbac.authorization.k8s.io' AND resource IN ('clusterrolebindings', 'rolebindings')
  AND verb IN ('create', 'update', 'patch') AND stage = 'ResponseComplete' AND response_code < 300
  AND request_object ->> 'roleRef' LIKE '%cluster-admin%'
ORDER BY stage_timestamp, source_offset
