"""HTML pages, plots and the model card."""
