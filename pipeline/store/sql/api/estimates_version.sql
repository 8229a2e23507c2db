SELECT count() AS records, max(version) AS newest FROM estimate_rows
