"""Measures published batches, finds drift, sends alerts and exports metrics."""
