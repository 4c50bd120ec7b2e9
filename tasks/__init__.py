"""The stages of the pipeline as Luigi tasks, and all access to files, databases and settings.

Modules that Luigi imports to check whether a task is complete import no TensorFlow, pandas or pyarrow. Only `build` and
`run` do.
"""
