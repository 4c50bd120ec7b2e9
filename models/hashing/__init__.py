"""Compiled loops and hash functions over bytes."""
