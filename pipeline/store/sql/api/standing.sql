SELECT
    argMax(mode, version) AS clock,
    toUnixTimestamp64Milli(max(as_of)) AS as_of,
    toUnixTimestamp64Milli(max(newest)) AS newest,
    sumIf(consumed, topic = 'check-ins') AS consumed,
    sumIf(accepted, topic = 'check-ins') AS accepted,
    sumIf(stored, topic = 'check-ins') AS stored,
    sumIf(duplicates, topic = 'check-ins') AS duplicates,
    sumIf(dead_lettered, topic = 'check-ins') AS dead_lettered
FROM progress_rows FINAL
