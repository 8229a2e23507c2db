SELECT count() AS records, max(version) AS newest FROM registry_rows
