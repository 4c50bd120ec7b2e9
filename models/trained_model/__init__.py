"""The folder of a trained model: its description, its checkpoints, and how it is loaded."""
