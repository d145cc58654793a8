SELECT stage_timestamp, verb, user_name, namespace FROM events WHERE verb IN ('get', 'list') AND resource = 'secrets' ORDER BY stage_timestamp DESC LIMIT 20
