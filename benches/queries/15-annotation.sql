-- Which bindings let people in, and how often?
SELECT annotations ->> 'authorization.k8s.io/reason' AS reason, count(*) AS requests
FROM events
WHERE user_name LIKE '%@clinic.example' AND response_code < 300
GROUP BY 1
ORDER BY requests DESC, reason
LIMIT 20
