"""Settings of operating the pipeline: [run], [alerts], [metrics] and [console]."""

from __future__ import annotations

import re
from dataclasses import dataclass

from models.errors import SettingsError
from models.settings import (
    setting,
)


@dataclass(frozen=True)
class RunSettings:
    """[run]: how a run behaves beside others."""

    when_running: str = setting(
        "wait",
        "what a run does when another is scoring the same date or making the same artifact: wait for it, or leave with "
        "exit code 10",
        choices=("wait", "leave"),
        affects_result=False,
    )
    artifacts_url: str = setting(
        "",
        "address at which a browser finds the folder of the artifacts, for the links on Luigi's page; empty links to "
        "the files themselves",
        affects_result=False,
    )
    tensorboard_url: str = setting(
        "",
        "address of a TensorBoard over the artifacts, for the links on Luigi's page to a training",
        affects_result=False,
    )
    catch_up_days: int = setting(
        0,
        "days before its date that Nightly looks at: those that never had a published batch, as after a machine was "
        "off, are scored with it; 0 for none",
        low=0,
        high=1000,
        affects_result=False,
    )
    deadline: str = setting(
        "",
        "time of the day after a batch's date, as 06:00 by the local clock, at which its scores are due; a run that "
        "will be late says so from its first chunks; empty for none",
        affects_result=False,
    )

    def __post_init__(self) -> None:
        for key in ("artifacts_url", "tensorboard_url"):
            value = getattr(self, key)
            # It is shown to everybody who reaches the page.
            if value and not re.fullmatch(r"https?://[^\s@]+", value):
                raise SettingsError(
                    f"[run] {key} = …: expected an address such as https://reports.internal/spam, without a user or "
                    "password, for it is shown on Luigi's page."
                )
        if self.deadline and not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", self.deadline):
            raise SettingsError(
                f"[run] deadline = {self.deadline}: expected a time such as 06:00, or nothing. Set it in luigi.cfg."
            )


@dataclass(frozen=True)
class AlertSettings:
    """[alerts]: who is told that a night failed, drifted, will be late, or is well again; once each, by Nightly."""

    mail_to: str = setting(
        "",
        "addresses that are mailed, with commas between them, by the server of Luigi's [smtp] and from [email] sender; "
        "empty for none",
        affects_result=False,
    )
    webhook_url: str = setting(
        "",
        "address that is sent JSON; SPAMSCORE_ALERTS_WEBHOOK_URL goes before it, for such an address is often a "
        "secret; empty for none",
        secret=True,
        affects_result=False,
    )
    timeout: int = setting(10, "seconds that a mail server or webhook may take", low=1, high=300, affects_result=False)
    attempts: int = setting(3, "times that a run tries to deliver an alert", low=1, high=10, affects_result=False)

    def __post_init__(self) -> None:
        if self.webhook_url and not re.match(r"https?://[^/\s]+", self.webhook_url):
            raise SettingsError(
                "[alerts] webhook_url = …: expected an address that begins with https:// or http://. Set it in "
                "luigi.cfg or in SPAMSCORE_ALERTS_WEBHOOK_URL."
            )


@dataclass(frozen=True)
class MetricsSettings:
    """[metrics]: where Prometheus finds the numbers of a night."""

    textfile_folder: str = setting(
        "",
        "folder that node_exporter's textfile collector reads, which must be there; empty for none",
        affects_result=False,
    )
    pushgateway: str = setting(
        "",
        "address of a Pushgateway, as http://pushgateway.internal:9091; SPAMSCORE_METRICS_PUSHGATEWAY goes before it, "
        "and a password belongs there; empty for none",
        secret=True,
        affects_result=False,
    )

    def __post_init__(self) -> None:
        if self.pushgateway and not re.match(r"https?://[^/\s]+", self.pushgateway):
            raise SettingsError(
                "[metrics] pushgateway = …: expected an address such as http://pushgateway.internal:9091. Set it in "
                "luigi.cfg or in SPAMSCORE_METRICS_PUSHGATEWAY."
            )


@dataclass(frozen=True)
class ConsoleSettings:
    """[console]: what is said while it runs. Luigi's own lines have their level in [core] log_level."""

    log_level: str = setting(
        "INFO",
        "least severe lines of the pipeline that are shown",
        choices=("DEBUG", "INFO", "WARNING", "ERROR"),
        affects_result=False,
    )
    tensorflow_log: str = setting(
        "QUIET",
        "least severe lines of TensorFlow's own log that are shown; its failures are shown always",
        choices=("QUIET", "ERROR", "WARNING", "INFO"),
        affects_result=False,
    )
    progress: str = setting(
        "auto", "progress bars: auto shows them in a terminal", choices=("auto", "never"), affects_result=False
    )
