-- What did this user do in that hour?
SELECT stage_timestamp, verb, namespace, resource, subresource, name, response_code, source_ip, user_agent, request_uri
FROM events
WHERE actor = 'mara.lindqvist@clinic.example'
  AND stage_timestamp >= TIMESTAMPTZ '2026-03-02 09:00:00+00' AND stage_timestamp < TIMESTAMPTZ '2026-03-02 10:00:00+00'
ORDER BY stage_timestamp, source_offset
