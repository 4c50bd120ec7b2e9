"""The machine learning: functions and classes over arrays and data frames. It imports no Luigi and no SQLAlchemy.

TensorFlow is imported by the modules of `text`, `network`, `inference` and `training` that compute with it. `settings`,
`errors`, `training.augmentation`, `text.lookalikes` and `statistics.metrics` do not import it, and `text.vocabulary`
only when it builds a vocabulary.
"""
