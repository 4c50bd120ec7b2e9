"""Declares the settings of the Spark engine: [spark]."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from models.errors import SettingsError
from models.settings import setting

_MASTER = re.compile(r"local(\[(\*|[1-9]\d*)\])?|spark://[^\s/]+:\d+|k8s://\S+|yarn")
_SHOWN_ENVIRONMENT = "spark.executorEnv.SPAMSCORE_"


@dataclass(frozen=True)
class SparkSettings:
    """[spark]: the cluster for [scoring] engine = spark, and its executors."""

    master: str = setting(
        "local[*]",
        "cluster: spark://host:7077, k8s://https://host:443, yarn, or local[*] for this machine",
        affects_result=False,
    )
    executors: int = setting(
        2, "executors of a run; with local, there is one", low=1, high=10_000, affects_result=False
    )
    cores: int = setting(
        1, "cores of an executor: it scores with as many threads, and loads one model", low=1, high=256,
        affects_result=False,
    )  # fmt: skip
    memory: int = setting(
        2048,
        "MiB of memory of an executor; 512 of them are the heap of its JVM, the others are for Python and the model",
        low=1024,
        high=1_048_576,
        affects_result=False,
    )
    python: str = setting(
        "",
        "Python of the executors, with spamscore installed; empty for the path of this one, or the one in the archive",
        affects_result=False,
    )
    archive: str = setting(
        "",
        "packed environment that executors unpack, such as environment.tar.gz of venv-pack; empty for none",
        affects_result=False,
    )
    database_url: str = setting(
        "driver",
        "where executors take the database URL from: the driver sends it in the environment of their Python processes, "
        "or the executors have SPAMSCORE_DATABASE_URL in their own",
        choices=("driver", "executor"),
        affects_result=False,
    )
    timeout: int = setting(
        600,
        "seconds without a committed chunk after which a run fails, also while it waits for executors",
        low=10,
        high=86_400,
        affects_result=False,
    )
    log: str = setting(
        "OFF",
        "lowest level of Spark's own log lines that are shown; OFF hides them, and failures are always reported",
        choices=("OFF", "ERROR", "WARN", "INFO"),
        affects_result=False,
    )
    options: str = setting(
        "",
        "more options of Spark, separated by spaces, such as spark.eventLog.enabled=true; they take precedence; quote "
        "a value with spaces",
        affects_result=False,
    )

    def __post_init__(self) -> None:
        if not _MASTER.fullmatch(self.master):
            raise SettingsError(
                f"[spark] master = {self.master}: expected spark://host:port, k8s://address, yarn, local[*] or "
                "local[number of cores]."
            )
        self.parse_options()

    @property
    def executor_count(self) -> int:
        """The number of executors."""
        return 1 if self.is_local else self.executors

    @property
    def executor_cores(self) -> int:
        """The number of cores of an executor; with local, those that the master names, or all of this machine."""
        if not self.is_local:
            return self.cores
        number = self.master.removeprefix("local").strip("[]*")
        return int(number) if number else len(os.sched_getaffinity(0))

    @property
    def is_local(self) -> bool:
        """Whether the driver's process is the only executor."""
        return self.master.startswith("local")

    def parse_options(self) -> dict[str, str]:
        """Returns [spark] options by name.

        Raises:
            SettingsError: one is not ``spark.name=value``, or would show a secret in Spark's web page. The error omits
                the value, which may be a secret.
        """
        import shlex

        try:
            parts = shlex.split(self.options)
        except ValueError as error:
            raise SettingsError(f"[spark] options: {error}. Expected spark.name=value, separated by spaces.") from None
        options = {}
        for part in parts:
            name, equals, value = part.partition("=")
            if not (name.startswith("spark.") and equals):
                raise SettingsError(
                    f"[spark] options: {name}: expected spark.name=value, such as spark.eventLog.enabled=true, "
                    "separated by spaces."
                )
            if name.startswith(_SHOWN_ENVIRONMENT):
                raise SettingsError(
                    f"[spark] options: {name}: Spark shows this value on its web page and in its event log. Set "
                    "[spark] database_url = driver, or set the variable on the machines of the executors."
                )
            options[name] = value
        return options
