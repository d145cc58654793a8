-- What was asked without credentials, and was it answered?
SELECT request_uri, response_code, source_ip, count(*) AS requests
FROM events
WHERE user_name = 'system:anonymous'
GROUP BY request_uri, response_code, source_ip
ORDER BY requests DESC, request_uri, response_code, source_ip
LIMIT 50
