"""Fuzzes all readers of files: `make fuzz` guided by coverage, `tests/test_fuzz.py` with a few inputs.

Each target is one reader. Its `feed` may raise only `SpamscoreError`, the errors that the project raises on purpose.
`python tests/drivers/fuzz.py [--seconds 60] [TARGET …]` runs each target in its own process under atheris. Inputs that
reach new code are stored in `.fuzz/<target>/corpus`, inputs that fail in `.fuzz/<target>`.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import functools
import io
import itertools
import json
import logging
import os
import random
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from models.errors import SpamscoreError

# Limits for one input of a few kilobytes: a reader that needs more counts as hanging or as using too much memory.
SECONDS, MEGABYTES, BYTES = 20, 4096, 65_536


@dataclass(frozen=True)
class Target:
    """A reader to fuzz.

    Attributes:
        name: name on the command line.
        feed: passes the bytes to the reader; raises what the reader raises.
        seeds: returns the first inputs: small, valid files.
    """

    name: str
    feed: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]


def feed(target: Target, content: bytes) -> None:
    """Passes bytes to a reader; an error that the project raises on purpose is not a finding."""
    with contextlib.suppress(SpamscoreError):
        target.feed(content)


@functools.cache
def scratch() -> Path:
    """Returns a temporary folder of this process, deleted when the process ends."""
    folder = tempfile.mkdtemp(prefix="spamscore-fuzz-")
    atexit.register(shutil.rmtree, folder)
    return Path(folder)


def write_file(name: str, content: bytes) -> Path:
    """Writes a file into the scratch folder."""
    path = scratch() / name
    path.write_bytes(content)
    return path


# Messages: untrusted input


COLUMNS = {"text_column": "text", "id_column": "message_id", "date_column": "day"}
LABELLED = {"text_column": "text", "label_column": "label"}
DIALECTS = (("auto", "comma", "tab", ";"), ("auto", "none", '"', "'"), ("none", "\\", "^"), ("", r"\N", "NULL,N"))
ATTRIBUTES = {"text_column": "body", "id_column": "address", "date_column": "date"}


def feed_messages(layout: str, content: bytes) -> None:
    from tasks.sources.file_source import Dialect, FileSource
    from tasks.sources.files import read_file

    columns, section = {"sms": (LABELLED, "corpus"), "sms_backup": (ATTRIBUTES, "messages")}.get(
        layout, (COLUMNS, "messages")
    )
    choice = random.Random(content)  # the same bytes are read in the same dialect again
    dialects = [Dialect(), Dialect(*map(choice.choice, DIALECTS))] if layout in ("csv", "tsv") else [Dialect()]
    for encoding, dialect in itertools.product(("utf-8",) if layout == "parquet" else ("utf-8", "utf-16"), dialects):
        path = write_file(f"messages.{layout}", content)
        for number, row in enumerate(read_file(FileSource(section, path, columns, layout, encoding, dialect)), 1):
            assert row.row_number == number
            assert set(row.values) == set(columns.values())
            for value in row.values.values():
                # Parquet and the databases store UTF-8, so every value must be encodable.
                assert value is None or value.encode() is not None


def make_delimited_files(delimiter: str) -> list[bytes]:
    text = 'message_id,day,text\n1,2026-01-31,Win now\n2,2026-01-31,"a, ""b""\nc"\n3,,é\n4\n'.replace(",", delimiter)
    return [text.encode(), text.encode("utf-16"), b"\xef\xbb\xbf" + text.encode(), b'message_id,day,text\n1,2,"open\n']


def json_lines() -> list[bytes]:
    rows: list[Any] = [
        {"message_id": 1, "day": "2026-01-31", "text": "Win now"},
        {"message_id": 12345678901234567890, "day": None, "text": "\ud800"},
        {"message_id": 1.50, "day": True, "text": ["no text"]},
        [1],
    ]
    text = "\n".join(map(json.dumps, rows))
    return [text.encode(), text.encode("utf-16"), b'{"text": NaN}\n{"text": "a', b"[" * 300]


def json_arrays() -> list[bytes]:
    lines = json_lines()[0].decode()
    array = f"[{lines}]".replace("\n", ",\n ")
    return [
        array.encode(),
        array.encode("utf-16"),
        b'\xef\xbb\xbf [{"text": NaN}, "a"] ',
        b"[" * 300,
        b"[]",
        b'{"a": [\n{}]}',
    ]


def feed_json(content: bytes) -> None:
    """Reads the bytes as an array and as either layout, as the content decides."""
    from tasks.sources.file_source import FileSource
    from tasks.sources.files import read_file

    feed_messages("json", content)
    path = write_file("messages.json", content)
    assert all(set(row.values) == set(COLUMNS.values()) for row in read_file(FileSource("messages", path, COLUMNS)))


def sms_backups() -> list[bytes]:
    text = (
        "<?xml version='1.0' encoding='UTF-8'?>\n<!-- app --><smses count=\"2\">\n"
        '<sms address="+1" date="1769817600000" body="a&#10;&#55357;&#56832;&#0;&amp;"/>\n'
        '<mms date="1"><parts><part ct="text/plain" text="a"/><part ct="image/png" data="AA"/></parts></mms></smses>'
    )
    return [text.encode(), text.encode("utf-16"), b'<!DOCTYPE a [<!ENTITY b "c">]><smses><sms body="&b;"/></smses>']


def compressed() -> list[bytes]:
    from file_formats import COMPRESSIONS

    content = make_delimited_files(",")[0]
    return [compress(content) * 2 for compress in COMPRESSIONS.values()] + [
        COMPRESSIONS["gzip"](content.replace(b"W", b"\0"))
    ]


def parquet() -> list[bytes]:
    import pyarrow as pa

    days = [date(2026, 1, 31), None, date(1, 1, 1)]
    tables = [
        pa.table({"message_id": [1, 2, None], "text": ["a", None, "é" * 50], "day": days}),
        pa.table(
            {"message_id": pa.array(["a", "b", "a"]).dictionary_encode(), "text": [b"\xff", b"", b"a"], "day": days}
        ),
    ]
    return [_parquet_bytes(table, compression) for table in tables for compression in ("none", "snappy", "zstd")]


def _parquet_bytes(table: Any, compression: str) -> bytes:
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression=compression)
    return buffer.getvalue()


def feed_labels(content: bytes) -> None:
    from pipeline.answers.labelling import read_labels

    for message_id, label in read_labels(content, "labels"):
        assert isinstance(message_id, str)
        assert label in ("spam", "ham", "none", "")


def labels() -> list[bytes]:
    table = 'message_id,label,text\nm-1,spam,"a, ""b""\nc"\nm-2,,x\n'
    return [
        table.encode(), b"\xef\xbb\xbf" + table.replace(",", ";").encode(), b"m-1\tspam\r\nm-2\t none \t0.5\n",
        b'{"message_id": "m-1", "label": "ham"}\n{"message_id": 2, "label": null}\n', b'message_id,"label\n',
    ]  # fmt: skip


def feed_download(content: bytes) -> None:
    from tasks.sources.download import extract_member

    path = scratch() / "unpacked"
    extract_member(write_file("archive.zip", content), path, "0" * 64, "https://example.org/archive.zip")


def archives() -> list[bytes]:
    archives = []
    for name, compression in (("SMSSpamCollection", zipfile.ZIP_DEFLATED), ("../SMSSpamCollection", zipfile.ZIP_STORED),
                      ("a/SMSSpamCollection", zipfile.ZIP_BZIP2), ("SMSSpamCollection", zipfile.ZIP_LZMA)):  # fmt: skip
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", compression) as file:
            file.writestr(name, "ham\tHello\nspam\tWin\n" * 3)
            file.writestr("readme", "about")
        archives.append(buffer.getvalue())
    return archives


def feed_cleaning(content: bytes) -> None:
    import tensorflow as tf

    for cleaner in cleaners():
        for text in cleaner(tf.constant([content])).numpy():
            cleaned = text.decode("utf-8")
            assert cleaned == cleaned.strip(" ")
            assert "  " not in cleaned


@functools.cache
def cleaners() -> list[Any]:
    import tensorflow as tf

    from models.settings import TextSettings
    from models.text.cleaning import TextCleaner

    signature = [tf.TensorSpec([None], tf.string)]
    return [tf.function(TextCleaner(TextSettings(cleaning=cleaning)), input_signature=signature)
            for cleaning in ("signal", "letters")]  # fmt: skip


def messages() -> list[bytes]:
    texts = [
        "WIN £1000 now!!! www.prize.com",
        "a@b.example &amp;lt; &#x27;&#65;&hearts; 12:30",
        "Ｆ𝐑ΕΕ\u200b\ufeff",
        "😀 १२३",
    ]
    return [*(text.encode() for text in texts), b"\xff\xfe\xed\xa0\x80", b"&#99999999999999;&#xFFFFFFFF;"]


# Artifacts of an earlier run


def feed_vocabulary(content: bytes) -> None:
    from models.text.vocabulary import load_vocabulary, save_vocabulary

    vocabulary = load_vocabulary(write_file("vocabulary.json", content))
    save_vocabulary(vocabulary, scratch() / "again.json")
    assert load_vocabulary(scratch() / "again.json") == vocabulary


def vocabularies() -> list[bytes]:
    from models.settings import TextSettings, VocabularySettings
    from models.text.vocabulary import build_vocabulary, save_vocabulary

    path = scratch() / "vocabulary.json"
    save_vocabulary(build_vocabulary(["win é now", "win now"], VocabularySettings(min_count=1), TextSettings()), path)
    return [path.read_bytes(), b'{"format_version": 1, "tokens": [[0, "a", 1e400]], "text": {}}', b"[" * 100_000]


def feed_manifests(content: bytes) -> None:
    """Puts the bytes in place of each small JSON file that is read back."""
    from models.trained_model.loading import load_trained_model
    from pipeline.answers.versions import exported_versions
    from tasks.artifacts.exports import exports_folder, find_version, version_in_service

    os.chdir(scratch())
    folder = exports_folder() / "1"
    folder.mkdir(parents=True, exist_ok=True)
    valid = b'{"fingerprint": "1", "training": "2", "evaluation": "3"}'
    for path, read in (
        (exports_folder() / "models.config", version_in_service),
        (folder / "manifest.json", lambda: find_version("2")),
        (folder / "manifest.json", exported_versions),
        (Path("model.json"), lambda: load_trained_model(Path())),
    ):
        (folder / "manifest.json").write_bytes(valid)
        path.write_bytes(content)
        with contextlib.suppress(SpamscoreError):
            read()
        path.unlink()


def manifests() -> list[bytes]:
    contents: list[Any] = [
        {"version": 1, "newest": 1},
        {"version": "one", "newest": 1},
        {"fingerprint": "2", "exported_at": "2026-01-31T00:00:00+00:00", "evaluation": "3", "training": "4"},
        {"network": {"cell": "gru"}, "vocabulary_sha256": "", "checkpoint": "ckpt-1", "weights_sha256": ""},
        [1],
    ]
    return [json.dumps(content).encode() for content in contents]


def feed_weights(content: bytes) -> None:
    from models.network.weights import read_weights

    read_weights(network(), write_file("weights.npz", content))


@functools.cache
def network() -> Any:
    from models.network.network import build_network
    from models.settings import NetworkSettings

    architecture = NetworkSettings(
        cell="simple", bidirectional=False, embedding_size=2, rnn_units=2, ngram_buckets=4, ngram_vectors=4
    )
    return build_network(architecture, 4, 1)


def weights() -> list[bytes]:
    import numpy as np

    from models.network.weights import write_weights

    path = scratch() / "weights.npz"
    write_weights(network(), path, ("<padding>", "<unknown>", "a", "b"), calibrated=True)
    pickled = io.BytesIO()
    np.savez(pickled, **{"logit/bias": np.array([{}], object)})
    return [path.read_bytes(), pickled.getvalue()]


def feed_checkpoint(content: bytes) -> None:
    """Puts the bytes in place of one file of a checkpoint; the first byte selects the file."""
    import tensorflow as tf

    from models.settings import TrainingSettings
    from models.training.checkpoints import open_checkpoint_manager, restore_latest_checkpoint

    folder = scratch() / "checkpoints"
    folder.mkdir(exist_ok=True)
    names = ("checkpoint", "ckpt-1.index", "ckpt-1.data-00000-of-00001")
    for name, valid in zip(names, checkpoint_files(), strict=True):
        (folder / name).write_bytes(valid)
    (folder / names[content[0] % 3 if content else 0]).write_bytes(content[1:])
    checkpoint = tf.train.Checkpoint(model=network())
    open_checkpoint_manager(checkpoint, folder, TrainingSettings())
    restore_latest_checkpoint(checkpoint, folder, partial=True)


@functools.cache
def checkpoint_files() -> tuple[bytes, ...]:
    import tensorflow as tf

    folder = scratch() / "checkpoints-made"
    tf.train.CheckpointManager(tf.train.Checkpoint(model=network()), str(folder), max_to_keep=1).save()
    return tuple(path.read_bytes() for path in (folder / "checkpoint", folder / "ckpt-1.index",
                                                folder / "ckpt-1.data-00000-of-00001"))  # fmt: skip


def checkpoints() -> list[bytes]:
    return [bytes([number]) + content for number, content in enumerate(checkpoint_files())]


def feed_snapshot(content: bytes) -> None:
    from tasks.sources.snapshots import count_snapshot_rows, read_snapshot

    path = write_file("messages.parquet", content)
    rows = count_snapshot_rows(path)
    assert sum(len(chunk) for chunk in read_snapshot(path, 2)) == rows


def snapshots() -> list[bytes]:
    from tasks.sources.snapshots import SnapshotRow, write_snapshot

    path = scratch() / "messages.parquet"
    write_snapshot([SnapshotRow(1, "a", "Win", None), SnapshotRow(2, None, None, "no text")] * 2, path)
    return [path.read_bytes()]


# Settings


def feed_settings(content: bytes) -> None:
    """Reads the bytes as luigi.cfg. Ignores errors of the parser: `pipeline` reports them when it imports Luigi."""
    import configparser
    import copy

    from luigi.configuration import LuigiConfigParser

    from tasks.scheduler.luigi_defaults import prepare_luigi
    from tasks.settings.checking import check_settings

    os.chdir(scratch())
    parser: Any = LuigiConfigParser.instance()
    before = copy.deepcopy(parser._sections)
    path = write_file("luigi.cfg", content)
    try:
        with contextlib.suppress(configparser.Error, UnicodeDecodeError):
            parser.read(path, encoding="utf-8")
            prepare_luigi()
            check_settings()
    finally:
        parser._sections = before
        path.unlink()


def settings_files() -> list[bytes]:
    return [
        b"[database]\nurl = postgresql://a:%40b@host/c\n[text]\nmax_tokens = 160\ncleaning = letters\n",
        b"[training]\nepochs = ${HOME}\n[messages]\nsource = file\npath = in/{date}.csv\nencoding = utf-16\n",
        b"[core]\nlog-level = DEBUG\n[split]\ntest_share = nan\n[nowhere]\nkey = 1\n",
    ]


def define(name: str, read: Callable[[bytes], None], seeds: Callable[[], list[bytes]]) -> tuple[str, Target]:
    return name, Target(name, read, seeds)


TARGETS = dict([
    define("csv", functools.partial(feed_messages, "csv"), lambda: make_delimited_files(",")),
    define("tsv", functools.partial(feed_messages, "tsv"), lambda: make_delimited_files("\t")),
    define("sms", functools.partial(feed_messages, "sms"), lambda: [b"ham\tHello\nspam\tWin\tit\n\nodd\n\xff\tx\r\n"]),
    define("jsonl", functools.partial(feed_messages, "jsonl"), json_lines),
    define("json", feed_json, json_arrays),
    define("sms_backup", functools.partial(feed_messages, "sms_backup"), sms_backups),
    define("compressed", functools.partial(feed_messages, "csv"), compressed),
    define("parquet", functools.partial(feed_messages, "parquet"), parquet),
    define("labels", feed_labels, labels),
    define("download", feed_download, archives),
    define("cleaning", feed_cleaning, messages),
    define("vocabulary", feed_vocabulary, vocabularies),
    define("manifests", feed_manifests, manifests),
    define("weights", feed_weights, weights),
    define("checkpoint", feed_checkpoint, checkpoints),
    define("snapshot", feed_snapshot, snapshots),
    define("settings", feed_settings, settings_files),
])  # fmt: skip


def fuzz(name: str, folder: Path, seconds: int) -> None:
    """Runs one target in this process until the time is over or an input fails; does not return."""
    import atheris

    target = TARGETS[name]
    logging.getLogger("spamscore").setLevel(logging.CRITICAL)  # it logs a warning for each damaged checkpoint
    with atheris.instrument_imports(include=["models", "tasks", "pipeline", "csv", "json", "zipfile", "numpy.lib"]):
        # The first reads import the modules of the reader inside this block, so that they are instrumented.
        seeds = target.seeds()
        for content in seeds:
            feed(target, content)
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(content)
    options = [
        f"-max_total_time={seconds}", f"-timeout={SECONDS}", f"-rss_limit_mb={MEGABYTES}", f"-max_len={BYTES}",
        f"-artifact_prefix={folder}/", "-print_final_stats=1", "-verbosity=0",
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(corpus)], functools.partial(feed, target), enable_python_coverage=True)
    atheris.Fuzz()


def main() -> int:
    """Runs the command line; returns 1 if an input failed."""
    parser = argparse.ArgumentParser(description="Fuzzes all readers of files, guided by coverage.")
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help=f"readers to fuzz: {', '.join(TARGETS)}; default: all"
    )
    parser.add_argument("--seconds", type=int, default=60, help="time for each target (60)")
    parser.add_argument(
        "--folder", type=Path, default=Path(".fuzz"), help="folder for inputs, used again by the next run (.fuzz)"
    )
    parser.add_argument("--here", action="store_true", help="fuzz the first target in this process")
    options = parser.parse_args()
    names = options.targets or list(TARGETS)
    if unknown := set(names) - set(TARGETS):
        parser.error(f"unknown target: {', '.join(sorted(unknown))}; expected: {', '.join(TARGETS)}")
    if options.here:
        fuzz(names[0], options.folder.resolve() / names[0], options.seconds)
    failed = [name for name in names if not run_target(name, options.folder, options.seconds)]
    print(f"findings in: {', '.join(failed)}; the inputs are in {options.folder}" if failed else "no findings")
    return 1 if failed else 0


def run_target(name: str, folder: Path, seconds: int) -> bool:
    """Runs a target in a new process and prints the result; returns whether no input failed."""
    command = [sys.executable, __file__, name, "--seconds", str(seconds), "--folder", str(folder), "--here"]
    # libFuzzer ends the process without Python's cleanup, so its scratch folder is created and removed here.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="spamscore-fuzz-", dir=memory if memory.is_dir() else None) as scratch:
        variables = {**os.environ, "TMPDIR": scratch, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
        done = subprocess.run(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output = done.stdout.decode(errors="replace")
    runs = [line.split()[-1] for line in output.splitlines() if "stat::number_of_executed_units" in line]
    print(f"{name}: {runs[-1] if runs else 'no'} executions, {'a finding' if done.returncode else 'no finding'}")
    if done.returncode:
        print(output[-4000:])
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
