"""The stage CleanText: cleans the labelled messages, refuses unfit rows with a reason, and splits the others."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luigi.util import requires

from models.errors import InputError
from models.settings import SplitSettings, TextSettings
from tasks.artifacts.links import link_to
from tasks.artifacts.locations import MESSAGES
from tasks.ingest_corpus import IngestCorpus, describe_source
from tasks.rejection_limit import Reason, format_reasons
from tasks.scheduler.failures import record_note
from tasks.scheduler.progress import report_progress
from tasks.settings.inputs import CorpusSettings
from tasks.settings.loading import load
from tasks.stage import FolderStage, prepare_tensorflow

if TYPE_CHECKING:
    import pandas as pd

    from models.training.corpus import PreparedCorpus

log = logging.getLogger("spamscore")
REFUSED, REPORT = "refused.parquet", "data_report.md"
NOTED_LABELS = 5  # unknown labels that a message names
REPORTED_LABELS = 50  # unknown labels that the report lists; a wrong label column may have millions


@requires(IngestCorpus)
class CleanText(FolderStage):
    """Cleans the labelled messages, removes duplicates, and splits them into training, validation and test."""

    folder = MESSAGES
    code_version = 4
    uses_tensorflow = True
    sections = (TextSettings, SplitSettings)

    def fingerprint_parts(self) -> dict[str, Any]:
        """Adds the names of the labels, because IngestCorpus keeps labels as they are in the source."""
        corpus = load(CorpusSettings)
        labels = ["\n".join(sorted(values)) for values in (corpus.spam_labels, corpus.ham_labels)]
        return {**super().fingerprint_parts(), "labels": labels}

    def build(self, folder: Path) -> dict[str, Any]:
        """Reads the corpus, cleans and splits it, writes a file for each part, the refused rows, and a report."""
        prepare_tensorflow()
        import pandas as pd

        from models.text.cleaning import clean_texts
        from models.training.corpus import Labels, prepare_corpus

        settings, text = load(CorpusSettings), load(TextSettings)
        rows = pd.read_parquet(self.input().file("corpus.parquet"))
        labels = Labels(settings.spam_labels, settings.ham_labels)
        with report_progress(self, "cleaning", interruptible=True) as progress:
            progress.link(link_to(self.output().path / REPORT))
            progress.update(0, 2, f"cleaning {len(rows):,} labelled messages")
            corpus = prepare_corpus(rows, labels, lambda texts: clean_texts(texts, text), load(SplitSettings))
            require_few_refused(corpus, len(rows), settings)
            require_both_labels(corpus, len(rows), settings)
            warn_of_unknown_labels(corpus, settings)
            warn_of_refused_feedback(corpus, rows)
            progress.update(1, 2, f"writing {len(corpus.kept):,} messages, {len(corpus.refused):,} refused")
            counts = write_corpus(corpus, folder, int(rows["feedback"].sum()))
            progress.conclude(f"{len(corpus.kept):,} of {len(rows):,} messages kept, {len(corpus.refused):,} refused")
        source = self.input().manifest()
        return {**counts, "corpus": {key: source[key] for key in ("source", "source_sha256", "rows", "feedback")}}


def require_few_refused(corpus: PreparedCorpus, rows: int, settings: CorpusSettings) -> None:
    """Checks the share of refused rows against its limit. Duplicates and overruled rows are not counted.

    Raises:
        InputError: the share is too large; lists the most frequent reasons, each with its count and its first row.
    """
    from models.training.corpus import DUPLICATE, OVERRULED

    limit = settings.max_refused_share
    refused = corpus.refused[~corpus.refused["reason"].isin([DUPLICATE, OVERRULED])]
    if len(refused) <= limit * rows and len(corpus.kept):
        return
    reasons = [
        Reason(str(reason), len(rows), rows["row_number"].iloc[0], rows["detail"].iloc[0] or None)
        for reason, rows in refused.groupby("reason", sort=False)
    ]
    raise InputError(
        f"{len(refused)} of {rows} labelled messages are refused, more than [corpus] max_refused_share = {limit:g} "
        f"allows: {format_reasons(reasons) or 'no message is left'}. {_describe_unknown_labels(corpus, settings)}"
        "Correct the file, the column, label and encoding settings of [corpus], or raise the limit."
    )


def require_both_labels(corpus: PreparedCorpus, rows: int, settings: CorpusSettings) -> None:
    """Checks that both spam and ham are left to train on.

    Raises:
        InputError: one of the labels is missing; lists the counts of kept and refused rows.
    """
    spam = int(corpus.kept["spam"].sum())
    if 0 < spam < len(corpus.kept):
        return
    refused = ", ".join(f"{count} {reason}" for reason, count in corpus.refused["reason"].value_counts().items())
    raise InputError(
        f"of {rows} labelled messages {spam} spam ([corpus] spam_label = {settings.spam_label}) and "
        f"{len(corpus.kept) - spam} ham (ham_label = {settings.ham_label}) are left, refused: {refused or 'none'}; "
        f"both are needed. {_describe_unknown_labels(corpus, settings)}"
        "Provide messages of both labels, or correct the label settings of [corpus]."
    )


def warn_of_unknown_labels(corpus: PreparedCorpus, settings: CorpusSettings) -> None:
    """Warns of rows whose label is neither spam nor ham, in the log and on the last lines of the run."""
    from models.training.corpus import count_unknown_labels

    counts = count_unknown_labels(corpus)
    if not counts:
        return
    example = next((label for label, _ in counts.most_common() if _fits_in_setting(label)), None)
    warning = (
        f"{counts.total():,} rows of {describe_source(settings)} have a label that is neither spam nor ham, and are "
        f"refused: {_list_labels(counts)}. To use them, "
        + ("add the labels to [corpus] spam_label or ham_label" if any(counts) else "label them")
        + (f", for example spam_label = {settings.spam_label}, {example}" if example else "")
    )
    _warn(warning)


def warn_of_refused_feedback(corpus: PreparedCorpus, rows: pd.DataFrame) -> None:
    """Warns of messages that people labelled and that are not used, except copies of others."""
    from models.training.corpus import DUPLICATE

    feedback = set(rows.loc[rows["feedback"], "row_number"])
    refused = corpus.refused[corpus.refused["row_number"].isin(feedback) & (corpus.refused["reason"] != DUPLICATE)]
    if not refused.empty:
        reasons = ", ".join(f"{count} {reason}" for reason, count in refused["reason"].value_counts().items())
        _warn(
            f"{len(refused)} of {len(feedback)} messages that people labelled are refused: {reasons}; first in row "
            f"{refused['row_number'].iloc[0]} of the corpus. To correct or remove a label: spamscore label"
        )


def _warn(warning: str) -> None:
    """Writes a warning to the log and to the last lines of the run."""
    log.warning("%s", warning)
    record_note(warning)


def _describe_unknown_labels(corpus: PreparedCorpus, settings: CorpusSettings) -> str:
    """Returns a sentence that lists the unknown labels, with a space after it; empty if there is none."""
    from models.training.corpus import count_unknown_labels

    counts = count_unknown_labels(corpus)
    column = f"[corpus] label_column = {settings.label_column}"
    return f"Values of {column} that spam_label and ham_label do not have: {_list_labels(counts)}. " if counts else ""


def _list_labels(counts: Counter[str]) -> str:
    """Lists the most frequent labels with their number of rows."""
    from models.training.corpus import describe_label

    shown = counts.most_common(NOTED_LABELS)
    parts = [f"{rows:,} {describe_label(label) if label else 'missing'}" for label, rows in shown]
    if len(counts) > len(shown):
        others = counts.total() - sum(rows for _, rows in shown)
        parts.append(f"{others:,} with {len(counts) - len(shown):,} other values")
    return ", ".join(parts)


def _fits_in_setting(label: str) -> bool:
    """Returns whether a label can be written in luigi.cfg as it is."""
    return 0 < len(label) <= 40 and label.isprintable() and not set(label) & set(',"%')


def write_corpus(corpus: PreparedCorpus, folder: Path, feedback: int) -> dict[str, Any]:
    """Writes the parts, the refused rows and the report. Returns the counts for the manifest."""
    from models.training.corpus import PARTS

    counts: dict[str, Any] = {}
    for part in PARTS:
        messages = corpus.kept[corpus.kept["part"] == part].drop(columns="part")
        messages.to_parquet(folder / f"{part}.parquet", index=False)
        counts[part] = {"messages": len(messages), "spam": int(messages["spam"].sum())}
    corpus.refused.to_parquet(folder / REFUSED, index=False)
    counts["refused"] = {str(reason): int(rows) for reason, rows in corpus.refused["reason"].value_counts().items()}
    (folder / REPORT).write_text(render_data_report(corpus, feedback), encoding="utf-8")
    kept = ", ".join(f"{counts[part]['messages']} {part}" for part in PARTS)
    refused = ", ".join(f"{rows} {reason}" for reason, rows in counts["refused"].items())
    log.info("cleaned: %s; refused: %s", kept, refused or "none")
    return counts


def render_data_report(corpus: PreparedCorpus, feedback: int) -> str:
    """Renders a report on the labelled messages as Markdown: parts, labels, lengths, people's labels, refused rows.

    Args:
        corpus: the kept and the refused rows.
        feedback: number of rows that are messages labelled by people.
    """
    from models.training.corpus import OVERRULED, PARTS, count_unknown_labels

    kept, refused = corpus.kept, corpus.refused
    tokens = kept["cleaned"].map(lambda cleaned: len(cleaned.split()))
    parts = kept.groupby("part")["spam"].agg(["size", "sum"]).reindex(list(PARTS), fill_value=0)
    lines = ["# Labelled messages", "", "| part | messages | spam | share of spam |", "| --- | ---: | ---: | ---: |"]
    lines += [
        f"| {part} | {row['size']} | {row['sum']} | {row['sum'] / max(row['size'], 1):.1%} |"
        for part, row in parts.iterrows()
    ]
    quantiles = tokens.quantile([0.0, 0.5, 0.9, 1.0]).astype(int).tolist()
    lines += [
        "",
        "Tokens per message: minimum {}, median {}, 90th percentile {}, maximum {}.".format(*quantiles),
        "",
        *([_describe_feedback(feedback, int((refused["reason"] == OVERRULED).sum())), ""] if feedback else []),
        "| refused because | rows | first row |",
        "| --- | ---: | ---: |",
    ]
    lines += [
        f"| {reason} | {len(rows)} | {rows['row_number'].iloc[0]} |"
        for reason, rows in refused.groupby("reason", sort=True)
    ]
    lines += _list_unknown_labels(count_unknown_labels(corpus))
    return "\n".join(lines) + "\n"


def _list_unknown_labels(counts: Counter[str]) -> list[str]:
    """Returns the lines of a table of the labels that are neither spam nor ham; none if there are no such labels."""
    from models.training.corpus import describe_label

    if not counts:
        return []
    shown = counts.most_common(REPORTED_LABELS)
    lines = ["", "| label that is neither spam nor ham | rows |", "| --- | ---: |"]
    for label, rows in shown:
        cell = describe_label(label).replace("|", "\\|") if label else "missing"
        lines.append(f"| {cell} | {rows} |")
    if len(counts) > len(shown):
        others = counts.total() - sum(rows for _, rows in shown)
        lines.append(f"| {len(counts) - len(shown)} other values | {others} |")
    return lines


def _describe_feedback(feedback: int, overruled: int) -> str:
    """Describes how people's labels changed the corpus."""
    return (
        f"{feedback} rows are messages that people labelled (`spamscore label`), each with its latest label. These "
        f"labels take precedence over the source: {overruled} rows of the source with the same text, after cleaning, "
        "and the other label are refused as overruled. If people's labels differ for texts that are the same only "
        "after cleaning, all these rows are refused."
    )
