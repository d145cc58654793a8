SELECT date_trunc('hour', stage_timestamp) AS hour, count(*) AS n, count(DISTINCT user_name) FROM events GROUP BY 1 HAVING count(*) > 3 ORDER BY n DESC
