"""The report of a batch and the index: their content, missing parts, and untrusted messages."""

from __future__ import annotations

import dataclasses
import datetime
import re
from typing import Any

import numpy as np
import pytest

from models.evaluation.text_statistics import TextStatisticsCounter
from models.reports.batch_report import (
    BatchReport,
    CountCheck,
    LimitRow,
    ListedMessage,
    TrendPoint,
    mask_text,
    render_batch,
    render_index,
)
from models.statistics.stability import count_scores, population_stability

DATE = datetime.date(2026, 1, 31)
HOSTILE = "<script>alert(1)</script> {{ 7 * 7 }} \u202eabc £500"


def point(number: int, **values: Any) -> TrendPoint:
    given = {"flagged_share": 0.1, "unknown_share": 0.2, "psi_before": 0.01, "messages": 1000}
    return TrendPoint(date=DATE - datetime.timedelta(days=number), batch_id=100 - number, **{**given, **values})


def batch(**values: Any) -> BatchReport:
    scores = count_scores(np.linspace(0, 1, 50))
    counter = TextStatisticsCounter(None)
    counter.add(["hello", "привет"])
    listed = [ListedMessage("m-<1>", 0.99, True, HOSTILE), ListedMessage("m-2", 0.9, True, None)]
    whole = BatchReport(
        batch_id=100,
        date=DATE,
        model="spam_ham, version 1",
        threshold=0.5,
        counts={"read": 51, "scored": 50, "rejected": 1, "flagged": 25},
        count_checks=[CountCheck("Rows with a score", 50, 50)],
        rejected={"empty text": 1},
        seconds={"unknown part": 0.1, "total": 2.0, "text": 0.5},
        points=[point(2), point(1), point(0)],
        limits={"flagged_share": (0.05, 0.2)},
        limit_rows=[LimitRow("Share flagged", "50.00 %", "10.00 %", "5 % to 20 %")],
        crossings=[],
        acceptance="",
        comparison="Compared with 2 batches.",
        scores=scores,
        validation=scores,
        before=scores,
        psi_validation=population_stability(scores, scores),
        psi_before=None,
        text_statistics=counter.statistics(),
        sample_description="2 messages",
        no_vocabulary="",
        suspicious=listed,
        uncertain=listed,
        facts={"Batch": {"recipe": "abc"}},
        previous_report="../2026-01-30/batch-99.html",
        provisional=False,
    )
    return dataclasses.replace(whole, **values)


def words_of(page: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", re.sub(r"<(style|svg).*?</\1>", "", page, flags=re.DOTALL)).split())


def test_the_report_has_its_sections_in_order() -> None:
    page = render_batch(batch(), "show")
    assert re.findall(r"<h[12][^>]*>([^<]*)<", page) == [
        "Batch 100 of Saturday, 31 January 2026", "Limits", "Recent batches", "Scores and texts", "Counts", "Time",
        "Messages", "Settings and data",
    ]  # fmt: skip
    words = words_of(page)
    for sentence in (
        "No limit was crossed", "51 messages read: 50 scored, 1 rejected. 25 flagged, 50.00 % of the scored",
        "Rows with a score 50 agrees", "empty text 1",
        "total 2.00 100 % splitting texts into words 0.50 25 % unknown part 0.10 5 %",
        "26 messages a second", "Cyrillic 1 50.00 %",
        "Latin 1 50.00 %",
    ):  # fmt: skip
        assert sentence in words, sentence
    assert 'href="../index.html"' in page
    assert 'href="../2026-01-30/batch-99.html"' in page


def test_the_page_requests_nothing_and_the_same_batch_gives_the_same_page() -> None:
    page = render_batch(batch(), "show")
    assert page == render_batch(batch(), "show")
    assert set(re.findall(r"https?://[^\"\s<]*", page)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert "default-src 'none'" in page
    assert len(re.findall(r"<svg", page)) == 6
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))


