"""Builds the content of a batch report from the measurements of the batch: for the HTML page and as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.engine import Engine

from models.reports.batch_report import HIDE, BatchReport, CountCheck, LimitRow, ListedMessage
from models.settings import TextSettings
from models.statistics.stability import GRID
from models.statistics.uncertainty import pick_dissimilar
from models.text.cleaning import clean_texts
from tasks.database.batches import BatchRow, read_rejection_reasons
from tasks.monitoring.batch_comparison import BatchComparison
from tasks.monitoring.batch_figures import ScoredMessage, TextFigures, read_ledger_counts
from tasks.monitoring.drift import FORMATS, AllowedRange, Drift, limited_figure
from tasks.monitoring.report_index import report_path, to_trend_point
from tasks.settings.loading import load
from tasks.settings.scoring import DriftSettings, ReportSettings

_LIMIT_TITLES = {
    "flagged_share": "Share flagged",
    "message_count": "Messages",
    "unknown_words": "Words not in the vocabulary",
    "psi_before": "PSI against the previous batch",
    "psi_validation": "PSI against labelled messages",
}


def build_batch_report(engine: Engine, batch: BatchRow, comparison: BatchComparison) -> BatchReport:
    """Builds the content of the HTML report."""
    texts = comparison.texts
    counts = {"read": batch.messages_read, "scored": batch.scored, "rejected": batch.rejected, "flagged": batch.flagged}
    rejected = {reason.name: reason.rows for reason in read_rejection_reasons(engine, batch.batch_id)}
    return BatchReport(
        batch_id=batch.batch_id,
        date=batch.batch_date,
        model=describe_model(batch),
        threshold=batch.threshold,
        counts={name: number or 0 for name, number in counts.items()},
        count_checks=check_counts(engine, batch, comparison, rejected),
        rejected=rejected,
        seconds=seconds_by_part(batch),
        points=[to_trend_point(figures) for figures in (*reversed(comparison.earlier), comparison.figures)],
        limits=limits_by_figure(comparison.limits),
        limit_rows=build_limit_rows(comparison),
        crossings=[crossing.said for crossing in comparison.crossed],
        acceptance=describe_acceptance(comparison.stored),
        comparison=describe_comparison(comparison),
        scores=comparison.scores.counts,
        validation=comparison.validation,
        before=comparison.counts_before,
        psi_validation=comparison.psi[0],
        psi_before=comparison.psi[1],
        text_statistics=texts if isinstance(texts, str) else texts.statistics,
        sample_description="" if isinstance(texts, str) else describe_sample(texts),
        no_vocabulary=comparison.no_vocabulary,
        suspicious=select_messages(comparison.scores.suspicious, texts),
        uncertain=select_messages(comparison.scores.uncertain, texts),
        facts=collect_facts(batch),
        previous_report=report_address(comparison.before),
        provisional=batch.provisional,
    )


def check_counts(
    engine: Engine, batch: BatchRow, comparison: BatchComparison, rejected: Mapping[str, int]
) -> list[CountCheck]:
    """Compares counts of the same rows from different sources."""
    ledger = read_ledger_counts(engine, batch.batch_id)
    read, scored, refused = batch.messages_read or 0, batch.scored or 0, batch.rejected or 0
    checks = [
        CountCheck("Messages read: scored and rejected", read, scored + refused),
        CountCheck(f"Messages read in {ledger['chunks']:,} committed chunks", read, ledger["messages_read"]),
        CountCheck("Rows with a score", scored, comparison.scores.rows),
        CountCheck("Rows of rejected messages", refused, sum(rejected.values())),
        CountCheck("Rows that are flagged", batch.flagged or 0, comparison.scores.flagged),
        CountCheck("Checksum of the rows", str(batch.checksum), comparison.scores.checksum),
    ]
    if isinstance(comparison.texts, str):
        return checks
    return [CountCheck("Messages in the snapshot", comparison.texts.rows, read), *checks]


def seconds_by_part(batch: BatchRow) -> dict[str, float]:
    """Returns the recorded seconds of a batch by part."""
    recorded = {
        name.removeprefix("seconds_"): value
        for name, value in dataclasses.asdict(batch).items()
        if name.startswith("seconds_")
    }
    return {name: seconds for name, seconds in recorded.items() if seconds is not None}


def limits_by_figure(limits: Mapping[str, AllowedRange]) -> dict[str, tuple[float | None, float | None]]:
    """Returns the lowest and the highest allowed value by the name of the figure in a trend chart."""
    names = {"message_count": "messages", "unknown_words": "unknown_share"}
    return {names.get(key, key): (limit.low, limit.high) for key, limit in limits.items()}


def build_limit_rows(comparison: BatchComparison) -> list[LimitRow]:
    """Returns one row for each figure that can have a limit."""
    rows, crossed = [], {crossing.limit for crossing in comparison.crossed}
    for key, title in _LIMIT_TITLES.items():
        show, value, limit = FORMATS[key], limited_figure(comparison.figures, key), comparison.limits.get(key)
        usual = "" if limit is None or limit.usual is None else show(limit.usual)
        low = "" if limit is None or limit.low is None else f"{show(limit.low)} to "
        allowed = "" if limit is None else low + ("up to " if not low else "") + show(limit.high)
        rows.append(LimitRow(title, "" if value is None else show(value), usual, allowed, key in crossed))
    return rows


def describe_comparison(comparison: BatchComparison) -> str:
    """Describes the batches that this one was compared with, in a sentence."""
    settings, count = load(DriftSettings), len(comparison.earlier)
    if count < settings.least_batches:
        return (
            f"{count} batches of earlier dates are published, {settings.least_batches} are needed: flagged share, "
            "number of messages and unknown words have no limits yet."
        )
    return (
        f"Compared with {count} batches, of {comparison.earlier[-1].batch_date} to {comparison.earlier[0].batch_date}."
    )


def describe_sample(texts: TextFigures) -> str:
    """Describes the messages that the text statistics were computed on."""
    count = f"{texts.statistics.messages:,} messages"
    return count if texts.step == 1 else f"{count}, one in {texts.step:,} of the {texts.rows:,}"


def select_messages(candidates: Sequence[ScoredMessage], texts: TextFigures | str) -> list[ListedMessage]:
    """Selects the messages of a list, without similar messages where their texts are available."""
    settings = load(ReportSettings)
    if settings.messages == HIDE:
        return []
    available = {} if isinstance(texts, str) else texts.texts
    with_text = [message for message in candidates if message.message_id in available]
    if with_text:
        cleaned = clean_texts([available[message.message_id] for message in with_text], load(TextSettings))
        selected = [with_text[index] for index in pick_dissimilar(cleaned, (), settings.listed)]
    else:
        selected = list(candidates[: settings.listed])
    return [
        ListedMessage(message.message_id, message.probability, message.flagged, available.get(message.message_id))
        for message in selected
    ]


def describe_model(batch: BatchRow) -> str:
    """Returns the model and version that scored a batch, and the checkpoint if a person chose one."""
    checkpoint = f", checkpoint {batch.chosen_checkpoint}" if batch.chosen_checkpoint else ""
    return f"{batch.model_name}, version {batch.model_version}{checkpoint}"


def collect_facts(batch: BatchRow) -> dict[str, dict[str, object]]:
    """Returns the tables of facts: what the batch was scored with, and the settings of limits and report."""
    drift, report = dataclasses.asdict(load(DriftSettings)), dataclasses.asdict(load(ReportSettings))
    settings = {f"[drift] {key}": value for key, value in drift.items()}
    settings |= {f"[report] {key}": value for key, value in report.items()}
    facts: dict[str, object] = {
        "model": batch.model_name,
        "version": batch.model_version,
        "checkpoint": batch.checkpoint,
        "threshold": batch.threshold,
        "devices": batch.devices,
        "messages per chunk": batch.chunk_size,
        "snapshot": batch.snapshot,
        "recipe": batch.recipe,
        "started": f"{batch.started_at:%Y-%m-%d %H:%M:%S} UTC",
        "published": f"{batch.published_at:%Y-%m-%d %H:%M:%S} UTC",
    }
    return {"Batch": facts, "Limits and report": settings}


def report_address(batch: BatchRow | None) -> str:
    """Returns the address of a batch's report relative to another report; empty if there is none."""
    if batch is None or not report_path(batch.batch_date, batch.batch_id).is_file():
        return ""
    return f"../{batch.batch_date}/batch-{batch.batch_id}.html"


