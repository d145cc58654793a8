-- Who deleted what kind of thing, in which namespace?
SELECT actor, resource, namespace, count(*) AS deletions, min(stage_timestamp) AS first
FROM events
WHERE verb IN ('delete', 'deletecollection') AND response_code < 400
GROUP BY actor, resource, namespace
ORDER BY deletions DESC, actor, resource, namespace
LIMIT 50
