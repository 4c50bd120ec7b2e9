"""Sends alerts and writes Prometheus metrics when a Nightly run ends.

It runs as the process ends, after every stage has logged its result. A failure here does not change the result of the
run.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from models.errors import RejectedError, SpamscoreError
from tasks.monitoring.alerts import DEADLINE, DRIFT, FAILURE, REJECTED, raise_alert, read_alerts, recover
from tasks.monitoring.prometheus import BATCH, RUN, batch_metrics, export_metrics, run_metrics
from tasks.scheduler.failures import Failure
from tasks.settings.loading import load
from tasks.settings.storage import DatabaseSettings

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from tasks.database.batches import BatchRow
    from tasks.monitoring.drift import Drift

log = logging.getLogger("spamscore")
_MAX_NAMED_FAILURES = 3  # in one alert


def notify_run_end(
    nights: Mapping[datetime.date, bool],
    missed: Mapping[datetime.date, bool],
    failures: Mapping[datetime.date, Sequence[Failure]],
    seconds: float,
) -> None:
    """Opens and closes alerts, and writes the metrics.

    Args:
        nights: whether each date that Nightly was run for is done.
        missed: whether each missed date that the run caught up on is done.
        failures: failures of each of the dates.
        seconds: duration of the run.
    """
    open_dates = [date for date, done in {**missed, **nights}.items() if not done]
    for date in open_dates:
        reasons = failures.get(date, ())
        is_rejected = {failure.exit_code for failure in reasons} == {RejectedError.exit_code}
        raise_alert(REJECTED if is_rejected else FAILURE, date, summarize_failures(reasons))
    try:
        _notify_of_batches(open_dates)
    except SpamscoreError as error:
        log.warning("alerts and metrics of the batches are not updated: %s", error)
    export_metrics(RUN, run_metrics(read_alerts(), not all(nights.values()), seconds))


def summarize_failures(failures: Sequence[Failure]) -> str:
    """Returns one line with the messages of the first failures, and the number of the others."""
    if not failures:
        return "the run did not finish, and no stage reported a failure: see the log of Luigi, or of another run"
    messages = [failure.message for failure in failures[:_MAX_NAMED_FAILURES]]
    more = len(failures) - _MAX_NAMED_FAILURES
    return "; ".join([*messages, *([f"and {more} more"] if more > 0 else [])])


def _notify_of_batches(open_dates: Collection[datetime.date]) -> None:
    from tasks.database.batches import find_latest_published_batch
    from tasks.database.connection import connect
    from tasks.monitoring.drift import read_drift

    engine = connect(load(DatabaseSettings))
    _close_alerts(engine, open_dates)
    latest = find_latest_published_batch(engine)
    if latest is not None:
        drift = read_drift(engine, latest.batch_id)
        _update_drift_alert(latest, drift)
        export_metrics(BATCH, batch_metrics(latest, drift))


def _close_alerts(engine: Engine, open_dates: Collection[datetime.date]) -> None:
    """Closes the alerts, except drift, of dates that are published now, without the dates that are not done."""
    from tasks.database.batches import find_published_dates

    alerts = read_alerts()
    kinds = (FAILURE, REJECTED, DEADLINE)
    alert_dates = {alert_date for kind in kinds for alert_date in alerts.dates(kind)}
    published = {
        str(published_date)
        for published_date in find_published_dates(engine, map(datetime.date.fromisoformat, alert_dates))
    }
    published -= set(map(str, open_dates))
    for kind in kinds:
        recover(kind, published, "its scores are published")


def _update_drift_alert(latest: BatchRow, drift: Drift | None) -> None:
    """Opens an alert for a batch that drifted. A batch without drift closes the alerts up to its own date."""
    if drift is None:
        return
    if drift.is_open:
        raise_alert(DRIFT, latest.batch_date, drift.summary)
    else:
        earlier = {alert_date for alert_date in read_alerts().dates(DRIFT) if alert_date <= str(latest.batch_date)}
        recover(DRIFT, earlier, f"the batch of {latest.batch_date} is like the batches before it, or was accepted")
