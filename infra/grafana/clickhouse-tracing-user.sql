-- The user of a Grafana for tracers alone, for the board Contact tracing; after clickhouse-user.sql. That board shows sums, but whoever
-- can log in to that Grafana can ask for the pseudonyms of cases and of those exposed, and only the server's query log will know. The
-- pipeline's API and its command line note such reads in the audit log: prefer them wherever they are enough.
CREATE ROLE IF NOT EXISTS checkins_tracing_board;
GRANT checkins_boards TO checkins_tracing_board;
GRANT SELECT ON checkins.cases TO checkins_tracing_board;
GRANT SELECT ON checkins.case_rows TO checkins_tracing_board;
GRANT SELECT ON checkins.exposures TO checkins_tracing_board;
GRANT SELECT ON checkins.exposure_rows TO checkins_tracing_board;
GRANT SELECT ON checkins.venue_warnings TO checkins_tracing_board;
GRANT SELECT ON checkins.warning_rows TO checkins_tracing_board;

-- As for the role checkins_tracer: exposures of cases that stand, and not what is left of those withdrawn.
CREATE ROW POLICY OR REPLACE checkins_standing_on_boards ON checkins.exposure_rows
    USING case_id NOT IN (SELECT case_id FROM checkins.case_rows FINAL WHERE status = 'withdrawn') TO checkins_tracing_board;

CREATE USER IF NOT EXISTS grafana_tracing IDENTIFIED WITH sha256_password BY 'CHANGE-ME' DEFAULT ROLE checkins_tracing_board;
GRANT checkins_tracing_board TO grafana_tracing;
ALTER USER grafana_tracing DEFAULT ROLE checkins_tracing_board
SETTINGS readonly = 1, max_execution_time = 30 CHANGEABLE_IN_READONLY, max_memory_usage = 4000000000, log_queries = 1;
