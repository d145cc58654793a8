-- Who read the most Secrets that day, and how many different ones?
SELECT actor, count(*) AS reads, count(DISTINCT namespace || '/' || name) AS secrets
FROM events
WHERE resource = 'secrets' AND verb IN ('get', 'list', 'watch') AND stage = 'ResponseComplete'
  AND stage_timestamp >= TIMESTAMPTZ '2026-03-02 00:00:00+00' AND stage_timestamp < TIMESTAMPTZ '2026-03-03 00:00:00+00'
GROUP BY actor
ORDER BY reads DESC, actor
LIMIT 20
