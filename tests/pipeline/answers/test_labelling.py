"""`spamscore uncertain`, `label` and `labels`, and the use of labels in the corpus."""

from __future__ import annotations

import csv
import datetime
import getpass
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from chain import SMALL, CommandResult, luigi, merge_settings, write_settings
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from published_batches import DATE, publish, write_snapshot
from sqlalchemy.engine import Engine

from models.errors import InputError
from models.training.corpus import PARTS
from pipeline.answers.labelling import read_labels
from pipeline.command_line import cli
from tasks.database.schema import open_database
from tasks.settings.storage import DatabaseSettings

TEXTS = {"m-1": "WIN a prize", "m-2": "lunch at one?", "m-3": "call me, mum", "=4": 'two\r\nlines, "quoted"\t☕'}


@pytest.fixture
def batch(folder: Path) -> Iterator[Engine]:
    """The database with a published batch of four messages; its snapshot has a fifth message without text."""
    engine = open_database(DatabaseSettings(url="sqlite:///spamscore.db"))
    publish(engine, dict.fromkeys(TEXTS, 0.5))
    rows = [(number, key, text) for number, (key, text) in enumerate(TEXTS.items(), 1)]
    write_snapshot(folder, [*rows, (9, "empty", " ")])
    yield engine
    engine.dispose()


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(cli, arguments, input=stdin, prog_name="spamscore")


def get_output(*arguments: str, stdin: str | None = None) -> str:
    done = run(*arguments, stdin=stdin)
    assert done.exit_code == 0, done.output
    return done.stdout_bytes.decode()  # exact: `stdout` normalizes line ends


def get_error(*arguments: str, stdin: str | None = None) -> str:
    done = run(*arguments, stdin=stdin)
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.output
    return str(done.stderr)


def get_labels() -> dict[str, str]:
    """Returns the label of each message, as `spamscore labels` prints it."""
    return {row["message_id"]: row["label"] for row in map(json.loads, get_output("labels", "--json").splitlines())}


def test_a_label_is_stored_with_text_person_and_time(batch: Engine) -> None:
    before = datetime.datetime.now(datetime.UTC)
    assert (
        get_output("label", "2026-01-31", "=4", "spam", "--who", "ann") == "1 labelled spam, 0 labelled ham, by ann\n"
    )
    (found,) = csv.DictReader(io.StringIO(get_output("labels", "--csv"), newline=""))
    assert (found["batch_date"], found["message_id"], found["label"]) == ("2026-01-31", "=4", "spam")
    assert (found["labelled_by"], found["disputed"], found["text"]) == ("ann", "false", TEXTS["=4"])
    assert before <= datetime.datetime.fromisoformat(found["labelled_at"]) <= datetime.datetime.now(datetime.UTC)


def test_the_person_defaults_to_the_system_user(batch: Engine) -> None:
    assert get_output("label", "2026-01-31", "m-1", "ham").endswith(f", by {getpass.getuser()}\n")


def test_a_later_label_replaces_an_earlier_one_and_none_removes_it(batch: Engine) -> None:
    for label in ("spam", "ham"):
        get_output("label", "2026-01-31", "m-1", label)
    assert get_labels() == {"m-1": "ham"}
    assert "1 label removed" in get_output("label", "2026-01-31", "m-1", "none")
    assert get_labels() == {}


@pytest.mark.parametrize("form", ["--plain", "--csv", "--json"])
def test_the_output_of_uncertain_can_be_filled_in_and_piped_to_label(batch: Engine, form: str) -> None:
    listed = get_output("uncertain", "2026-01-31", form)
    assert get_output("label", "2026-01-31", stdin=listed).startswith("0 labelled spam, 0 labelled ham, ")
    filled = listed.replace('"label": ""', '"label": "spam"') if form == "--json" else ""
    if form == "--csv":
        rows = list(csv.DictReader(io.StringIO(listed, newline="")))
        buffer = io.StringIO(newline="")
        writer = csv.DictWriter(buffer, rows[0])
        writer.writeheader()
        writer.writerows({**row, "label": "Spam "} for row in rows)
        filled = "\ufeff" + buffer.getvalue()
    if form == "--plain":
        filled = listed.replace("\t\t", "\tspam\t")
    get_output("label", "2026-01-31", stdin=filled)
    assert get_labels() == dict.fromkeys(TEXTS, "spam")
    done = run("uncertain", "2026-01-31")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "nothing to label" in done.stderr


