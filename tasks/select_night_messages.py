"""The stage SelectNightMessages: labels messages of past nights with the opinions of the model that TrainModel trained.

That model, the teacher, knows labelled messages alone. Its opinions are computed here, never read from the published
scores: a self-trained model may have given those, and would then be trained on its own opinions.
"""

from __future__ import annotations

import datetime
import functools
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luigi.util import requires

from models.errors import ArtifactError
from models.settings import TrainingSettings
from tasks.artifacts.folders import FolderTarget
from tasks.artifacts.links import link_to
from tasks.artifacts.locations import NIGHT_MESSAGES, snapshot_folder
from tasks.clean_text import CleanText
from tasks.ingest_corpus import hash_labels
from tasks.scheduler.calendar import start_of_period
from tasks.scheduler.progress import ProgressReport, report_progress
from tasks.scoring.scorer import load_scorer
from tasks.settings.inputs import CorpusSettings
from tasks.settings.loading import load
from tasks.settings.scoring import ScoringSettings
from tasks.settings.storage import DatabaseSettings
from tasks.stage import FolderStage, prepare_tensorflow
from tasks.train_model import TrainModel

if TYPE_CHECKING:
    import pandas as pd

    from models.inference.scorer import Scorer
    from models.statistics.arrays import FloatArray
    from models.text.texts import Texts
    from models.training.self_training.sample import TextSample
    from models.training.self_training.selection import Selection
    from tasks.database.batches import BatchRow

log = logging.getLogger("spamscore")

SELECTED = "messages.parquet"
_DAY = datetime.timedelta(days=1)
_SETTINGS = ("messages", "days", "weight", "spam", "ham")  # of [corpus] self_training_…


@dataclass(frozen=True)
class Nights:
    """The batches of a window of dates.

    Attributes:
        first: first date of the window.
        last: its last date.
        used: published batches whose messages are read, the earliest date first.
        left_out: the others with the reason, except superseded ones: batch, date, reason.
    """

    first: datetime.date
    last: datetime.date
    used: list[BatchRow]
    left_out: list[dict[str, Any]]


@requires(CleanText, TrainModel)
class SelectNightMessages(FolderStage):
    """Labels messages of past nights that TrainModel's model is sure of, for [corpus] self_training = nights.

    The messages are those of published batches in a window of dates. The window stays the same for a whole period of
    [corpus] self_training_days, so that the model is trained again once in a period. Withdrawn, provisional and drifted
    batches are left out.
    """

    folder = NIGHT_MESSAGES
    uses_tensorflow = True

    @functools.cached_property
    def nights(self) -> Nights:
        """The batches of the window, read once per process.

        A batch that is published or withdrawn while a model trains must not invalidate that training. The next run
        reads it.
        """
        from tasks.database.batches import list_batches_between
        from tasks.database.connection import connect
        from tasks.monitoring.drift import read_drifts_between

        engine, (first, last) = connect(load(DatabaseSettings)), find_window(load(CorpusSettings).self_training_days)
        drifts = {drift.figures.batch_id: drift for drift in read_drifts_between(engine, first, last) if drift.is_open}
        reasons = {number: f"drifted: {drift.summary}" for number, drift in drifts.items()}
        used, left_out = [], []
        for batch in list_batches_between(engine, first, last):
            if reason := find_reason(batch, reasons.get(batch.batch_id)):
                left_out.append(describe_left_out(batch, reason))
            elif batch.state == "published":
                used.append(batch)
        return Nights(first, last, used, left_out)

    @functools.cached_property
    def labelled_by_people(self) -> list[tuple[str, str]]:
        """People's labels (label, text) from before the period, also where [corpus] feedback does not add them.

        Later labels must not train the model again within the period.
        """
        from tasks.database.connection import connect
        from tasks.database.labels import read_labels, resolve_labels

        start = start_of_period(load(CorpusSettings).self_training_days)
        before = datetime.datetime.combine(start, datetime.time(), datetime.UTC)
        labels = read_labels(connect(load(DatabaseSettings)))
        return resolve_labels(label for label in labels if label.labelled_at < before)

    def fingerprint_parts(self) -> dict[str, Any]:
        """Adds the settings, the window, and the snapshots of its batches, but not their scores, which are not used.

        Also adds people's labels: their texts are not taken, and the model is judged on them.
        """
        settings = load(CorpusSettings)
        return {
            **super().fingerprint_parts(),
            "self_training": {name: getattr(settings, f"self_training_{name}") for name in _SETTINGS},
            "window": [str(self.nights.first), str(self.nights.last)],
            "snapshots": [[str(batch.batch_date), batch.snapshot] for batch in self.nights.used],
            "labelled_by_people": hash_labels(self.labelled_by_people),
        }

    def finds_nothing(self) -> bool:
        """Returns whether the stage ran and no message was selected, as in the first nights."""
        target = self.output()
        return target.exists() and not target.manifest()["messages"]

    def build(self, folder: Path) -> dict[str, Any]:
        """Samples messages, labels them with the teacher, and writes those it is sure of."""
        prepare_tensorflow()
        settings = load(CorpusSettings)
        used: list[dict[str, Any]] = []
        with report_progress(self, "nights") as progress:
            progress.link(link_to(self.output().path))
            sample, left_out = self._sample(used, progress)
            progress.update(1, 2, f"labelling {len(sample.texts):,} messages")
            probabilities = self._score(sample.texts)
            selection = self._select(sample.texts, probabilities)
            write_selection(folder / SELECTED, sample, probabilities, selection, self.nights.used)
            labels = selection.labels
            counts = {"messages": len(labels), "spam": int(labels.sum()), "ham": int((labels == 0).sum())}
            message = (
                f"{counts['spam']:,} spam and {counts['ham']:,} ham messages of {len(used)} batches, "
                f"{self.nights.first} to {self.nights.last}"
            )
            progress.conclude(message)
        log.info("nights: %s; %d batches left out", message, len(left_out))
        return {
            **counts,
            "teacher": self._teacher().path.name,
            "window": {"first": str(self.nights.first), "last": str(self.nights.last)},
            "batches": used,
            "left_out": left_out,
            "thresholds": {"spam": settings.self_training_spam, "ham": settings.self_training_ham},
            "weight": selection.weight,
            "steps": selection.counts,
        }

    def _teacher(self) -> FolderTarget:
        return TrainModel().output()

    def _sample(self, used: list[dict[str, Any]], progress: ProgressReport) -> tuple[TextSample, list[dict[str, Any]]]:
        """Samples the messages of the batches, and adds those it read to `used`. Returns also what was left out."""
        from models.training.self_training.sample import TextSample

        sample = TextSample(load(CorpusSettings).self_training_messages, load(TrainingSettings).seed)
        left_out = list(self.nights.left_out)
        for number, batch in enumerate(self.nights.used):
            progress.update(number / len(self.nights.used), 2, f"reading the messages of {batch.batch_date}")
            try:
                read = 0
                for texts in read_texts(batch):
                    sample.add(texts, number)
                    read += len(texts)
            except ArtifactError as error:
                log.warning("nights: batch %d of %s is left out: %s", batch.batch_id, batch.batch_date, error)
                left_out.append(describe_left_out(batch, str(error)))
                continue
            used.append(
                {
                    "batch": batch.batch_id,
                    "date": str(batch.batch_date),
                    "snapshot": batch.snapshot,
                    "checksum": batch.checksum,
                    "messages": read,
                }
            )
        return sample, left_out

    def _score(self, texts: list[str]) -> FloatArray:
        """Returns the teacher's spam probabilities; NaN for a message that it cannot score."""
        import numpy as np

        if not texts:
            return np.zeros(0)
        from models.inference.scorer import score_isolating_failures

        scorer: Scorer = load_scorer(self._teacher().path)[0]
        return score_isolating_failures(scorer, texts).scores.probabilities

    def _select(self, texts: list[str], probabilities: FloatArray) -> Selection:
        from models.training.self_training.near_copies import collect_keys
        from models.training.self_training.selection import Limits, select_texts

        settings, (messages, _) = load(CorpusSettings), self.input()
        limits = Limits(
            settings.self_training_spam,
            settings.self_training_ham,
            settings.self_training_weight,
            int(messages.manifest()["training"]["messages"]),
        )
        by_people = [text for _, text in self.labelled_by_people]
        labelled = [*read_labelled_messages(messages)["text"].dropna(), *by_people] if texts else []
        return select_texts(texts, probabilities, collect_keys(labelled), limits)


