-- Who is refused what, how often?
SELECT actor, source_ip, verb, resource, response_code, count(*) AS refusals
FROM events
WHERE response_code IN (401, 403)
GROUP BY actor, source_ip, verb, resource, response_code
ORDER BY refusals DESC, actor, source_ip, verb, resource, response_code
LIMIT 50
