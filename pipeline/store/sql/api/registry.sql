SELECT venue_id, name, category, area, latitude, longitude, timezone FROM venues ORDER BY venue_id
