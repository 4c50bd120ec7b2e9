"""The sections of luigi.cfg: declared as frozen dataclasses, loaded from Luigi's configuration, and checked."""
