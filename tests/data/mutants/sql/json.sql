SELECT request_object->'spec'->>'hostNetwork', json_length(response_object), source_ips[1] FROM events WHERE request_object->>'kind' LIKE 'Pod%' AND NOT (annotations IS NULL)
