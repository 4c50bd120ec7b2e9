"""How a task behaves under Luigi: parameters, progress, failures, termination, and the connection to luigid."""
