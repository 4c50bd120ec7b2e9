"""The model card that is published beside a SavedModel, in Markdown: the nine sections of Mitchell et al., "Model Cards
for Model Reporting", FAT* 2019, section 4.

It is made of figures, settings, counts and fingerprints. It takes no message, so none can appear in it. What holds for
every model of this project stands in `templates/model_card.md`; a figure's title and sentence come from `metrics`.
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
from models.reports.pages import fact, spell_out
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
) -> str:
    """Renders the card. The same input gives the same text.

    Args:
        model: the model's name, as it is served.
        version: the version it is published as.
        date: of the publication.
        metrics: the model's, on the test part.
        threshold: how the threshold was come by.
        verdict: what `gate.judge` said.
        fingerprints: of the artifacts it is made of, by stage.
        settings: by section of luigi.cfg, by key.
        training_data: counts, sources and hashes by name; never a message.
        evaluation_data: the same of the test part.
        in_service: metrics of the version it was compared with, on the same messages.
        network: what it came to in training, by name: parameters, epochs.
        compared: what `gate.compare` gave, as `metrics.json` has it.
        groups: what `factors.measure_groups` gave of one factor at a time, as `metrics.json` has it.
        groups_together: the same of several factors together.
        confidence: of the intervals in these.

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
        compared=[one for one in compared if one["new"]],
        groups=groups,
        groups_together=groups_together,
        confidence=f"{confidence * 100:g} %",
        meanings=metric_descriptions(),
        sentences=headline(metrics),
    )


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=False,  # noqa: S701 - Markdown, not HTML: `plain` escapes what comes from outside
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["plain"] = escape_markdown
    card = resources.files("models.reports").joinpath("templates", "model_card.md")
    return environment.from_string(card.read_text(encoding="utf-8"))


def escape_markdown(value: object) -> str:
    """A value as one line that Markdown and HTML show as it stands, in a table, a list or a heading."""
    line = " ".join(spell_out(fact(value)).split())
    return MARKDOWN.sub(r"\\\1", line)
