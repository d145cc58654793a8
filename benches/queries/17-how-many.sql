-- How many events are there, from when to when?
SELECT count(*) AS events, min(stage_timestamp) AS oldest, max(stage_timestamp) AS newest FROM events
