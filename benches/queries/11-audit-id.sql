-- All of one request, as an alert points to it.
SELECT *
FROM events
WHERE audit_id = '0a9366cd-c192-416a-8354-278db79199b5'
ORDER BY stage_timestamp, source_offset
