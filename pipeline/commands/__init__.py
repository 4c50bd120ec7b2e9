"""The commands of `spamscore`, a module for each thing they are about, and what they share."""
