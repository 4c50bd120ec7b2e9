"""The sections of luigi.cfg: their declarations, and how they are loaded and checked."""
