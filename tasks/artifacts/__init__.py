"""Artifacts on disk: their paths, folders that appear completely or not at all, exports, trainings and fingerprints."""
