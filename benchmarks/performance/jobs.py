"""The jobs of the benchmark. `python jobs.py NAME FOLDER ARGUMENTS` runs one job and prints its figures as JSON.

Each job runs in its own process. The folder contains a model that the pipeline trained on the corpus, and snapshots of
distinct messages.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tasks.settings.scoring import ScoringSettings

Figures = dict[str, Any]
CHUNK = ScoringSettings().chunk_size
CORES = len(os.sched_getaffinity(0))


def peak() -> float:
    """Returns the peak memory of the process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def training(folder: Path) -> Path:
    """Returns the folder of the trained model."""
    return next(path.parent for path in folder.glob("artifacts/training/*/model.json"))


def snapshot(folder: Path, name: str) -> Path:
    """Returns the file of a snapshot by name."""
    return folder / "snapshots" / name / "messages.parquet"


def load_warm_scorer(folder: Path) -> Any:
    """Loads the scorer of a batch and warms it up, so that everything a batch needs is loaded."""
    from models.network.devices import start_tensorflow
    from models.settings import DeviceSettings

    start_tensorflow(DeviceSettings())
    from tasks.scoring.scorer import load_scorer

    scorer, _ = load_scorer(training(folder))
    scorer.warm_up()
    return scorer


def load_model(folder: Path) -> Any:
    """Loads the trained model with its Keras network."""
    from models.network.devices import start_tensorflow
    from models.settings import DeviceSettings

    start_tensorflow(DeviceSettings())
    from models.trained_model.loading import load_trained_model

    return load_trained_model(training(folder))


def open_empty_database(folder: Path, url: str) -> Any:
    """Opens an empty database: a SQLite file in the folder, or the database at the address, which is emptied."""
    import sqlalchemy as sa

    from tasks.database.connection import connect
    from tasks.database.schema import open_database
    from tasks.settings.storage import DatabaseSettings

    if url == "sqlite":
        for path in folder.glob("bench.db*"):
            path.unlink()
        url = f"sqlite:///{folder}/bench.db"
    settings = DatabaseSettings(url=url)
    if not url.startswith("sqlite"):
        engine = connect(settings)
        with engine.begin() as connection:
            connection.execute(sa.text("DROP SCHEMA IF EXISTS public CASCADE"))
            connection.execute(sa.text("CREATE SCHEMA public"))
    return open_database(settings)


def plan_batch(date: datetime.date) -> Any:
    """Returns the plan of a batch for the benchmark."""
    from tasks.database.ledger import BatchPlan

    return BatchPlan(date, os.urandom(4).hex(), "spam_ham", 1, "bench", "bench", 0.5, "cpu:0", CHUNK)


class LoadedEngine:
    """The local engine, with a scorer that is loaded already."""

    devices, checkpoint = "cpu:0", "bench"

    def __init__(self, scorer: Any) -> None:
        self._scorer = scorer

    def score_chunks(self, database: Any, work: Any, seconds: Any) -> Any:
        """Scores and commits chunks with all cores."""
        from tasks.scoring.local import Concurrency, score_and_commit

        return score_and_commit(database, self._scorer, work, Concurrency(CORES, 2), seconds)


def batch(folder: Path, name: str, url: str) -> Figures:
    """Scores a snapshot and publishes the rows."""
    scorer = load_warm_scorer(folder)
    from tasks.scoring.batch import score_snapshot

    engine, before = open_empty_database(folder, url), peak()
    started, processor = time.monotonic(), time.process_time()
    row = score_snapshot(
        engine, plan_batch(datetime.date(2026, 1, 31)), snapshot(folder, name).parent, LoadedEngine(scorer),
        lambda *_: None, started, lambda _: None, lambda: None,
    )  # fmt: skip
    seconds = time.monotonic() - started
    stages = {name: getattr(row, f"seconds_{name}") for name in ("read", "text", "network", "write", "wait")}
    return {
        "messages": row.messages_read, "seconds": seconds, "processor": time.process_time() - processor,
        "memory": peak() - before, "peak": peak(), **stages,
    }  # fmt: skip


