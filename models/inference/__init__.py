"""Scoring on a CPU: the same results as `models.text` and `models.network`, by compiled code."""
