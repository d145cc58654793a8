-- From how many addresses was each person's account used?
SELECT user_name, count(DISTINCT source_ip) AS addresses, count(*) AS requests,
       min(stage_timestamp) AS first, max(stage_timestamp) AS last
FROM events
WHERE user_name LIKE '%@clinic.example'
GROUP BY user_name
ORDER BY addresses DESC, user_name
