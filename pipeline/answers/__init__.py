"""Computes the results of the commands; `pipeline.commands` parses arguments and prints."""
