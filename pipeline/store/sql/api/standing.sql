SELECT
    argMax(mode, version) AS clock,
    toUnixTimestamp64Milli(max(as_of)) AS as_of,
    toUnixTimestamp64Milli(max(newest)) AS newest,
    sum(consumed) AS consumed,
    sum(accepted) AS accepted,
    sum(stored) AS stored,
    sum(duplicates) AS duplicates,
    sum(dead_lettered) AS dead_lettered
FROM progress_rows FINAL
