"""Exports metrics to Prometheus: of the newest published batch, and of the run that ended.

The metrics are written as text files for the textfile collector of node_exporter, or pushed to a Pushgateway. Batch and
run are exported separately: a run without a database still exports its failure, and the metrics of the batch stay.
"""

from __future__ import annotations

import dataclasses
import datetime
import logging
from collections.abc import Callable
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from tasks.monitoring.alerts import KINDS, Alerts
from tasks.settings.loading import load
from tasks.settings.operation import MetricsSettings

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from tasks.database.batches import BatchRow
    from tasks.monitoring.drift import Drift

log = logging.getLogger("spamscore")

BATCH, RUN = "batch", "run"
_PUSH_SECONDS = 10.0


def batch_metrics(batch: BatchRow, drift: Drift | None) -> CollectorRegistry:
    """Builds the metrics of a published batch; without drift figures if the batch was not measured yet."""
    from prometheus_client import CollectorRegistry, Gauge

    registry = CollectorRegistry()
    scored, read = batch.scored or 0, batch.messages_read or 0
    values = {
        "date_timestamp_seconds": ("midnight UTC of the date of the batch", _midnight(batch.batch_date)),
        "published_timestamp_seconds": ("when the newest batch was published", _seconds(batch.published_at)),
        "messages": ("messages read", read),
        "scored_messages": ("messages scored", scored),
        "rejected_messages": ("messages rejected", batch.rejected or 0),
        "flagged_messages": ("messages flagged", batch.flagged or 0),
        "flagged_share": ("share of the scored messages that were flagged", _ratio(batch.flagged, scored)),
        "rejected_share": ("share of the messages that were rejected", _ratio(batch.rejected, read)),
        "messages_per_second": ("messages read per second over the whole batch", _ratio(read, batch.seconds_total)),
        "threshold": ("probability from which a message is flagged", batch.threshold),
        "model_version": ("version of the model that scored the batch", batch.model_version),
    }
    for name, (meaning, value) in values.items():
        Gauge(f"spamscore_batch_{name}", meaning, registry=registry).set(value)
    _add_seconds(registry, batch)
    _add_drift(registry, drift)
    return registry


def _add_seconds(registry: CollectorRegistry, batch: BatchRow) -> None:
    from prometheus_client import Gauge

    seconds = Gauge(
        "spamscore_batch_seconds", "duration of the batch and of its parts in seconds", ["part"], registry=registry
    )
    for name in (field.name for field in dataclasses.fields(batch) if field.name.startswith("seconds_")):
        if (value := getattr(batch, name)) is not None:
            seconds.labels(part=name.removeprefix("seconds_")).set(value)


def _add_drift(registry: CollectorRegistry, drift: Drift | None) -> None:
    from prometheus_client import Gauge

    crossed = Gauge("spamscore_drift_crossed", "limits of [drift] that are crossed and not accepted", registry=registry)
    psi = Gauge(
        "spamscore_drift_psi",
        "population stability index of the scores, by reference",
        ["against"],
        registry=registry,
    )
    unknown = Gauge(
        "spamscore_drift_unknown_share", "share of the words that are not in the vocabulary", registry=registry
    )
    if drift is None:
        crossed.set(0)
        return
    crossed.set(len(drift.crossed) if drift.is_open else 0)
    figures = drift.figures
    for against, value in (("validation", figures.psi_validation), ("before", figures.psi_before)):
        if value is not None:
            psi.labels(against=against).set(value)
    if figures.unknown_share is not None:
        unknown.set(figures.unknown_share)


def run_metrics(alerts: Alerts, failed: bool, seconds: float) -> CollectorRegistry:
    """Builds the metrics of the run that is ending.

    Args:
        alerts: open alerts and undelivered messages.
        failed: whether the run did not complete its date.
        seconds: duration of the run in seconds.
    """
    from prometheus_client import CollectorRegistry, Gauge

    registry = CollectorRegistry()
    values = {
        "ended_timestamp_seconds": ("when the last run ended", _seconds(datetime.datetime.now(datetime.UTC))),
        "failed": ("1 if the last run did not complete its date, else 0", float(failed)),
        "seconds": ("duration of the last run in seconds", seconds),
    }
    for name, (meaning, value) in values.items():
        Gauge(f"spamscore_run_{name}", meaning, registry=registry).set(value)
    open_alerts = Gauge("spamscore_alerts_open", "alerts that are open", ["kind"], registry=registry)
    for kind in KINDS:
        open_alerts.labels(kind=kind).set(len(alerts.dates(kind)))
    undelivered = Gauge("spamscore_alerts_undelivered", "messages that are not delivered yet", registry=registry)
    undelivered.set(len(alerts.undelivered))
    return registry


def export_metrics(part: str, registry: CollectorRegistry) -> None:
    """Writes the text file of a part and pushes it, as set in [metrics]. A failure is only logged."""
    settings = load(MetricsSettings)
    if settings.textfile_folder:
        try:
            _write(Path(settings.textfile_folder), part, registry)
        except OSError as error:
            log.warning("[metrics] textfile_folder = %s: %s", settings.textfile_folder, error.strerror or error)
    if settings.pushgateway:
        try:
            _push(settings.pushgateway, registry)
        except (OSError, HTTPException) as error:  # urllib raises errors of these types
            log.warning("[metrics] pushgateway: not pushed: %s", getattr(error, "reason", None) or type(error).__name__)


def _write(folder: Path, part: str, registry: CollectorRegistry) -> None:
    from prometheus_client import write_to_textfile

    # Written through a temporary file, so that the collector reads the old file or the new one.
    write_to_textfile(str(folder / f"spamscore_{part}.prom"), registry)


def _push(address: str, registry: CollectorRegistry) -> None:
    from prometheus_client import pushadd_to_gateway
    from prometheus_client.exposition import basic_auth_handler, default_handler

    parts = urlsplit(address)
    handler: Callable[..., Any] = default_handler
    if parts.username:
        handler = partial(basic_auth_handler, username=unquote(parts.username), password=unquote(parts.password or ""))
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    # pushadd keeps the metrics of the other part.
    pushadd_to_gateway(bare, job="spamscore", registry=registry, timeout=_PUSH_SECONDS, handler=handler)


def _ratio(part: float | None, whole: float | None) -> float:
    return (part or 0) / whole if whole else 0.0


def _seconds(moment: datetime.datetime | None) -> float:
    return moment.timestamp() if moment else 0.0


def _midnight(date: datetime.date) -> float:
    return datetime.datetime.combine(date, datetime.time(), datetime.UTC).timestamp()