def network(folder: Path, name: str) -> Figures:
    """Runs only the network, on precomputed token ids, with all cores."""
    scorer = load_warm_scorer(folder)
    from tasks.sources.snapshots import read_snapshot

    chunks = [scorer.encode(chunk.texts) for chunk in read_snapshot(snapshot(folder, name), CHUNK)]
    scorer.logits(chunks[0])
    with ThreadPoolExecutor(CORES) as pool:
        started, processor = time.monotonic(), time.process_time()
        list(pool.map(scorer.logits, chunks))
        seconds = time.monotonic() - started
    messages = sum(map(len, chunks))
    return {"messages": messages, "seconds": seconds, "processor": time.process_time() - processor}


def keras(folder: Path, name: str) -> Figures:
    """Runs the Keras model on precomputed token ids, grouped by length, as on any device."""
    trained = load_model(folder)
    from models.inference.scorer import network_logits
    from models.network.network import ngram_vectors
    from models.text.encoder import TextEncoder, encode_messages
    from tasks.sources.snapshots import read_snapshot

    encoder = TextEncoder(trained.vocabulary, ngram_vectors(trained.network))
    encoded = encode_messages(encoder, next(read_snapshot(snapshot(folder, name), 20_000)).texts.to_pylist())
    network_logits(trained.network, encoded)
    started = time.monotonic()
    network_logits(trained.network, encoded)
    return {"messages": len(encoded), "seconds": time.monotonic() - started}


