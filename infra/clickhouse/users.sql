-- Who may do what on a ClickHouse server, for the database `checkins`. Run it as an administrator once the pipeline has made its
-- tables (`pipeline worker`, or any other command that opens the store), and again after an upgrade: it may be repeated. Put your
-- own passwords in the place of CHANGE-ME, or name certificates or LDAP. The user for Grafana is in infra/grafana/.

-- Limits. Readers cannot write, nor change their limits; a question that takes too much of the machine is broken off. They are made
-- once and changed each time: a profile that were made anew would be another one, and the roles would have none.
CREATE SETTINGS PROFILE IF NOT EXISTS checkins_reading;
CREATE SETTINGS PROFILE IF NOT EXISTS checkins_writing;
ALTER SETTINGS PROFILE checkins_reading SETTINGS
    readonly = 1 READONLY, max_execution_time = 30 READONLY, max_memory_usage = 4000000000 READONLY,
    max_result_rows = 1000000 READONLY, result_overflow_mode = 'throw' READONLY, log_queries = 1 READONLY,
    max_query_size = 67108864 READONLY;
ALTER SETTINGS PROFILE checkins_writing SETTINGS max_memory_usage = 16000000000 READONLY;

CREATE ROLE IF NOT EXISTS checkins_viewer SETTINGS PROFILE 'checkins_reading';
CREATE ROLE IF NOT EXISTS checkins_tracer SETTINGS PROFILE 'checkins_reading';
CREATE ROLE IF NOT EXISTS checkins_investigator SETTINGS PROFILE 'checkins_reading';
CREATE ROLE IF NOT EXISTS checkins_pipeline SETTINGS PROFILE 'checkins_writing';

-- Aggregates. A view reads with the rights of whoever asks, so each comes with the tables behind it.
GRANT SELECT ON checkins.venues TO checkins_viewer;
GRANT SELECT ON checkins.registry_rows TO checkins_viewer;
GRANT SELECT ON checkins.clock TO checkins_viewer;
GRANT SELECT ON checkins.accounting TO checkins_viewer;
GRANT SELECT ON checkins.progress_rows TO checkins_viewer;
GRANT SELECT ON checkins.occupancy_now TO checkins_viewer;
GRANT SELECT ON checkins.now_rows TO checkins_viewer;
GRANT SELECT ON checkins.rolling_occupancy TO checkins_viewer;
GRANT SELECT ON checkins.rolling_rows TO checkins_viewer;
GRANT SELECT ON checkins.estimate_rows TO checkins_viewer;
GRANT SELECT ON checkins.occupancy_minutes TO checkins_viewer;
GRANT SELECT ON checkins.minute_rows TO checkins_viewer;
GRANT SELECT ON checkins.occupancy_hours TO checkins_viewer;
GRANT SELECT ON checkins.hour_rows TO checkins_viewer;
GRANT SELECT ON checkins.crowding_alerts TO checkins_viewer;
GRANT SELECT ON checkins.alert_rows TO checkins_viewer;
GRANT SELECT ON checkins.undercounts TO checkins_viewer;
GRANT SELECT ON checkins.undercount_rows TO checkins_viewer;
GRANT SELECT ON checkins.model_checks TO checkins_viewer;
GRANT SELECT ON checkins.model_check_rows TO checkins_viewer;
GRANT SELECT ON checkins.retention TO checkins_viewer;
GRANT SELECT ON checkins.retention_rows TO checkins_viewer;
GRANT SELECT ON checkins.removed_rows TO checkins_viewer;
GRANT SELECT ON checkins.released_suppressed TO checkins_viewer;
GRANT SELECT ON checkins.released_private TO checkins_viewer;
GRANT SELECT ON checkins.privacy_budget TO checkins_viewer;
GRANT SELECT ON checkins.release_rows TO checkins_viewer;

