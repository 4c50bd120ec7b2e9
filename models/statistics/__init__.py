"""Statistics on labels and scores."""
