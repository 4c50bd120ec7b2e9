"""Declares the settings of where results are stored and how long they are kept: [artifacts] and [database]."""

from __future__ import annotations

import re
from dataclasses import dataclass

from models.errors import SettingsError
from models.settings import setting
from tasks.settings.input_checks import ADDRESS, SCHEMES, check_address


@dataclass(frozen=True)
class ArtifactSettings:
    """[artifacts]: the folder of all files that a run writes, and how long they are kept."""

    folder: str = setting(
        "artifacts", "folder for all output except the database, relative to the working folder", affects_result=False
    )
    shared: str = setting(
        "",
        "address to which snapshots and trainings are copied for executors on other machines, such as "
        "s3://bucket/spamscore, or file:///mnt/spamscore for a mounted folder; empty if all machines have the folder",
        affects_result=False,
    )
    model_name: str = setting("spam_ham", "name of the exported model, as in exports/<model_name>/<version>/")
    keep_days: int = setting(
        0,
        "days that a snapshot, its shared copy, the reports and selections of night messages are kept after their "
        "date; Nightly then deletes them, because they contain message texts; 0 keeps all",
        low=0,
        high=36_500,
        affects_result=False,
    )

    def __post_init__(self) -> None:
        if self.shared:
            check_address("[artifacts] shared", self.shared, (*SCHEMES, "file"))
            if not ADDRESS.match(self.shared):
                raise SettingsError(
                    f"[artifacts] shared = {self.shared}: expected an address such as s3://bucket/spamscore, or "
                    "file:///mnt/spamscore for a mounted folder."
                )
        # The name becomes a folder name and a part of the URLs of a model server.
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", self.model_name):
            raise SettingsError(
                f"[artifacts] model_name = {self.model_name}: expected letters, digits and the characters _ . - such "
                "as spam_ham, not starting with . or -."
            )


@dataclass(frozen=True)
class DatabaseSettings:
    """[database]: the database that receives the scores, and how long rows are kept."""

    url: str = setting(
        "sqlite:///spamscore.db",
        "SQLAlchemy URL of the database; SPAMSCORE_DATABASE_URL takes precedence, and a password belongs there",
        secret=True,
        affects_result=False,
    )
    connect_timeout: int = setting(10, "seconds to wait for a connection", low=1, high=3600, affects_result=False)
    keep_days: int = setting(
        90,
        "days that the rows of a batch are kept after its date; spamscore prune and Nightly then delete them, unless "
        "the batch is published; 0 keeps all",
        low=0,
        high=36_500,
        affects_result=False,
    )

    def __post_init__(self) -> None:
        require_sqlalchemy_url("database", "url", self.url)


def require_sqlalchemy_url(section: str, key: str, url: str) -> None:
    """Checks that a value has the form of a SQLAlchemy URL. The error omits the value: it may contain a password.

    Raises:
        SettingsError: the value does not start with a dialect and ``://``.
    """
    if not re.match(r"[A-Za-z][\w+]*://", url):
        raise SettingsError(
            f"[{section}] {key} = …: expected a SQLAlchemy URL such as sqlite:///spamscore.db or "
            f"postgresql://user:password@host:5432/name. Set it in luigi.cfg or in SPAMSCORE_{section.upper()}_URL."
        )
