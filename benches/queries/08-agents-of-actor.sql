-- With which programs, and from where, does this user come?
SELECT user_agent, source_ip, count(*) AS requests, min(stage_timestamp) AS first_seen, max(stage_timestamp) AS last_seen
FROM events
WHERE actor = 'ines.carvalho@clinic.example'
GROUP BY user_agent, source_ip
ORDER BY requests DESC, user_agent, source_ip
