-- What goes on here at all?
SELECT verb, resource, count(*) AS requests
FROM events
GROUP BY verb, resource
ORDER BY requests DESC, verb, resource
LIMIT 30
