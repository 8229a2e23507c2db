SELECT count() > 0 AS there FROM system.tables WHERE database = 'checkins' AND name = 'crowding_alerts'
