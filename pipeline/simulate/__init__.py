"""A believable day of check-ins, from a seed."""
