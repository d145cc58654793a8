SELECT table_name FROM information_schema.tables; SHOW TABLES
