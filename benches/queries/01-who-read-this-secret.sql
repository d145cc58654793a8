-- Who read one Secret, when, and from where?
SELECT stage_timestamp, actor, source_ip, verb, response_code
FROM events
WHERE resource = 'secrets' AND namespace = 'billing' AND name = 'ledger-credentials'
      AND verb IN ('get', 'list', 'watch')
ORDER BY stage_timestamp, audit_id, stage
