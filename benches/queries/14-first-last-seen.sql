-- When was each user first and last seen?
SELECT actor, count(*) AS requests, count(DISTINCT source_ip) AS addresses,
       min(stage_timestamp) AS first_seen, max(stage_timestamp) AS last_seen
FROM events
GROUP BY actor
ORDER BY actor
