-- Who read this Secret?
SELECT actor, source_ip, verb, count(*) AS requests, min(stage_timestamp) AS first_seen, max(stage_timestamp) AS last_seen
FROM events
WHERE resource = 'secrets' AND namespace = 'imaging' AND name = 'thumbnailer-credentials' AND stage = 'ResponseComplete'
GROUP BY actor, source_ip, verb
ORDER BY requests DESC, actor, source_ip, verb
