SELECT venue_id, occupancy FROM now_rows FINAL ORDER BY venue_id