@pytest.mark.parametrize(
    "content",
    [
        "m-1\tspam\nm-2\tham\n",
        "m-1\tSPAM\tanything\r\n\r\nm-2\t ham \r\n",
        "message_id,label\nm-1,spam\nm-2,ham\n",
        'text;label;message_id\n"a;\nb";spam;m-1\nc;ham;m-2\n',
        "label\tmessage_id\nspam\tm-1\nham\tm-2\n",
        '{"message_id": "m-1", "label": "spam"}\n\n{"label": "ham", "message_id": "m-2", "x": [1]}\n',
        "m-1\tspam\nm-2\tham\nm-1\tspam\nm-3\t\n",
    ],
)
def test_labels_are_read_in_several_formats(batch: Engine, folder: Path, content: str) -> None:
    (folder / "labels.txt").write_bytes(content.encode())
    get_output("label", "2026-01-31", "--file", "labels.txt")
    assert get_labels() == {"m-1": "spam", "m-2": "ham"}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("m-1\tspam\nm-2\teggs\n", "line 2: label: expected one of spam, ham, none, received 'eggs'"),
        ("m-1\tspam\nm-1\tham\n", "line 2: m-1 is ham here, but spam in line 1"),
        ("m-1 spam\n", "line 1: expected message_id TAB label"),
        ("message_id,label\nm-1,spam,more\n", "line 2: expected 2 fields, received 3"),
        ('{"message_id": "m-1"}\n', "line 1: expected a JSON object with message_id and label"),
        ('{"message_id": "m-1", "label": "spam"\n', "line 1: expected a JSON object with message_id and label"),
        ("m-1\tspam\nm-8\tham\nm-9\tham\n", "batch 1 of 2026-01-31 has no message with text and message_id m-8, m-9."),
        ("m-1\tspam\nempty\tham\n", "batch 1 of 2026-01-31 has no message with text and message_id empty."),
        (b"m-1\tsp\xff\n", "expected UTF-8, received other bytes at byte 7"),
    ],
)
def test_an_invalid_line_leaves_all_labels_unchanged(
    batch: Engine, folder: Path, content: str | bytes, expected: str
) -> None:
    (folder / "labels.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert expected in get_error("label", "2026-01-31", "--file", "labels.txt")
    assert get_labels() == {}


@given(content=st.binary(max_size=60) | st.text(st.sampled_from('m1\t,;"{}:\n\rspamhlebl_idg '), max_size=60))
def test_any_file_is_read_or_refused_with_its_name(content: str | bytes) -> None:
    try:
        labels = read_labels(content if isinstance(content, bytes) else content.encode(), "labels.csv")
    except InputError as error:
        assert str(error).startswith("labels.csv")  # noqa: PT017 - both outcomes are valid
    else:
        assert {label for _, label in labels} <= {"spam", "ham", "none", ""}


@pytest.mark.parametrize("arguments", [["m-1"], ["m-1", "eggs"], ["m-1", "spam", "--file", "-"]])
def test_an_incomplete_or_unknown_label_is_a_bad_argument(batch: Engine, arguments: list[str]) -> None:
    assert run("label", "2026-01-31", *arguments).exit_code == 2


@pytest.mark.parametrize("who", ["", " ", "a\x1b[2J", "x" * 256])
def test_the_name_of_a_person_is_checked(batch: Engine, who: str) -> None:
    assert "expected a name" in get_error("label", "2026-01-31", "m-1", "spam", "--who", who)


def test_without_the_snapshot_an_error_says_that_the_messages_are_missing(batch: Engine, folder: Path) -> None:
    for path in folder.rglob("*.parquet"):
        path.unlink()
    for command in (["label", "2026-01-31", "m-1", "spam"], ["uncertain", "2026-01-31"]):
        assert "artifacts/snapshots/2026-01-31/snap: the messages of batch 1 are missing" in get_error(*command)


def test_a_note_says_when_labels_are_not_used_for_training(batch: Engine, folder: Path) -> None:
    assert "[corpus] feedback = join" in run("label", "2026-01-31", "m-1", "spam").stderr


def test_labels_are_listed_latest_first_and_disputed_if_people_disagree(batch: Engine) -> None:
    for who, label in (("ann", "spam"), ("bob", "ham")):
        get_output("label", "2026-01-31", "m-1", label, "--who", who)
    get_output("label", "2026-01-31", "m-2", "ham", "--who", "ann")
    rows = [line.split("\t") for line in get_output("labels").splitlines()]
    assert [[row[1], row[2], row[3], row[5]] for row in rows] == [
        ["m-2", "ham", "ann", "false"], ["m-1", "ham", "bob", "true"], ["m-1", "spam", "ann", "true"],
    ]  # fmt: skip
    assert get_output("labels", "--who", "bob", "--date", "2026-01-31").split("\t")[5] == "true"
    assert len(get_output("labels", "--limit", "2", "--plain").splitlines()) == 2
    assert get_output("labels", "--date", "2026-02-01") == ""


def test_without_any_label_a_note_names_the_command_to_find_candidates(folder: Path) -> None:
    done = run("labels")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "spamscore uncertain" in done.stderr
    assert list(folder.iterdir()) == []


def test_uncertain_lists_messages_nearest_to_the_threshold_without_duplicates_or_labelled_ones(
    batch: Engine, folder: Path
) -> None:
    day = datetime.date(2026, 2, 1)
    copies = {f"copy-{number}": (0.5 + number / 1000, f"Dear {number}, you won £{number}00, call 0900{number}1234!")
              for number in range(1, 60)}  # fmt: skip
    distinct = {
        "sure-spam": (0.999, "Cheap pills here"), "sure-ham": (0.0001, "see you at home tonight"),
        "doubtful": (0.3, "is this offer still open?"), "labelled": (0.49, "are you free on sunday?"),
        "as labelled": (0.48, "WIN a   prize"),
    }  # fmt: skip
    messages = {**copies, **distinct}
    publish(batch, {key: score for key, (score, _) in messages.items()}, day)
    write_snapshot(folder, [(number, key, text) for number, (key, (_, text)) in enumerate(messages.items(), 1)], day)
    get_output("label", "2026-02-01", "labelled", "ham")
    get_output("label", "2026-01-31", "m-1", "spam")
    candidates = [
        json.loads(line) for line in get_output("uncertain", "2026-02-01", "--json", "--limit", "3").splitlines()
    ]
    assert [candidate["message_id"] for candidate in candidates] == ["copy-1", "doubtful", "sure-spam"]
    assert candidates[0] == {
        "message_id": "copy-1", "label": "", "spam_probability": 0.501, "flagged": True, "text": copies["copy-1"][1],
    }  # fmt: skip
    assert len(get_output("uncertain", "2026-02-01", "--limit", "1").splitlines()) == 1


def test_labels_work_on_every_database(
    folder: Path, engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPAMSCORE_DATABASE_URL", database_url)
    publish(engine, dict.fromkeys(TEXTS, 0.5))
    write_snapshot(folder, [(number, key, text) for number, (key, text) in enumerate(TEXTS.items(), 1)])
    listed = get_output("uncertain", str(DATE), "--json")
    get_output("label", str(DATE), stdin=listed.replace('"label": ""', '"label": "ham"'))
    assert get_labels() == dict.fromkeys(TEXTS, "ham")
    get_output("label", str(DATE), "m-1", "spam", "--who", "another, later")
    write_settings(folder, {"corpus": {"feedback": "join"}})
    done = luigi(folder, "CleanText", SPAMSCORE_DATABASE_URL=database_url)
    assert done.code == 0, done.output
    assert read_corpus_labels(folder) == {text: text == TEXTS["m-1"] for text in TEXTS.values()}


def read_corpus_labels(folder: Path) -> dict[str, bool]:
    """Returns, for each message of the batch that is in the newest parts of the corpus, whether it is spam."""
    newest = max((folder / "artifacts" / "messages").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    rows = [row for part in PARTS for row in pq.read_table(newest / f"{part}.parquet").to_pylist()]
    return {row["text"]: row["spam"] for row in rows if row["text"] in TEXTS.values()}


TRAINING_STAGES = {"IngestCorpus", "CleanText", "BuildVocabulary", "TrainModel"}


def test_new_labels_cause_a_training_with_the_latest_label_of_each_message(batch: Engine, folder: Path) -> None:
    def train() -> CommandResult:
        result = luigi(folder, "TrainModel")
        assert result.code == 0, result.output
        return result

    write_settings(folder, merge_settings(SMALL, {"corpus": {"feedback": "join"}, "training": {"epochs": "1"}}))
    get_output("label", "2026-01-31", "m-1", "spam", "--who", "ann")
    get_output("label", "2026-01-31", "m-3", "ham", "--who", "ann")
    assert train().ran == TRAINING_STAGES
    assert read_corpus_labels(folder) == {TEXTS["m-1"]: True, TEXTS["m-3"]: False}
    assert train().ran == set()
    get_output("label", "2026-01-31", "m-3", "ham", "--who", "bob")  # the label that the corpus already has
    assert train().ran == set()
    get_output("label", "2026-01-31", "m-1", "ham", "--who", "bob")
    get_output("label", "2026-01-31", "m-2", "ham", "--who", "bob")
    assert train().ran == TRAINING_STAGES
    assert read_corpus_labels(folder) == {TEXTS["m-1"]: False, TEXTS["m-2"]: False, TEXTS["m-3"]: False}
    for who, key in (("bob", "m-1"), ("bob", "m-2")):
        get_output("label", "2026-01-31", key, "none", "--who", who)
    assert train().ran == set()  # the labels are the same as at the start
