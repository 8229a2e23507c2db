"""The pure part: scans in, visits and occupancy out. No I/O, no clock, no randomness, no framework."""
