"""What the page of a batch tells, put together from what was measured; and the same figures for a program."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.engine import Engine

from models.reports.batch_report import HIDE, Batch, Figure, Held, ListedMessage
from models.settings import TextSettings
from models.statistics.stability import GRID
from models.statistics.uncertainty import pick_dissimilar
from models.text.cleaning import clean_texts
from tasks.database.batches import BatchRow
from tasks.monitoring.batch_comparison import Measured
from tasks.monitoring.batch_figures import ScoredMessage, TextFigures, ledger_counts, rejected_reasons
from tasks.monitoring.drift import SHOWN, Allowed, Drift, figure_of
from tasks.monitoring.report_index import night_of, report_path
from tasks.settings.loading import load
from tasks.settings.scoring import DriftSettings, ReportSettings


def told_of(engine: Engine, batch: BatchRow, found: Measured) -> Batch:
    """What the page tells."""
    texts = found.texts
    read = {"read": batch.messages_read, "scored": batch.scored, "rejected": batch.rejected, "flagged": batch.flagged}
    rejected = rejected_reasons(engine, batch.batch_id)
    return Batch(
        batch_id=batch.batch_id,
        date=batch.batch_date,
        model=f"{batch.model_name}, version {batch.model_version}",
        threshold=batch.threshold,
        counts={name: number or 0 for name, number in read.items()},
        held=held_together(engine, batch, found, rejected),
        rejected=rejected,
        seconds=seconds_of(batch),
        nights=[night_of(one) for one in (*reversed(found.earlier), found.figures)],
        limits=ends_of(found.limits),
        figures=figure_rows(found),
        crossed=[one.said for one in found.crossed],
        accepted=accepted_said(found.kept),
        compared=compared_said(found),
        scores=found.scores.counts,
        validation=found.validation,
        before=found.counts_before,
        psi_validation=found.psi[0],
        psi_before=found.psi[1],
        wording=texts if isinstance(texts, str) else texts.wording,
        sampled="" if isinstance(texts, str) else sampled_said(texts),
        no_words=found.no_words,
        suspicious=listed_messages(found.scores.suspicious, texts),
        uncertain=listed_messages(found.scores.uncertain, texts),
        facts=facts_of(batch),
        earlier=address_of(found.before),
    )


def held_together(engine: Engine, batch: BatchRow, found: Measured, rejected: Mapping[str, int]) -> list[Held]:
    """Counts that must be the same wherever they are taken from."""
    ledger = ledger_counts(engine, batch.batch_id)
    read, scored, refused = batch.messages_read or 0, batch.scored or 0, batch.rejected or 0
    held = [
        Held("Read are the scored and the rejected", read, scored + refused),
        Held(f"Read in {ledger['chunks']:,} committed chunks", read, ledger["messages_read"]),
        Held("Rows with a score", scored, found.scores.rows),
        Held("Rows of rejected messages", refused, sum(rejected.values())),
        Held("Rows that are flagged", batch.flagged or 0, found.scores.flagged),
        Held("Checksum of the rows", str(batch.checksum), found.scores.checksum),
    ]
    return held if isinstance(found.texts, str) else [Held("Messages in the snapshot", found.texts.rows, read), *held]


def seconds_of(batch: BatchRow) -> dict[str, float]:
    """The seconds that were noted of a batch, by part."""
    noted = {
        name.removeprefix("seconds_"): value
        for name, value in dataclasses.asdict(batch).items()
        if name.startswith("seconds_")
    }
    return {name: seconds for name, seconds in noted.items() if seconds is not None}


def ends_of(limits: Mapping[str, Allowed]) -> dict[str, tuple[float | None, float | None]]:
    """Limits by the figure of a chart."""
    names = {"message_count": "messages", "unknown_words": "unknown_share"}
    return {names.get(key, key): (one.low, one.high) for key, one in limits.items()}


_TITLES = {
    "flagged_share": "Share flagged",
    "message_count": "Messages",
    "unknown_words": "Words not in the vocabulary",
    "psi_before": "PSI against the batch before",
    "psi_validation": "PSI against labelled messages",
}


def figure_rows(found: Measured) -> list[Figure]:
    """A row for each figure that may have a limit."""
    rows, over = [], {one.limit for one in found.crossed}
    for key, title in _TITLES.items():
        shown, value, limit = SHOWN[key], figure_of(found.figures, key), found.limits.get(key)
        usual = "" if limit is None or limit.usual is None else shown(limit.usual)
        low = "" if limit is None or limit.low is None else f"{shown(limit.low)} to "
        allowed = "" if limit is None else low + ("up to " if not low else "") + shown(limit.high)
        rows.append(Figure(title, "" if value is None else shown(value), usual, allowed, key in over))
    return rows


def compared_said(found: Measured) -> str:
    """With how many batches it was compared."""
    settings, there = load(DriftSettings), len(found.earlier)
    if there < settings.least_batches:
        return (
            f"Of earlier dates {there} batches are published, and {settings.least_batches} are needed: flagged share, "
            "number of messages and unknown words are not held to limits yet."
        )
    return f"Compared with {there} batches, of {found.earlier[-1].batch_date} to {found.earlier[0].batch_date}."


def sampled_said(texts: TextFigures) -> str:
    """Of which messages the texts are told."""
    of = f"{texts.wording.messages:,} messages"
    return of if texts.every == 1 else f"{of}, one in {texts.every:,} of the {texts.rows:,}"


def listed_messages(found: Sequence[ScoredMessage], texts: TextFigures | str) -> list[ListedMessage]:
    """Those of some messages that are listed: no two alike, as far as their texts are known."""
    settings = load(ReportSettings)
    if settings.messages == HIDE:
        return []
    known = {} if isinstance(texts, str) else texts.texts
    there = [one for one in found if one.message_id in known]
    if there:
        cleaned = clean_texts([known[one.message_id] for one in there], load(TextSettings))
        chosen = [there[place] for place in pick_dissimilar(cleaned, (), settings.listed)]
    else:
        chosen = list(found[: settings.listed])
    return [ListedMessage(one.message_id, one.probability, one.flagged, known.get(one.message_id)) for one in chosen]


def facts_of(batch: BatchRow) -> dict[str, dict[str, object]]:
    """What the batch was made with."""
    drift, report = dataclasses.asdict(load(DriftSettings)), dataclasses.asdict(load(ReportSettings))
    settings = {f"[drift] {key}": value for key, value in drift.items()}
    settings |= {f"[report] {key}": value for key, value in report.items()}
    made: dict[str, object] = {
        "model": batch.model_name,
        "version": batch.model_version,
        "checkpoint": batch.checkpoint,
        "threshold": batch.threshold,
        "devices": batch.devices,
        "messages a chunk": batch.chunk_size,
        "snapshot": batch.snapshot,
        "recipe": batch.recipe,
        "begun": f"{batch.started_at:%Y-%m-%d %H:%M:%S} UTC",
        "published": f"{batch.published_at:%Y-%m-%d %H:%M:%S} UTC",
    }
    return {"Batch": made, "Limits and report": settings}


def address_of(batch: BatchRow | None) -> str:
    """The address of a batch's report from another's; empty where it has none."""
    if batch is None or not report_path(batch.batch_date, batch.batch_id).is_file():
        return ""
    return f"../{batch.batch_date}/batch-{batch.batch_id}.html"


def figures_of(told: Batch, found: Measured) -> dict[str, Any]:
    """What a program may want of a report; no message's text."""
    kept = ("batch_id", "model", "threshold", "counts", "rejected", "seconds", "sampled", "accepted", "compared")
    texts = found.texts
    return {
        **{key: getattr(told, key) for key in kept},
        "date": told.date.isoformat(),
        "held": [{**dataclasses.asdict(one), "agrees": one.agrees} for one in told.held],
        "drift": {**dataclasses.asdict(found.figures), "batch_date": told.date.isoformat()},
        "flagged_share": found.figures.flagged_share,
        "crossed": [dataclasses.asdict(one) for one in found.crossed],
        "limits": {key: dataclasses.asdict(one) for key, one in found.limits.items()},
        "score_edges": GRID.tolist(),
        "score_counts": found.scores.counts.tolist(),
        "wording": texts if isinstance(texts, str) else dataclasses.asdict(texts.wording),
    }


def accepted_said(drift: Drift | None) -> str:
    """Who accepted what a batch crossed, in a sentence; empty where nobody did."""
    if drift is None or drift.accepted_at is None:
        return ""
    return f"Accepted by {drift.accepted_by} on {drift.accepted_at:%Y-%m-%d at %H:%M} UTC."
