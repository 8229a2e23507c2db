SELECT venue_id, occupancy, capacity, expected, low, high, check_out_share, model_version
FROM occupancy_now
ORDER BY venue_id
