"""Renders the model card that is published with a SavedModel, in Markdown.

The card has the nine sections of Mitchell et al., "Model Cards for Model Reporting", FAT* 2019, section 4. Its input is
figures, settings, counts and fingerprints. The functions take no message, so no message can appear in the card. Text
that is the same for every model is in `templates/model_card.md`; titles and sentences of figures come from `metrics`.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import jinja2

from models.evaluation.gate import Verdict
from models.reports.evaluation_report import headline
from models.reports.pages import format_value, spell_out
from models.statistics.calibration import Threshold
from models.statistics.metrics import Metrics, metric_descriptions

MARKDOWN = re.compile(r"([\\`*_\[\]<>|&#~$])")


def render_model_card(
    *,
    model: str,
    version: int,
    date: datetime.date,
    metrics: Metrics,
    threshold: Threshold,
    verdict: Verdict,
    fingerprints: Mapping[str, str],
    settings: Mapping[str, Mapping[str, object]],
    training_data: Mapping[str, object],
    evaluation_data: Mapping[str, object],
    network: Mapping[str, object],
    in_service: Metrics | None = None,
    compared: Sequence[Mapping[str, Any]] = (),
    groups: Sequence[Mapping[str, Any]] = (),
    groups_together: Sequence[Mapping[str, Any]] = (),
    confidence: float = 0.95,
    start: Mapping[str, Any] | None = None,
    self_training: Mapping[str, Any] | None = None,
    self_trained_refused: str | None = None,
) -> str:
    """Renders the model card. The same input gives the same text.

    Args:
        model: name under which the model is served.
        version: number under which it is published.
        date: date of publication.
        metrics: metrics of the model on the test part.
        threshold: the threshold, and how it was chosen.
        verdict: result of `gate.judge`.
        fingerprints: fingerprints of the artifacts that the model is made of, by stage.
        settings: settings by section of luigi.cfg and by key.
        training_data: counts, sources and hashes by name; never a message.
        evaluation_data: the same values for the test part.
        network: results of the training by name: parameters, epochs.
        in_service: metrics of the version that the model was compared with, on the same messages.
        compared: result of `gate.compare`, as stored in `metrics.json`.
        groups: result of `factors.measure_groups` for single factors, as stored in `metrics.json`.
        groups_together: the same for combined factors.
        confidence: confidence of the intervals in these.
        start: what the training started from, as stored in `model.json`; None for random weights.
        self_training: facts on the messages that a teacher labelled, as stored in `model.json`; None without any.
        self_trained_refused: why a self-trained model was refused, in whose place this one is published.

    Returns:
        Markdown, encodable as UTF-8.
    """
    return _template().render(
        model=model,
        version=version,
        date=date.isoformat(),
        metrics=metrics,
        threshold=threshold,
        verdict=verdict,
        fingerprints=fingerprints,
        settings=settings,
        training_data=training_data,
        evaluation_data=evaluation_data,
        in_service=in_service,
        network=network,
        start=_describe_start(start) if start else None,
        self_training=_describe_self_training(self_training) if self_training else None,
        self_trained_refused=self_trained_refused,
        compared=[comparison for comparison in compared if comparison["new"]],
        groups=groups,
        groups_together=groups_together,
        confidence=f"{confidence * 100:g} %",
        meanings=metric_descriptions(),
        sentences=headline(metrics),
    )


def _describe_start(start: Mapping[str, Any]) -> dict[str, object]:
    """Returns the rows of the table about the start of the training."""
    split = {
        "same": "with the same [split] settings: the source has not seen the messages of the test part",
        "other": "with other [split] settings: the source may know messages of the validation and test part",
    }
    hashes = {key.replace("_sha256", ", SHA-256"): value for key, value in start.items() if key.endswith("_sha256")}
    return {
        "Source": start["source"],
        **hashes,
        "Messages of the source": split.get(
            start.get("split", ""), "unknown; they may be in the validation and test part"
        ),
        "Variables taken": ", ".join(start["taken"]),
        "Rows of embedding/words taken": f"{start['token_rows_taken']}; fresh: {start['token_rows_fresh']}",
        "Variables started fresh": ", ".join(start["fresh"]) or "none",
        "Variables fitted to the training part": ", ".join(start["fitted"]) or "none",
    }


def _describe_self_training(facts: Mapping[str, Any]) -> dict[str, object]:
    """Returns the rows of the table about the messages that a teacher labelled."""
    return {
        "Teacher, trained on labelled messages alone": facts["teacher"],
        "Selection of messages": facts["selection"],
        "Dates": f"{facts['window']['first']} to {facts['window']['last']}",
        "Batches": ", ".join(f"{entry['batch']} ({entry['date']})" for entry in facts["batches"]),
        "Batches left out": "; ".join(
            f"{entry['batch']} ({entry['date']}): {entry['reason']}" for entry in facts["left_out"]
        )
        or "none",
        "Taken as spam": f"probability of at least {facts['thresholds']['spam']}",
        "Taken as ham": f"probability of at most {facts['thresholds']['ham']}",
        "Weight of a message": f"{facts['weight']:.4g}; a labelled one has 1",
        **{
            f"Messages, {step.replace('_', ' ')}": ", ".join(f"{count} {name}" for name, count in counts.items())
            for step, counts in facts["steps"].items()
        },
    }


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=False,  # noqa: S701 - Markdown, not HTML: the filter `plain` escapes untrusted values
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["plain"] = escape_markdown
    card = resources.files("models.reports").joinpath("templates", "model_card.md")
    return environment.from_string(card.read_text(encoding="utf-8"))


def escape_markdown(value: object) -> str:
    """Escapes a value as one line that Markdown and HTML show literally, in a table, a list or a heading."""
    line = " ".join(spell_out(format_value(value)).split())
    return MARKDOWN.sub(r"\\\1", line)
