"""Rows of messages from files, SQL queries and downloads."""
