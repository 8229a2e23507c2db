-- The user that Grafana reads with, on the ClickHouse server. Grafana does not judge SQL: whoever can log in to it can ask
-- anything that this user may read. So it may not write, not wait for ever, and not read who was where.
CREATE USER IF NOT EXISTS grafana IDENTIFIED WITH sha256_password BY 'CHANGE-ME'
SETTINGS readonly = 1, max_execution_time = 30 CHANGEABLE_IN_READONLY, max_memory_usage = 4000000000;

GRANT SELECT ON checkins.* TO grafana;

REVOKE SELECT ON checkins.scans FROM grafana;
REVOKE SELECT ON checkins.scan_set FROM grafana;
REVOKE SELECT ON checkins.visits FROM grafana;
REVOKE SELECT ON checkins.visit_rows FROM grafana;
REVOKE SELECT ON checkins.repair_rows FROM grafana;

-- The board Contact tracing counts rows of cases and exposures, which also hold pseudonyms. Where nobody needs that board,
-- revoke those two as well; where only tracers may see them, give them a Grafana of their own.
