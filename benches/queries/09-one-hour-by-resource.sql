-- What happened between ten and eleven?
SELECT resource, verb, count(*) AS requests, count(DISTINCT user_name) AS users
FROM events
WHERE stage_timestamp >= '2026-03-02T10:00:00Z' AND stage_timestamp < '2026-03-02T11:00:00Z'
GROUP BY resource, verb
ORDER BY requests DESC, resource, verb
