-- Which user agents are seen least, and with whose accounts?
SELECT user_agent, count(*) AS requests, count(DISTINCT user_name) AS users, min(stage_timestamp) AS first
FROM events
GROUP BY user_agent
ORDER BY requests, user_agent
LIMIT 25
