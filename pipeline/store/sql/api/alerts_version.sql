SELECT count() AS records, max(version) AS newest FROM alert_rows
