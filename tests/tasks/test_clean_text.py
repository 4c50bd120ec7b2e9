"""CleanText: labels that people gave are never refused without a warning."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from chain import luigi, write_settings

from tasks.database.labels import MessageLabel, change_labels
from tasks.database.schema import open_database
from tasks.settings.storage import DatabaseSettings

SOURCE = "kind,text\njunk,win a prize\nfine,see you at noon\nSMISHING,your parcel waits\n"
NOON = datetime(2026, 2, 1, 12, tzinfo=UTC)


def label_messages(folder: Path, *labels: tuple[str, str]) -> None:
    engine = open_database(DatabaseSettings(url=f"sqlite:///{folder}/spamscore.db"))
    given = [
        MessageLabel(date(2026, 1, 31), f"m{number}", "ann", label, NOON, text)
        for number, (label, text) in enumerate(labels)
    ]
    change_labels(engine, given)
    engine.dispose()


@pytest.mark.parametrize(
    ("labels", "warning"),
    [
        ([("spam", "a new prize"), ("ham", "lunch at two")], None),
        ([("spam", "win a prize"), ("spam", "Win a prize")], None),
        (
            [("spam", "caf\ufffd"), ("ham", "lunch at two")],
            "1 of 2 messages that people labelled are refused: 1 characters",
        ),
        (
            [("spam", "lunch at two"), ("ham", "LUNCH at two")],
            "2 of 2 messages that people labelled are refused: 2 both",
        ),
    ],
    ids=["used", "copies", "without a text", "contradictory"],
)
def test_refused_labels_of_people_are_a_warning_on_the_last_lines(
    tmp_path: Path, labels: list[tuple[str, str]], warning: str | None
) -> None:
    (tmp_path / "c.csv").write_text(SOURCE)
    label_messages(tmp_path, *labels)
    settings = {"source": "file", "path": "c.csv", "label_column": "kind", "feedback": "join", "max_refused_share": "1"}
    cleaning = {"text": {"cleaning": "letters"}}
    write_settings(tmp_path, {"corpus": {**settings, "spam_label": "junk, smishing", "ham_label": "fine"}, **cleaning})
    done = luigi(tmp_path, "CleanText")
    assert done.code == 0, done.output
    assert ("people labelled are refused" in done.output) == (warning is not None)
    if warning:
        assert done.last_line.startswith(f"spamscore: {warning}")
