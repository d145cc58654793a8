-- Which addresses were refused most, and what did they try?
SELECT source_ip, actor, count(*) AS refused, count(DISTINCT resource) AS resources
FROM events
WHERE response_code = 403
GROUP BY source_ip, actor
ORDER BY refused DESC, source_ip, actor
LIMIT 20
