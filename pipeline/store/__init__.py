"""ClickHouse, embedded or as a server: tables, views, writer, recovery, verification."""
