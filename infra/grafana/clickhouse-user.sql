-- The user that Grafana reads with, on the ClickHouse server. Grafana does not judge SQL: whoever can log in to it can ask
-- anything that this user may read. So it may not write, not wait for ever, and read nothing but what the boards show: no
-- scans, no visits, no cases, nothing with a pseudonym. The board Contact tracing is for another user: clickhouse-tracing-user.sql.
CREATE ROLE IF NOT EXISTS checkins_boards;

-- A view reads with the rights of whoever asks, so each comes with the tables behind it.
GRANT SELECT ON checkins.venues TO checkins_boards;
GRANT SELECT ON checkins.registry_rows TO checkins_boards;
GRANT SELECT ON checkins.clock TO checkins_boards;
GRANT SELECT ON checkins.accounting TO checkins_boards;
GRANT SELECT ON checkins.progress_rows TO checkins_boards;
GRANT SELECT ON checkins.occupancy_now TO checkins_boards;
GRANT SELECT ON checkins.now_rows TO checkins_boards;
GRANT SELECT ON checkins.rolling_occupancy TO checkins_boards;
GRANT SELECT ON checkins.rolling_rows TO checkins_boards;
GRANT SELECT ON checkins.estimate_rows TO checkins_boards;
GRANT SELECT ON checkins.occupancy_minutes TO checkins_boards;
GRANT SELECT ON checkins.minute_rows TO checkins_boards;
GRANT SELECT ON checkins.occupancy_hours TO checkins_boards;
GRANT SELECT ON checkins.hour_rows TO checkins_boards;
GRANT SELECT ON checkins.dead_letters TO checkins_boards;
GRANT SELECT ON checkins.dead_letter_rows TO checkins_boards;
GRANT SELECT ON checkins.crowding_alerts TO checkins_boards;
GRANT SELECT ON checkins.alert_rows TO checkins_boards;

CREATE USER IF NOT EXISTS grafana IDENTIFIED WITH sha256_password BY 'CHANGE-ME' DEFAULT ROLE checkins_boards;
-- An earlier version of this file gave it rights of its own, those of Contact tracing among them.
REVOKE ALL ON checkins.* FROM grafana;
GRANT checkins_boards TO grafana;
ALTER USER grafana DEFAULT ROLE checkins_boards
SETTINGS readonly = 1, max_execution_time = 30 CHANGEABLE_IN_READONLY, max_memory_usage = 4000000000;
