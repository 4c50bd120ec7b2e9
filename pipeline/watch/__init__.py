"""luigid and the report server behind `spamscore watch`."""
