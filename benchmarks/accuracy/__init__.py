"""How far estimated occupancy is from the truth, which only a simulation knows."""
