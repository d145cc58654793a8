-- One request by its auditID: the jump from an alert to its events. The id is that of the first planted attack.
SELECT stage, stage_timestamp, user_name, verb, request_uri, response_code, user_agent
FROM events
WHERE audit_id = '{audit_id}'
ORDER BY stage_timestamp
