-- Everything that came from one address, whatever name it used.
SELECT actor, verb, resource, subresource, namespace, count(*) AS requests,
       min(stage_timestamp) AS first, max(stage_timestamp) AS last
FROM events
WHERE source_ip = '198.51.100.23'
GROUP BY actor, verb, resource, subresource, namespace
ORDER BY first, actor, verb, resource, subresource, namespace
