"""Every touch of Luigi, files and databases: one module a stage, the settings, the targets, the tables.

Nothing here imports TensorFlow, pandas or pyarrow at import time: a scheduler that asks "is it done?" needs none of them.
"""