def build_report_json(report: BatchReport, comparison: BatchComparison) -> dict[str, Any]:
    """Builds the report as JSON values for programs; it contains no message text."""
    keys = ("batch_id", "provisional", "model", "threshold", "counts", "rejected", "seconds")
    texts = comparison.texts
    return {
        **{key: getattr(report, key) for key in keys},
        "sampled": report.sample_description,
        "accepted": report.acceptance,
        "compared": report.comparison,
        "date": report.date.isoformat(),
        "held": [{**dataclasses.asdict(check), "agrees": check.agrees} for check in report.count_checks],
        "drift": {**dataclasses.asdict(comparison.figures), "batch_date": report.date.isoformat()},
        "flagged_share": comparison.figures.flagged_share,
        "crossed": [dataclasses.asdict(crossing) for crossing in comparison.crossed],
        "limits": {key: dataclasses.asdict(limit) for key, limit in comparison.limits.items()},
        "score_edges": GRID.tolist(),
        "score_counts": comparison.scores.counts.tolist(),
        "wording": texts if isinstance(texts, str) else dataclasses.asdict(texts.statistics),
    }


def describe_acceptance(drift: Drift | None) -> str:
    """Describes who accepted the drift of a batch, in a sentence; empty if nobody did."""
    if drift is None or drift.accepted_at is None:
        return ""
    return f"Accepted by {drift.accepted_by} on {drift.accepted_at:%Y-%m-%d at %H:%M} UTC."
