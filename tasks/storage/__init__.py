"""Reads and writes files on object storage and HDFS, by the addresses that fsspec knows."""
