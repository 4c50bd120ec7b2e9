"""How a night ended, told to those who were not there: alerts that open and close, and the numbers for Prometheus.

It runs as the process ends, when every stage has said what it had to say; nothing that fails here changes how the night
ended.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from models.errors import SpamscoreError
from tasks.monitoring.alerts import DEADLINE, DRIFT, FAILURE, known_alerts, raise_alert, recover
from tasks.monitoring.prometheus import BATCH, RUN, batch_metrics, run_metrics, tell_prometheus
from tasks.scheduler.failures import Failure
from tasks.settings.loading import load
from tasks.settings.storage import DatabaseSettings

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from tasks.database.batches import BatchRow
    from tasks.monitoring.drift import Drift

log = logging.getLogger("spamscore")
_NAMED = 3  # failures that an alert names


def tell_how_it_ended(date: datetime.date, done: bool, failed: Sequence[Failure], seconds: float) -> None:
    """Opens and closes alerts, and writes the metrics.

    Args:
        date: of the night.
        done: whether all of it is.
        failed: what was said of failures.
        seconds: that it took.
    """
    if not done:
        raise_alert(FAILURE, date, reason(failed))
    try:
        _tell_of_batches(date, done)
    except SpamscoreError as error:
        log.warning("no word of the batches to those who watch: %s", error)
    tell_prometheus(RUN, run_metrics(known_alerts(), not done, seconds))


def reason(failed: Sequence[Failure]) -> str:
    """What failed, in one line."""
    if not failed:
        return "it did not come to its end, and no stage said why: another run, or Luigi's log, knows"
    more = [f"and {len(failed) - _NAMED} more"] if len(failed) > _NAMED else []
    return "; ".join([one.message for one in failed[:_NAMED]] + more)


def _tell_of_batches(date: datetime.date, done: bool) -> None:
    from tasks.database.batches import find_latest_published_batch
    from tasks.database.connection import connect
    from tasks.monitoring.drift import drift_of

    engine = connect(load(DatabaseSettings))
    _close_alerts(engine, date, done)
    newest = find_latest_published_batch(engine)
    if newest is not None:
        drift = drift_of(engine, newest.batch_id)
        _tell_of_drift(newest, drift)
        tell_prometheus(BATCH, batch_metrics(newest, drift))


def _close_alerts(engine: Engine, date: datetime.date, done: bool) -> None:
    """Closes those of failure and lateness of the dates that are published now; this one's only if all is done."""
    from tasks.database.batches import find_published_dates

    alerts = known_alerts()
    dates = {one for kind in (FAILURE, DEADLINE) for one in alerts.dates(kind)}
    published = {str(one) for one in find_published_dates(engine, map(datetime.date.fromisoformat, dates))}
    if not done:
        published -= {str(date)}
    recover(FAILURE, published, "its scores are published")
    recover(DEADLINE, published, "its scores are published")


def _tell_of_drift(newest: BatchRow, drift: Drift | None) -> None:
    """Opens an alert of a batch that drifted; one that did not closes those of the dates up to its own."""
    if drift is None:
        return
    if drift.is_open:
        raise_alert(DRIFT, newest.batch_date, drift.said)
    else:
        earlier = {one for one in known_alerts().dates(DRIFT) if one <= str(newest.batch_date)}
        recover(DRIFT, earlier, f"the batch of {newest.batch_date} is like those before, or was accepted")