def test_crossed_limits_come_first_with_the_commands_until_somebody_accepts_them() -> None:
    open_page = words_of(render_batch(batch(crossings=["50 % is flagged <b>"]), "show"))
    assert "Drift: a limit was crossed 50 % is flagged &lt;b&gt; The batch stays published." in open_page
    assert "spamscore drift 2026-01-31 --accept" in open_page
    acceptance = words_of(render_batch(batch(crossings=["50 %"], acceptance="Accepted by ann on 2026-02-01."), "show"))
    assert "Accepted by ann on 2026-02-01." in acceptance
    assert "--accept" not in acceptance


def test_counts_that_differ_are_shown_at_the_top_and_in_their_row() -> None:
    words = words_of(render_batch(batch(count_checks=[CountCheck("Rows with a score", 50, 49)]), "show"))
    assert "The rows differ from those that were published Rows with a score" in words
    assert "Rows with a score 49 expected 50 differs" in words


@pytest.mark.parametrize(
    ("messages", "there", "absent"),
    [
        (
            "show",
            ["&lt;script&gt;", "{{ 7 * 7 }}", "[U+202E]", "m-&lt;1&gt;", "The text is not available"],
            ["<script>"],
        ),
        ("mask", ["xxxxxx", "{{ 0 * 0 }}", "£000", "m-&lt;1&gt;"], ["script&gt;alert", "£500"]),
        ("hide", [], ["xxxxxx", "alert", "m-&lt;1&gt;", "£500", 'id="messages"']),
    ],
)
def test_messages_are_shown_masked_or_left_out(messages: str, there: list[str], absent: list[str]) -> None:
    page = render_batch(batch(), messages)
    assert [text for text in there if text not in page] == []
    assert [text for text in absent if text in page] == []
    assert ("quotes private messages" in page) is (messages == "show")


@pytest.mark.parametrize(
    ("text", "shown"),
    [("Call 07700 900123!", "xxxx 00000 000000!"), ("привет_你好", "xxxxxx_xx"), ("٣½", "0x"), ("", "")],
)
def test_a_masked_message_keeps_none_of_its_letters_and_digits(text: str, shown: str) -> None:
    assert mask_text(text) == shown


def test_missing_parts_are_reported_and_are_no_error() -> None:
    nothing = batch(
        validation="the model is gone",
        before="none is published",
        text_statistics="the snapshot <b> is gone",
        no_vocabulary="no",
        psi_validation=None,
        scores=count_scores([]),
        suspicious=[],
        uncertain=[],
        rejected={},
        seconds={},
        previous_report="",
        counts={"read": 0, "scored": 0, "rejected": 0, "flagged": 0},
        points=[point(0, flagged_share=None, unknown_share=None, psi_before=None)],
    )
    words = words_of(render_batch(nothing, "show"))
    for sentence in (
        "There are no scores of labelled messages to compare with: the model is gone.",
        "There is no previous batch to compare with: none is published.",
        "Lengths, scripts and words are not available: the snapshot &lt;b&gt; is gone.",
        "No message was rejected.", "No times were recorded.", "None.",
    ):  # fmt: skip
        assert sentence in words, sentence
    assert "Unknown words are not counted" not in words


def test_the_index_has_one_row_for_each_batch_and_one_chart_for_each_figure() -> None:
    rows = [
        {"point": point(0), "address": "2026-01-31/batch-100.html", "crossed": ['50 % "flagged"'], "accepted": ""},
        {"point": point(1), "address": "2026-01-30/batch-99.html", "crossed": ["x"], "accepted": "ann"},
        {"point": point(2, flagged_share=None, psi_before=None), "address": "a", "crossed": [], "accepted": ""},
    ]
    page = render_index([point(2), point(1), point(0)], rows, "2026-02-01 03:00 UTC")
    words = words_of(page)
    assert "2026-01-31 drift 1,000 10.00 % 0.010 20.0 %" in words
    assert "2026-01-30 drift, accepted 1,000" in words
    assert "2026-01-29 1,000 20.0 %" in words
    assert len(re.findall("<svg", page)) == 4
    assert "50 % &#34;flagged&#34;" in page
    assert "All batches" in words_of(render_index([], [], "now"))
