"""Settings of what a run leaves and where: [artifacts] and [database]."""

from __future__ import annotations

import re
from dataclasses import dataclass

from models.errors import SettingsError
from models.settings import (
    setting,
)


@dataclass(frozen=True)
class ArtifactSettings:
    """[artifacts]: where a run leaves its files."""

    folder: str = setting("artifacts", "folder of everything a run leaves but the database", affects_result=False)
    model_name: str = setting("spam_ham", "name of the exported model: exports/<model_name>/<version>/")
    keep_days: int = setting(
        0,
        "days after a date from which Nightly deletes its snapshot and reports, which hold messages; 0 keeps all",
        low=0,
        high=36_500,
        affects_result=False,
    )

    def __post_init__(self) -> None:
        # It becomes a folder, and a part of the addresses that a model server answers.
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", self.model_name):
            raise SettingsError(
                f"[artifacts] model_name = {self.model_name}: expected letters, digits and the signs _ . - such as "
                "spam_ham, beginning with neither . nor -."
            )


@dataclass(frozen=True)
class DatabaseSettings:
    """[database]: where the scores go."""

    url: str = setting(
        "sqlite:///spamscore.db",
        "SQLAlchemy address of the database; SPAMSCORE_DATABASE_URL goes before it, and a password belongs there",
        secret=True,
        affects_result=False,
    )
    connect_timeout: int = setting(10, "seconds to wait for a connection", low=1, high=3600, affects_result=False)
    keep_days: int = setting(
        90,
        "days after a batch's date from which spamscore prune and Nightly delete its rows unless it is published; 0 "
        "keeps all",
        low=0,
        high=36_500,
        affects_result=False,
    )

    def __post_init__(self) -> None:
        require_address("database", "url", self.url)


def require_address(section: str, key: str, address: str) -> None:
    """Refuses what is no address at all; the text may hold a password, so it is not shown."""
    if not re.match(r"[A-Za-z][\w+]*://", address):
        raise SettingsError(
            f"[{section}] {key} = …: expected a SQLAlchemy address such as sqlite:///spamscore.db or "
            f"postgresql://user:password@host:5432/name. Set it in luigi.cfg or in SPAMSCORE_{section.upper()}_URL."
        )
