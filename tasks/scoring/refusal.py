"""Refuses a batch with too many rejected messages before it is published, and has its messages read again."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from sqlalchemy.engine import Engine

from models.errors import RejectedError
from tasks.database.batches import find_published_batch, read_rejection_reasons, was_published
from tasks.database.ledger import BatchPlan, withdraw_batch
from tasks.rejection_limit import Reason, exceeds_limit, make_rejected_error
from tasks.settings.inputs import MessagesSettings
from tasks.settings.loading import load
from tasks.sources.snapshots import SNAPSHOT_FILE, read_source_rows, verify_snapshot

log = logging.getLogger("spamscore")


def require_publishable(
    engine: Engine, batch_id: int, plan: BatchPlan, snapshot: Path, rows: int, take_again: Callable[[], None]
) -> None:
    """Checks the rejected messages of a complete batch against [messages] max_rejected_share.

    If there are too many, the batch is withdrawn and its snapshot deleted, so that the same command reads the source
    anew. The same if there is no message at all where a batch with messages is published. A snapshot that another batch
    was published from is kept, and so is what was scored of it.

    Args:
        engine: an open database; the caller holds the lock of the date.
        batch_id: a running batch of which all chunks are committed.
        plan: the plan of the batch.
        snapshot: folder of the snapshot.
        rows: messages of the snapshot.
        take_again: makes the next run read the source anew.

    Raises:
        RejectedError: there are too many, or no message where a batch with messages is published.
    """
    if not rows:
        _keep_published_messages(engine, batch_id, plan, snapshot, take_again)
    reasons, limit = read_rejection_reasons(engine, batch_id), load(MessagesSettings).max_rejected_share
    if not exceeds_limit(reasons, rows, limit):
        return
    keep = was_published(engine, plan.batch_date, plan.snapshot)
    note = (
        " A batch of the same snapshot was published before, so it is kept: after a correction of the source, run "
        f"spamscore extract {plan.batch_date} --again first."
    )
    source, reasons = verify_snapshot(snapshot)["source"], _with_source_rows(reasons, snapshot)
    if not keep:
        _discard(engine, batch_id, snapshot, take_again)
        log.info("%s: deleted, because too many of its messages were rejected", snapshot)
    raise make_rejected_error(source, plan.batch_date, rows, reasons, limit, note if keep else "")


def _keep_published_messages(
    engine: Engine, batch_id: int, plan: BatchPlan, snapshot: Path, take_again: Callable[[], None]
) -> None:
    """Refuses to replace published messages with none."""
    published = find_published_batch(engine, plan.batch_date)
    if published is None or not published.messages_read:
        return
    source = verify_snapshot(snapshot)["source"]
    _discard(engine, batch_id, snapshot, take_again)
    raise RejectedError(
        f"{source}: expected messages of {plan.batch_date}, received none, but batch {published.batch_id} with "
        f"{published.messages_read:,} messages is published for the date. It stays published. Correct the source, and "
        f"run the same command again; if the date has no messages, run spamscore withdraw {plan.batch_date} first."
    )


def _discard(engine: Engine, batch_id: int, snapshot: Path, take_again: Callable[[], None]) -> None:
    # First, because it is atomic: however the run ends from here on, the next one reads the source, and its new
    # snapshot has another name, so that it does not continue this batch.
    take_again()
    withdraw_batch(engine, batch_id)
    shutil.rmtree(snapshot)


def _with_source_rows(reasons: list[Reason], snapshot: Path) -> list[Reason]:
    source_rows = read_source_rows(snapshot / SNAPSHOT_FILE, [reason.first_row for reason in reasons])
    return [reason._replace(source_row=source_rows[reason.first_row]) for reason in reasons]
