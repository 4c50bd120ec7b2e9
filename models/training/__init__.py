"""A corpus → a trained model."""
