"""The reports and the model card of a real run, with messages that try to break the pages."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from browser import measure_page
from chain import DATE, LUIGI, SMALL, CommandResult, environment, luigi, merge_settings, query, write_settings

from models.settings import SplitSettings
from models.statistics.metrics import metric_descriptions
from models.training.corpus import TEST, assign_part
from tasks.sources.samples import bundled_file

UNLIKE = "2026-02-01"
# Labelled spam but worded like ham, so that they are among the mistakes, which the report quotes.
HOSTILE = {
    "script": "ok see you at home tonight mum <script>document.title='taken'</script><img src=x onerror=alert(1)>",
    "end of the table": "ok love, see you at home later </td></tr></table><h1>taken</h1>",
    "override": "ok love \u202esee you at home tonight\u202c mum",
    "endless word": "ok " + "x" * 10_000,
    "emoji": "ok love see you at home 🎉👩‍👩‍👧‍👦🏳️‍🌈 mum",
    "template": "ok see you at home {{ 7 * 7 }} {% include '/etc/passwd' %} love",
}


@dataclass(frozen=True)
class EvaluationFiles:
    """The report and the metrics that an evaluation wrote."""

    page: str
    figures: dict[str, Any]


def put_into_test_part(text: str) -> str:
    """Returns the text with a number in front, so that its hash puts it into the test part."""
    return next(
        f"{number} {text}" for number in range(1000) if assign_part(f"{number} {text}", SplitSettings()) == TEST
    )


def read_evaluation(folder: Path) -> EvaluationFiles:
    newest = max((folder / "artifacts" / "evaluation").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    return EvaluationFiles(
        (newest / "report.html").read_text("utf-8"), json.loads((newest / "metrics.json").read_text("utf-8"))
    )


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, EvaluationFiles, EvaluationFiles]:
    """A folder with a model in service and a second one that was evaluated against it, and both evaluations."""
    folder = tmp_path_factory.mktemp("nights")
    with bundled_file("corpus.csv").open(encoding="utf-8", newline="") as source:
        rows = [(row["label"], row["text"]) for row in csv.DictReader(source)]
    with (folder / "corpus.csv").open("w", encoding="utf-8", newline="") as target:
        csv.writer(target).writerows(
            [("label", "text"), *rows, *(("spam", put_into_test_part(text)) for text in HOSTILE.values())]
        )
    settings = merge_settings(SMALL, {"corpus": {"source": "file", "path": "corpus.csv"}})
    write_settings(folder, settings)
    done = luigi(folder, "ReportBatch", "--date", DATE)
    assert done.code == 0, done.output
    first = read_evaluation(folder)
    write_settings(folder, merge_settings(settings, {"training": {"seed": "8"}}))
    done = luigi(folder, "EvaluateModel")
    assert done.code == 0, done.output
    return folder, first, read_evaluation(folder)


@pytest.fixture(scope="module")
def unlike(nights: tuple[Path, EvaluationFiles, EvaluationFiles]) -> tuple[Path, CommandResult]:
    """The folder after a night of only spam and hostile messages, which fails on drift; and the result of that run."""
    folder, _, _ = nights
    with (folder / "inbox.csv").open("w", encoding="utf-8", newline="") as target:
        rows = [(f"spam-{number}", f"WIN a FREE prize {number}! Text CLAIM now") for number in range(300)]
        csv.writer(target).writerows([("message_id", "text"), *rows, *HOSTILE.items()])
    fresh = {"messages": {"source": "file", "path": "inbox.csv"}, "drift": {"on_drift": "fail"}}
    settings = merge_settings(SMALL, {"corpus": {"source": "file", "path": "corpus.csv"}}, fresh)
    write_settings(folder, settings)
    done = luigi(folder, "ReportBatch", "--date", UNLIKE)
    return folder, done


def test_a_night_that_drifts_exits_with_50_and_its_scores_are_published(unlike: tuple[Path, CommandResult]) -> None:
    folder, done = unlike
    assert done.code == 50, done.output
    assert done.last_line.startswith(f"spamscore: ReportBatch(date={UNLIKE}) failed: batch 2 of {UNLIKE} differs")
    assert query(folder, f"select count(*) from published_scores where batch_date = '{UNLIKE}'") == [(306,)]
    again = luigi(folder, "ReportBatch", "--date", UNLIKE)
    assert (again.code, again.last_line, again.ran) == (50, done.last_line, set())
    accepted = subprocess.run(
        [LUIGI.with_name("spamscore"), "drift", UNLIKE, "--accept", "--yes", "--who", "ann"],
        cwd=folder, env=environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert accepted.stdout == f"the drift of batch 2 of {UNLIKE} is accepted, by ann\n"
    assert luigi(folder, "ReportBatch", "--date", UNLIKE).code == 0


@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_the_report_of_a_batch_and_the_index_are_readable_on_a_phone_and_in_dark_mode(
    unlike: tuple[Path, CommandResult], tmp_path: Path, width: int, mode: str
) -> None:
    reports = unlike[0] / "artifacts" / "reports"
    for page in (f"{DATE}/batch-1.html", f"{UNLIKE}/batch-2.html", "index.html"):
        found = measure_page((reports / page).read_text("utf-8"), tmp_path, width, mode)
        assert found["scrolls_to"] == found["width"]
        assert found["outside"] == found["faint"] == []
        assert found["smallest"] >= 11
        assert found["lettering"] >= 10
        assert min(found["drawings"]) >= 340
        assert (sum(map(int, re.findall(r"\d+", found["background"]))) > 384) is (mode == "light")


def test_the_report_of_a_batch_has_the_figures_of_the_database(unlike: tuple[Path, CommandResult]) -> None:
    folder, _ = unlike
    for batch_id, date in ((1, DATE), (2, UNLIKE)):
        report = folder / "artifacts" / "reports" / date / f"batch-{batch_id}.html"
        figures = json.loads(report.with_suffix(".json").read_text("utf-8"))
        columns = "messages_read, scored, rejected, flagged"
        (row,) = query(folder, f"select {columns} from score_batches where batch_id = {batch_id}")
        assert tuple(figures["counts"][name] for name in ("read", "scored", "rejected", "flagged")) == row
        assert all(comparison["agrees"] for comparison in figures["held"])
        assert len(figures["held"]) == 7
        assert figures["wording"]["words"] > figures["wording"]["unknown"] > 0
        assert figures["drift"]["psi_validation"] > 0
        words = extract_words(report.read_text("utf-8"))
        assert f"{row[0]:,} messages read: {row[1]:,} scored, {row[2]:,} rejected. {row[3]:,} flagged" in words


def test_the_report_of_a_batch_escapes_hostile_messages(unlike: tuple[Path, CommandResult]) -> None:
    page = (unlike[0] / "artifacts" / "reports" / UNLIKE / "batch-2.html").read_text("utf-8")
    assert page.count("<h1") == 1
    assert not re.search(r"<(script|img|link|iframe|object)\b", page)
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", page)
    assert "&lt;script&gt;document.title=&#39;taken&#39;" in page
    assert "{% include &#39;/etc/passwd&#39; %}" in page
    assert page.count("WIN a FREE prize") < 10  # only one of several near-duplicates is listed


def extract_words(page: str) -> str:
    without = re.sub(r"<(style|svg).*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", without).split())


@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_the_evaluation_report_is_readable_on_a_phone_and_in_dark_mode(
    nights: tuple[Path, EvaluationFiles, EvaluationFiles], tmp_path: Path, width: int, mode: str
) -> None:
    for evaluation in nights[1:]:
        found = measure_page(evaluation.page, tmp_path, width, mode)
        assert found["scrolls_to"] == found["width"]
        assert found["outside"] == found["faint"] == []
        assert found["smallest"] >= 11
        assert found["lettering"] >= 10
        assert min(found["drawings"]) >= 340
        assert (sum(map(int, re.findall(r"\d+", found["background"]))) > 384) is (mode == "light")


def test_the_evaluation_report_has_its_sections_in_order(nights: tuple[Path, EvaluationFiles, EvaluationFiles]) -> None:
    _, first, second = nights
    headings = re.findall(r"<h([1-3])[^>]*>([^<]*)</h\1>", second.page)
    assert [title for _, title in headings] == [
        "Evaluation of spam_ham", "The gate", "Against version 1, on the same test messages", "Verdicts that change",
        "Plots", "At the threshold", "Spam probabilities", "ROC curve", "Precision and recall", "Calibration",
        "Training", "Worst mistakes", "Spam with the lowest probability", "Ham with the highest probability",
        "Kinds of message", "All figures", "Settings and data",
    ]  # fmt: skip
    words = extract_words(second.page)
    assert f"Of the messages of {DATE} (batch 1), " in words
    assert "Of the test part, " in words
    assert "Moved by:" in words
    for flips in (second.figures["flips"], second.figures["flips_on_test_part"]):
        for flip in flips["examples"]:
            assert f'narrow">{flip["before"]:.4f}</td><td class="number narrow">{flip["now"]:.4f}' in second.page
    assert "Verdicts that change" not in extract_words(first.page)


def test_the_evaluation_report_escapes_hostile_messages(nights: tuple[Path, EvaluationFiles, EvaluationFiles]) -> None:
    for evaluation in nights[1:]:
        page = evaluation.page
        assert page.count("<h1") == 1
        assert not re.search(r"<(script|img|link|iframe|object)\b", page)
        assert set(re.findall(r"https?://[^\"\s<]*(?=\")", page)) <= {"http://www.w3.org/2000/svg"}
        assert not re.search("[\u202a-\u202e\u2066-\u2069]", page)
        for expected in (
            "&lt;script&gt;document.title=&#39;taken&#39;&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;",
            "&lt;/td&gt;&lt;/tr&gt;&lt;/table&gt;&lt;h1&gt;taken&lt;/h1&gt;",
            "<i>[U+202E]</i>see you at home tonight<i>[U+202C]</i>",
            "{{ 7 * 7 }} {% include &#39;/etc/passwd&#39; %}",
            "🎉",
            "more characters",
        ):
            assert expected in page, expected
        assert "x" * 1000 not in page


def test_the_model_card_has_the_figures_of_metrics_json(nights: tuple[Path, EvaluationFiles, EvaluationFiles]) -> None:
    folder, first, _ = nights
    card = (folder / "artifacts" / "exports" / "spam_ham" / "1" / "model_card.md").read_text("utf-8")
    assert re.findall(r"^## (.*)$", card, flags=re.MULTILINE) == [
        "Model details", "Intended use", "Factors", "Metrics", "Evaluation data", "Training data",
        "Quantitative analyses", "Ethical considerations", "Caveats and recommendations",
    ]  # fmt: skip
    for section in re.split(r"^## .*$", card, flags=re.MULTILINE)[1:]:
        assert len(section.split()) > 20
    figures = first.figures
    for name, meaning in metric_descriptions().items():
        assert f"| {meaning.title} | {meaning.format(figures[name])} |" in card
    for group in [*figures["groups"], *figures["groups_together"]]:
        assert f"| {group['name']} | {group['spam_caught']} of {group['spam']} | " in card
        assert f" | {group['ham_flagged']} of {group['ham']} | " in card
        if recall := group["recall"]:
            assert f"{recall['value'] * 100:.1f} % ({recall['low'] * 100:.1f} to {recall['high'] * 100:.1f})" in card
    for comparison in figures["compared"]:
        assert (
            f"{comparison['new']['value']:.4f} ({comparison['new']['low']:.4f} to {comparison['new']['high']:.4f})"
            in card
        )
    trained = json.loads(next((folder / "artifacts" / "training").glob("*/manifest.json")).read_text("utf-8"))
    assert re.search(r"\| parameters \| \d+ \|", card)
    assert trained["parameters"] > 0
    assert all(text.split("\u202e")[0] not in card for text in HOSTILE.values() if len(text) < 1000)
    length_groups = [group for group in figures["groups"] if group["factor"] == "Length"]
    assert sum(group["spam"] + group["ham"] for group in length_groups) == figures["messages"]
    assert sum(group["spam_caught"] for group in length_groups) == figures["true_positives"]
    assert sum(group["ham_flagged"] for group in length_groups) == figures["false_positives"]
