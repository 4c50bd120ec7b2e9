"""Scores a snapshot and publishes the batch."""
