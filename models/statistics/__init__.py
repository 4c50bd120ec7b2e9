"""Statistics of labels and scores."""
