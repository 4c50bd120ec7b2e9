"""What a person starts: the tasks for `luigi --module pipeline …`, the command line `spamscore`, the bundled sample."""
