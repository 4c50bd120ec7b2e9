"""Builds the HTML reports, their plots and the model card."""