def script(folder: Path, name: str, rows: str) -> Figures:
    """Runs a typical script: pandas, `model.predict` on messages padded to the longest, `to_sql`."""
    import pandas as pd
    import sqlalchemy as sa

    trained = load_model(folder)
    import keras as k
    import numpy as np

    from models.network.network import ngram_vectors
    from models.statistics.calibration import to_probabilities
    from models.text.encoder import TextEncoder, encode_messages

    encoder = TextEncoder(trained.vocabulary, ngram_vectors(trained.network))
    encode_messages(encoder, ["hello"])
    for path in folder.glob("script.db*"):
        path.unlink()
    engine = sa.create_engine(f"sqlite:///{folder}/script.db")

    class Padded(k.utils.PyDataset):  # type: ignore[misc]
        """All messages in batches, padded to the longest of all messages."""

        def __init__(self, messages: Any, size: int) -> None:
            super().__init__()
            self.messages, self.size, self.width = messages, size, int(messages.lengths.max())

        def __len__(self) -> int:
            return -(-len(self.messages) // self.size)

        def __getitem__(self, number: int) -> Any:
            indices = np.arange(number * self.size, min((number + 1) * self.size, len(self.messages)))
            return (self.messages.batch(indices, self.width),)

    started = time.monotonic()
    frame = pd.read_parquet(snapshot(folder, name)).head(int(rows))
    encoded = encode_messages(encoder, frame["text"].tolist())
    frame["spam_probability"] = to_probabilities(trained.network.predict(Padded(encoded, 512), verbose=0))
    frame["flagged"] = frame["spam_probability"] >= 0.5
    frame[["message_id", "spam_probability", "flagged"]].to_sql("spam_scores", engine, index=False)
    return {"messages": len(frame), "seconds": time.monotonic() - started}


def write(folder: Path, way: str, url: str, rows: str) -> Figures:
    """Writes rows into the database in one of three ways.

    ``ours`` uses our writer. ``ledger`` commits chunk by chunk with checksums. Any other way inserts 5,000 rows per
    call, as `luigi.contrib.sqla.CopyToTable` does.
    """
    import numpy as np
    import sqlalchemy as sa

    from tasks.database.chunks import ScoredChunk
    from tasks.database.connection import write_transaction
    from tasks.database.ledger import commit_chunk, start_batch
    from tasks.database.tables import spam_scores
    from tasks.database.writer import insert_rows

    engine, count = open_empty_database(folder, url), int(rows)
    ids = [f"{number:032x}" for number in range(count)]
    scores = np.round(np.random.default_rng(0).random(count), 6)
    batch_id = start_batch(engine, plan_batch(datetime.date(2026, 1, 31))).batch_id
    started = time.monotonic()
    if way == "ours":
        columns = {"message_id": ids, "spam_probability": scores, "flagged": scores >= 0.5}
        with write_transaction(engine) as connection:
            insert_rows(connection, spam_scores, {"batch_id": [batch_id] * count, **columns})
    elif way == "ledger":
        for number, start in enumerate(range(0, count, CHUNK)):
            values = scores[start : start + CHUNK]
            row_numbers = np.arange(start + 1, start + 1 + len(values))
            message_ids = ids[start : start + CHUNK]
            chunk = ScoredChunk(number, start + 1, message_ids, row_numbers, values, values >= 0.5, [], 0.0)
            commit_chunk(engine, batch_id, chunk)
    else:
        insert = sa.insert(spam_scores).values({column: sa.bindparam(f"_{column.key}") for column in spam_scores.c})
        keys = [f"_{column.key}" for column in spam_scores.c]
        values = zip(itertools.repeat(batch_id), ids, scores.tolist(), (scores >= 0.5).tolist(), strict=False)
        with engine.begin() as connection:
            while rows_of_call := list(itertools.islice(values, 5000)):
                connection.execute(insert, [dict(zip(keys, row, strict=True)) for row in rows_of_call])
    return {"messages": count, "seconds": time.monotonic() - started}


def train(folder: Path, way: str, epochs: str) -> Figures:
    """Trains on the corpus, ours or `model.fit` padded to the longest; returns seconds per epoch without the first."""
    trained = load_model(folder)
    import dataclasses
    import tempfile

    import keras as k
    import numpy as np
    import pandas as pd

    from models.network.network import build_network, recurrent_part
    from models.settings import NetworkSettings, TrainingSettings
    from models.text.encoder import TextEncoder, encode_messages
    from models.training.job import LabelledMessages
    from models.training.loop import train as fit

    parts = {}
    for part in ("training", "validation"):
        frame = pd.read_parquet(next(folder.glob(f"artifacts/messages/*/{part}.parquet")))
        parts[part] = LabelledMessages(frame["text"].tolist(), frame["spam"].to_numpy(np.int32))
    architecture, settings = NetworkSettings(), TrainingSettings()
    if way == "ours":
        with tempfile.TemporaryDirectory() as scratch:
            settings = dataclasses.replace(settings, epochs=int(epochs))
            history = fit(*parts.values(), trained.vocabulary, architecture, settings, Path(scratch)).history
        return {"seconds": [epoch.seconds for epoch in history[1:]]}
    encoded = encode_messages(TextEncoder(trained.vocabulary, architecture.ngram_vectors), parts["training"].texts)
    labels, width = parts["training"].labels.astype(np.float32), int(encoded.lengths.max())
    order = np.random.default_rng(0).permutation(len(encoded))

    class Padded(k.utils.PyDataset):  # type: ignore[misc]
        """Batches of the training part, padded to the longest of all messages."""

        def __len__(self) -> int:
            return -(-len(order) // settings.batch_size)

        def __getitem__(self, number: int) -> Any:
            indices = order[number * settings.batch_size : (number + 1) * settings.batch_size]
            return encoded.batch(indices, width), labels[indices]

    network_ = recurrent_part(build_network(architecture, len(trained.vocabulary)))
    network_.compile(k.optimizers.Adam(settings.learning_rate), k.losses.BinaryCrossentropy(from_logits=True))
    seconds: list[float] = []
    clock = k.callbacks.LambdaCallback(
        on_epoch_begin=lambda *_: seconds.append(-time.monotonic()),
        on_epoch_end=lambda *_: seconds.append(seconds.pop() + time.monotonic()),
    )
    network_.fit(Padded(), epochs=int(epochs), verbose=0, callbacks=[clock])
    return {"seconds": seconds[1:]}


def served(folder: Path, name: str) -> Figures:
    """Runs the exported SavedModel, loaded as a model server loads it, with a thousand messages per call."""
    load_model(folder)
    from models.network.export import ServedModel
    from tasks.sources.snapshots import read_snapshot

    texts = next(read_snapshot(snapshot(folder, name), 10_000)).texts.to_pylist()
    with ServedModel(next(folder.glob("artifacts/exports/spam_ham/*/saved_model.pb")).parent) as loaded_model:
        loaded_model.predict_spam(texts[:1000])
        started = time.monotonic()
        for start in range(0, len(texts), 1000):
            loaded_model.predict_spam(texts[start : start + 1000])
        return {"messages": len(texts), "seconds": time.monotonic() - started}


JOBS: dict[str, Callable[..., Figures]] = {
    job.__name__: job for job in (batch, network, keras, script, write, train, served)
}

if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        figures = JOBS[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
    print(json.dumps(figures))
