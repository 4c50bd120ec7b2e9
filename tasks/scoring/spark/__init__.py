"""Scores on a Spark cluster: the driver hands out chunks, executors score and commit them."""
