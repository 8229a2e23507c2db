SELECT venue_id, name, category, capacity, area, latitude, longitude, timezone FROM venues ORDER BY venue_id
