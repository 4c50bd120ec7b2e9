"""The commands of `spamscore`, one module per group of commands, and what they share."""
