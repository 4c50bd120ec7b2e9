"""A snapshot → a published batch."""
