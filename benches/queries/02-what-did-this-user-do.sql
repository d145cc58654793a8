-- Everything one account did in a day, in order.
SELECT stage_timestamp, verb, resource, subresource, namespace, name, response_code, source_ip
FROM events
WHERE user_name = 'system:serviceaccount:data-platform:reports'
ORDER BY stage_timestamp, audit_id, stage
