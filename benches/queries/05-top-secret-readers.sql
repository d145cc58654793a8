-- Who reads the most different Secrets?
SELECT actor, count(*) AS reads, count(DISTINCT namespace || '/' || name) AS secrets
FROM events
WHERE resource = 'secrets' AND verb = 'get' AND response_code < 400
GROUP BY actor
ORDER BY secrets DESC, reads DESC, actor
LIMIT 20