def find_window(days: int) -> tuple[datetime.date, datetime.date]:
    """Returns the first and the last date of the window: so many days before the current period.

    The last date is two days before the period. The batch of the day before is published in the first night of the
    period, so the window would change while a model trains.
    """
    last = start_of_period(days) - 2 * _DAY
    return last - (days - 1) * _DAY, last


def find_reason(batch: BatchRow, drift: str | None) -> str | None:
    """Returns why the messages of a batch are not used; None if they are, or if another batch replaced it."""
    if batch.state == "superseded":
        return None
    if batch.state != "published":
        return str(batch.state)
    if batch.provisional:
        return "provisional: scored before its date was over"
    return drift


def describe_left_out(batch: BatchRow, reason: str) -> dict[str, Any]:
    """Returns the entry of the manifest for a batch whose messages are not used."""
    return {"batch": batch.batch_id, "date": str(batch.batch_date), "reason": reason}


def read_texts(batch: BatchRow) -> Iterator[Texts]:
    """Yields the messages of a batch that can be scored, chunk by chunk.

    Raises:
        ArtifactError: its snapshot is missing or damaged.
    """
    import numpy as np
    import pyarrow as pa

    from tasks.database.chunks import find_rejections
    from tasks.sources.snapshots import SNAPSHOT_FILE, read_snapshot, verify_snapshot

    folder = snapshot_folder(batch.batch_date, batch.snapshot)
    if not folder.is_dir():
        raise ArtifactError(f"its messages are not in {folder} any more: [artifacts] keep_days, or deleted by hand")
    verify_snapshot(folder)
    for chunk in read_snapshot(folder / SNAPSHOT_FILE, load(ScoringSettings).chunk_size):
        valid = np.setdiff1d(np.arange(len(chunk)), list(find_rejections(chunk)))
        yield chunk.texts.take(pa.array(valid))


def read_labelled_messages(messages: FolderTarget) -> pd.DataFrame:
    """Reads row_number and text of all labelled messages; of those that CleanText refused, a text may be missing."""
    import pandas as pd

    parts = [messages.file(f"{name}.parquet") for name in ("training", "validation", "test", "refused")]
    return pd.concat([pd.read_parquet(path, columns=["row_number", "text"]) for path in parts])


def write_selection(
    path: Path, sample: TextSample, probabilities: FloatArray, selection: Selection, batches: list[BatchRow]
) -> None:
    """Writes the selected messages: text, spam (bool), probability (float64) by the teacher, date."""
    import pandas as pd

    texts, groups = sample.texts, sample.groups
    columns = {
        "text": pd.Series([texts[row] for row in selection.rows], dtype=object),
        "spam": selection.labels == 1,
        "probability": probabilities[selection.rows],
        "date": pd.Series([batches[groups[row]].batch_date for row in selection.rows], dtype=object),
    }
    pd.DataFrame(columns).to_parquet(path, index=False)
