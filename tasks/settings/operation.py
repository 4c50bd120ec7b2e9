"""Declares the settings of operating the pipeline: [run], [alerts], [metrics] and [console]."""

from __future__ import annotations

import re
from dataclasses import dataclass

from models.errors import SettingsError
from models.settings import setting


@dataclass(frozen=True)
class RunSettings:
    """[run]: concurrent runs, catch-up, the deadline, and the links on Luigi's page."""

    when_running: str = setting(
        "wait",
        "action when another run is scoring the same date or building the same artifact: wait for it, or leave with "
        "exit code 10",
        choices=("wait", "leave"),
        affects_result=False,
    )
    artifacts_url: str = setting(
        "",
        "URL at which a browser finds the artifacts folder, for links on Luigi's page; empty links to the local files",
        affects_result=False,
    )
    tensorboard_url: str = setting(
        "",
        "URL of a TensorBoard that reads the artifacts, for the link to a training on Luigi's page; empty for none",
        affects_result=False,
    )
    catch_up_days: int = setting(
        0,
        "days before its date that Nightly checks for dates that never had a published batch, for example because the "
        "machine was off; it scores those too; 0 for none",
        low=0,
        high=1000,
        affects_result=False,
    )
    deadline: str = setting(
        "",
        "time on the day after a batch's date at which its scores are due, such as 06:00, in [messages] timezone; a "
        "run that will be late warns as early as its first chunks; empty for none",
        affects_result=False,
    )

    def __post_init__(self) -> None:
        for key in ("artifacts_url", "tensorboard_url"):
            value = getattr(self, key)
            # Everybody who can open Luigi's page sees the URL.
            if value and not re.fullmatch(r"https?://[^\s@]+", value):
                raise SettingsError(
                    f"[run] {key} = …: expected a URL such as https://reports.internal/spam, without a user or "
                    "password, because it is shown on Luigi's page."
                )
        if self.deadline and not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", self.deadline):
            raise SettingsError(
                f"[run] deadline = {self.deadline}: expected a time such as 06:00, or an empty value. Set it in "
                "luigi.cfg."
            )


@dataclass(frozen=True)
class AlertSettings:
    """[alerts]: where alerts are sent when a night fails, drifts, will be late, or has recovered; once each."""

    mail_to: str = setting(
        "",
        "email addresses that receive alerts, separated by commas, through the server of Luigi's [smtp] and from "
        "[email] sender; empty for none",
        affects_result=False,
    )
    webhook_url: str = setting(
        "",
        "URL that receives alerts as JSON; SPAMSCORE_ALERTS_WEBHOOK_URL takes precedence, because the URL is often a "
        "secret; empty for none",
        secret=True,
        affects_result=False,
    )
    timeout: int = setting(10, "seconds that a mail server or webhook may take", low=1, high=300, affects_result=False)
    attempts: int = setting(3, "attempts of a run to deliver an alert", low=1, high=10, affects_result=False)

    def __post_init__(self) -> None:
        if self.webhook_url and not re.match(r"https?://[^/\s]+", self.webhook_url):
            raise SettingsError(
                "[alerts] webhook_url = …: expected a URL that starts with https:// or http://. Set it in "
                "luigi.cfg or in SPAMSCORE_ALERTS_WEBHOOK_URL."
            )


@dataclass(frozen=True)
class MetricsSettings:
    """[metrics]: where Nightly writes its Prometheus metrics."""

    textfile_folder: str = setting(
        "",
        "existing folder that node_exporter's textfile collector reads; empty for none",
        affects_result=False,
    )
    pushgateway: str = setting(
        "",
        "URL of a Pushgateway, such as http://pushgateway.internal:9091; SPAMSCORE_METRICS_PUSHGATEWAY takes "
        "precedence, and a password belongs there; empty for none",
        secret=True,
        affects_result=False,
    )

    def __post_init__(self) -> None:
        if self.pushgateway and not re.match(r"https?://[^/\s]+", self.pushgateway):
            raise SettingsError(
                "[metrics] pushgateway = …: expected a URL such as http://pushgateway.internal:9091. Set it in "
                "luigi.cfg or in SPAMSCORE_METRICS_PUSHGATEWAY."
            )


@dataclass(frozen=True)
class ConsoleSettings:
    """[console]: what a run prints. [core] log_level sets the level of Luigi's own lines."""

    log_level: str = setting(
        "INFO",
        "lowest level of the pipeline's log lines that are shown; FATAL is the same as CRITICAL",
        choices=("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "FATAL"),
        affects_result=False,
    )
    tensorflow_log: str = setting(
        "QUIET",
        "lowest level of TensorFlow's own log lines that are shown, where FATAL is the same as CRITICAL; failures are "
        "always reported",
        choices=("QUIET", "FATAL", "CRITICAL", "ERROR", "WARNING", "INFO"),
        affects_result=False,
    )
    progress: str = setting(
        "auto", "progress bars: auto shows them in a terminal", choices=("auto", "never"), affects_result=False
    )