-- What follows from cases, and nothing else about persons: no scans, no visits of those who are neither a case nor exposed. The API
-- and the command line note each read in the audit log; who asks the server directly is in its query log only, so give this role to
-- the machine that serves the API, and to no person.
GRANT checkins_viewer TO checkins_tracer;
GRANT SELECT ON checkins.cases TO checkins_tracer;
GRANT SELECT ON checkins.case_rows TO checkins_tracer;
GRANT SELECT ON checkins.exposures TO checkins_tracer;
GRANT SELECT ON checkins.exposure_rows TO checkins_tracer;
GRANT SELECT ON checkins.venue_warnings TO checkins_tracer;
GRANT SELECT ON checkins.warning_rows TO checkins_tracer;

-- `pipeline trace` looks for where a case comes from among all visits at its venues: for the machine that tracers run it on. Each
-- run is in that machine's audit log.
GRANT checkins_tracer TO checkins_investigator;
GRANT SELECT ON checkins.report_set TO checkins_investigator;
GRANT SELECT ON checkins.interval_rows TO checkins_investigator;
GRANT SELECT ON checkins.visits TO checkins_investigator;
GRANT SELECT ON checkins.visit_rows TO checkins_investigator;

-- Rows: a tracer sees the exposures of cases that stand, and not what is left of those withdrawn; so does the Grafana for tracers
-- (infra/grafana/clickhouse-tracing-user.sql). A policy on a table holds for everybody, so the pipeline is let through explicitly.
CREATE ROW POLICY OR REPLACE checkins_standing ON checkins.exposure_rows
    USING case_id NOT IN (SELECT case_id FROM checkins.case_rows FINAL WHERE status = 'withdrawn') TO checkins_tracer;
CREATE ROW POLICY OR REPLACE checkins_everything ON checkins.exposure_rows USING 1 TO checkins_pipeline;

-- The workers: everything in their database, and nothing outside it but the list of parts and columns.
GRANT SELECT, INSERT, ALTER, CREATE DATABASE, CREATE TABLE, CREATE VIEW, DROP VIEW, TRUNCATE, OPTIMIZE, SHOW ON checkins.*
    TO checkins_pipeline;
GRANT SELECT ON system.parts TO checkins_pipeline;
GRANT SELECT ON system.detached_parts TO checkins_pipeline;
GRANT SELECT ON system.columns TO checkins_pipeline;
GRANT SELECT ON system.tables TO checkins_pipeline;
GRANT SELECT ON system.databases TO checkins_pipeline;

-- Nobody asks without end.
CREATE QUOTA OR REPLACE checkins_readers KEYED BY user_name
    FOR INTERVAL 1 minute MAX queries = 600, errors = 60, execution_time = 120,
    FOR INTERVAL 1 hour MAX result_rows = 50000000
    TO checkins_viewer, checkins_tracer, checkins_investigator;

CREATE USER IF NOT EXISTS checkins_worker IDENTIFIED WITH sha256_password BY 'CHANGE-ME' DEFAULT ROLE checkins_pipeline;
CREATE USER IF NOT EXISTS checkins_api IDENTIFIED WITH sha256_password BY 'CHANGE-ME' DEFAULT ROLE checkins_tracer;
CREATE USER IF NOT EXISTS checkins_trace IDENTIFIED WITH sha256_password BY 'CHANGE-ME' DEFAULT ROLE checkins_investigator;
CREATE USER IF NOT EXISTS checkins_dashboards IDENTIFIED WITH sha256_password BY 'CHANGE-ME' DEFAULT ROLE checkins_viewer;
GRANT checkins_pipeline TO checkins_worker;
GRANT checkins_tracer TO checkins_api;
GRANT checkins_investigator TO checkins_trace;
GRANT checkins_viewer TO checkins_dashboards;
ALTER USER checkins_worker DEFAULT ROLE checkins_pipeline;
ALTER USER checkins_api DEFAULT ROLE checkins_tracer;
ALTER USER checkins_trace DEFAULT ROLE checkins_investigator;
ALTER USER checkins_dashboards DEFAULT ROLE checkins_viewer;
