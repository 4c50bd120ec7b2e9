"""Declares the settings of serving the exported model: [serving]."""

from __future__ import annotations

import re
from dataclasses import dataclass

from models.errors import SettingsError
from models.settings import setting


@dataclass(frozen=True)
class ServingSettings:
    """[serving]: TensorFlow Serving, from the files that it reads to the clients that ask it."""

    base_path: str = setting(
        "",
        "absolute path or URI at which TensorFlow Serving finds the folder exports/<model_name>, such as "
        "/models/spam_ham; empty for the folder on this machine",
        affects_result=False,
    )
    keep_loaded: int = setting(
        5,
        "newest versions that TensorFlow Serving keeps loaded, besides those with a label, so that a rollback to one "
        "of them takes effect at once",
        low=1,
        high=100,
        affects_result=False,
    )
    load_seconds: int = setting(
        30,
        "seconds that TensorFlow Serving gets to load a version that it does not keep loaded, before spamscore serve "
        "moves a label to the version; 0 if there is no server",
        low=0,
        high=3600,
        affects_result=False,
    )

    def __post_init__(self) -> None:
        if self.base_path and not re.fullmatch(r"(/|[a-z][a-z0-9]*://)[^\s\"'\\]*", self.base_path):
            raise SettingsError(
                f"[serving] base_path = {self.base_path}: expected an absolute path such as /models/spam_ham, or a URI "
                "such as s3://bucket/spam_ham, without spaces, quotes and backslashes. Set it in luigi.cfg, or leave "
                "it empty for the folder on this machine."
            )
