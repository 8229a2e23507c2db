"""From reported cases to everyone exposed, kept exact while scans and reports keep coming."""
