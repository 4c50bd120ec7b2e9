"""Every touch of Luigi, files and databases: one module a stage, the settings, the targets, the tables.

What Luigi imports to ask "is it done?" imports no TensorFlow, pandas or pyarrow; `build` and `run` do.
"""
