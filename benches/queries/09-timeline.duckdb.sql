-- Requests and failures in steps of five minutes.
SELECT time_bucket(INTERVAL '5 minutes', stage_timestamp) AS step, count(*) AS requests,
       count(*) FILTER (WHERE response_code >= 400) AS failed, count(DISTINCT user_name) AS users
FROM events
WHERE stage = 'ResponseComplete'
GROUP BY 1
ORDER BY 1
