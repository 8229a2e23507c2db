"""How fast and how large: figures from real runs, each beside the command that gave it. Nothing here is a test."""
