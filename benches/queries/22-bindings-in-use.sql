-- Which bindings allowed what: the raw material of an access review.
SELECT authz_reason, count(*) AS requests, count(DISTINCT user_name) AS users
FROM events
WHERE authz_decision = 'allow' AND authz_reason LIKE 'RBAC: allowed by ClusterRoleBinding%'
GROUP BY authz_reason
ORDER BY requests DESC, authz_reason
LIMIT 50
