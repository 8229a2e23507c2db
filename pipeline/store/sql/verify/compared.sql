-- Each different row once, and how often either side has it.
SELECT
    * EXCEPT side,
    countIf(side = 'stored') AS in_store,
    countIf(side = 'recomputed') AS in_recomputed
FROM
(
    SELECT *, 'stored' AS side FROM stored
    UNION ALL
    SELECT *, 'recomputed' AS side FROM recomputed
)
GROUP BY ALL
