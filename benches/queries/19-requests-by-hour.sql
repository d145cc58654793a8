-- The rhythm of the cluster: requests by hour and verb.
SELECT date_trunc('hour', stage_timestamp) AS hour, verb, count(*) AS requests
FROM events
GROUP BY hour, verb
ORDER BY hour, verb
