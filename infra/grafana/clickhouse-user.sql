-- The user that Grafana reads with, on the ClickHouse server. Grafana does not judge SQL: whoever can log in to it can ask
-- anything that this user may read. So it may not write, not wait for ever, and read nothing but what the boards show: no
-- scans, no visits, no case reports.
CREATE USER IF NOT EXISTS grafana IDENTIFIED WITH sha256_password BY 'CHANGE-ME'
SETTINGS readonly = 1, max_execution_time = 30 CHANGEABLE_IN_READONLY, max_memory_usage = 4000000000;

-- A view reads with the rights of whoever asks, so each comes with the tables behind it.
GRANT SELECT ON checkins.venues TO grafana;
GRANT SELECT ON checkins.registry_rows TO grafana;
GRANT SELECT ON checkins.clock TO grafana;
GRANT SELECT ON checkins.accounting TO grafana;
GRANT SELECT ON checkins.progress_rows TO grafana;
GRANT SELECT ON checkins.occupancy_now TO grafana;
GRANT SELECT ON checkins.now_rows TO grafana;
GRANT SELECT ON checkins.rolling_occupancy TO grafana;
GRANT SELECT ON checkins.rolling_rows TO grafana;
GRANT SELECT ON checkins.estimate_rows TO grafana;
GRANT SELECT ON checkins.occupancy_minutes TO grafana;
GRANT SELECT ON checkins.minute_rows TO grafana;
GRANT SELECT ON checkins.occupancy_hours TO grafana;
GRANT SELECT ON checkins.hour_rows TO grafana;
GRANT SELECT ON checkins.dead_letters TO grafana;
GRANT SELECT ON checkins.dead_letter_rows TO grafana;
GRANT SELECT ON checkins.crowding_alerts TO grafana;
GRANT SELECT ON checkins.alert_rows TO grafana;

-- For the board Contact tracing. The first four hold pseudonyms, which no board reads but this user could: leave them out
-- where nobody needs that board, and where only tracers may see them, give them a Grafana and a user of their own.
GRANT SELECT ON checkins.cases TO grafana;
GRANT SELECT ON checkins.case_rows TO grafana;
GRANT SELECT ON checkins.exposures TO grafana;
GRANT SELECT ON checkins.exposure_rows TO grafana;
GRANT SELECT ON checkins.venue_warnings TO grafana;
GRANT SELECT ON checkins.warning_rows TO grafana;
