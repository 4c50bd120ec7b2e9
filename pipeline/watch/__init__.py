"""Runs luigid and a server for the reports, for `spamscore watch`."""
