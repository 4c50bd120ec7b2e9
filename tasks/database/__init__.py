"""The schema of the score database and every statement on it."""
