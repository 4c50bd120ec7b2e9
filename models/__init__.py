"""The machine learning alone: arrays and frames in, arrays and frames out. No Luigi, no SQLAlchemy.

TensorFlow is imported by the modules that compute (`text`, `encoder`, `network`, `training`, `checkpoints`, `export`,
`scoring`, `devices`); `settings`, `errors`, `vocabulary`, `lookalikes` and `metrics` do without it.
"""
