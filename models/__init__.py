"""The machine learning alone: arrays and frames in, arrays and frames out. No Luigi, no SQLAlchemy.

TensorFlow is imported by the modules that compute (`text`, `tokens`, `segmentation`, `encoder`, `linear`, `network`,
`training`, `checkpoints`, `export`, `scoring`, `devices`); `settings`, `errors`, `augmentation`, `lookalikes` and
`metrics` do without it, and so does `vocabulary` until one is built.
"""
