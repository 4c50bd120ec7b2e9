"""Whether a model is good enough to serve, and why it gave a score."""
