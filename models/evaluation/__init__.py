"""Decides whether a model is good enough to serve, and explains its scores."""
