from __future__ import annotations

import itertools
import re
import subprocess
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.evaluation.factors import FACTORS, measure_groups
from models.evaluation.gate import Check, Flip, Flips, Verdict, compare, judge
from models.reports import evaluation_report
from models.reports.evaluation_report import (
    MAX_HARDEST,
    MAX_WORD_CHARACTERS,
    hardest_messages,
    headline,
    render_evaluation,
)
from models.reports.pages import SHOWN_CHARACTERS, spell_out
from models.settings import GateSettings
from models.statistics.calibration import Threshold
from models.statistics.metrics import evaluate

LABELS = np.array([1, 1, 1, 0, 0, 0], dtype=bool)
SCORES = np.array([0.9, 0.8, 0.2, 0.7, 0.1, 0.0])
TEXTS = ["win a prize", "call now", "hi, it is me", "your code is 1234", "see you", "ok"]
HISTORY = [{"epoch": 1, "loss": 0.5, "validation_loss": 0.3}]
HOSTILE = [
    "<script>alert(1)</script>",
    "</td></table><h1>x</h1>",
    "\"'><img src=x onerror=alert(1)>",
    "&lt;b&gt; &amp; &#60;",
    "{{ 7 * 7 }}{% raw %}",
    "\u202egnp.exe\u2066\u200b\ufeff",
    "a" + "\u0301" * 200,
    "\x00\x1b[31m\r\n\t\ud800",
    "<!-- --!> ]]> <![CDATA[",
    "[U+200B]",
]
VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Parses a page strictly: every tag must be closed in the right order."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.messages: list[str] = []
        self.words = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "bdi":
            self.messages.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "bdi" in self.open:
            self.messages[-1] += data
        self.words += data


def render(**changes: Any) -> str:
    metrics = evaluate(LABELS, SCORES, 0.5)
    given: dict[str, Any] = {
        "model": "spam_rnn",
        "fingerprint": "8899aabbccddeeff",
        "verdict": judge(metrics),
        "metrics": metrics,
        "threshold": Threshold(0.5),
        "labels": LABELS,
        "probabilities": SCORES,
        "texts": TEXTS,
        "history": HISTORY,
        "facts": {"Data": {"messages": 6, "corpus": "3f3f"}, "Settings [network]": {"dropout": 0.1 + 0.2}},
    }
    return render_evaluation(**given | changes)


def render_without_plots(**changes: Any) -> str:
    """Renders without plots: a plot takes a second and contains no untrusted text."""
    with patch.object(evaluation_report, "_draw_all", return_value=[]):
        return render(**changes)


def test_the_page_starts_with_the_model_and_the_verdict() -> None:
    page = Page(render())
    order = [
        page.words.index(part)
        for part in (
            "Evaluation of spam_rnn",
            "8899aabbccddeeff",
            "Approved",
            "Of 3 spam messages 2 were caught",
            "A model goes into service only if no check fails",
            "At the threshold",
            "Spam with the lowest probability",
            "Matthews correlation",
        )
    ]
    assert order == sorted(order)
    assert page.tags.count("svg") == 6


def test_the_same_input_gives_the_same_page() -> None:
    assert render() == render()


def test_the_page_requests_nothing() -> None:
    html = render()
    page = Page(html)
    assert not set(page.tags) & {
        "script",
        "link",
        "img",
        "iframe",
        "object",
        "embed",
        "form",
        "base",
        "video",
        "audio",
    }
    policy = next(value for tag, name, value in page.attributes if tag == "meta" and value and "default-src" in value)
    assert policy.split("; ")[:2] == ["default-src 'none'", "style-src 'unsafe-inline'"]
    assert set(re.findall(r"https?:[^\"]*", html)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"url\((?!#)|@import|javascript:|data:", html)
    assert not [name for _, name, _ in page.attributes if name.startswith("on") or name == "src"]
    assert all(value and value.startswith("#") for _, name, value in page.attributes if name.endswith("href"))


GROUPS = measure_groups(TEXTS, LABELS, SCORES, 0.5, 0.9, {**FACTORS, "<Factor>": lambda text: f"<{len(text) > 6}>"})


def test_ids_are_unique_and_every_link_has_a_target() -> None:
    page = Page(render(groups=GROUPS, flips=["no batch"]))
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    linked = {
        value.removeprefix("#") for tag, name, value in page.attributes if tag == "a" and name == "href" and value
    }
    assert linked == {"gate", "flips", "plots", "mistakes", "kinds", "figures", "facts"} & set(ids)


def test_the_page_is_accessible_without_seeing_it() -> None:
    page = Page(render(groups=GROUPS))
    assert ("html", "lang", "en") in page.attributes
    assert page.tags.count("h1") == page.tags.count("main") == page.tags.count("title") == 1
    levels = [int(tag[1]) for tag in page.tags if re.fullmatch("h[1-6]", tag)]
    assert all(later <= level + 1 for level, later in itertools.pairwise(levels))
    drawings = [value or "" for tag, name, value in page.attributes if tag == "svg" and name == "aria-label"]
    assert len(drawings) == page.attributes.count(("svg", "role", "img")) == page.tags.count("svg")
    for expected in (
        "2 spam caught, 1 spam missed, 1 ham flagged wrongly, 2 ham let through",
        "average precision 0.9167",
        "66.7 % of the spam is caught",
        "3 ham and 3 spam",
        "the best is epoch 1",
    ):
        assert any(expected in drawing for drawing in drawings), expected
    scopes = [value for tag, name, value in page.attributes if tag == "th" and name == "scope"]
    assert len(scopes) == page.tags.count("th")
    assert len(re.findall("<thead>|<caption>", render_without_plots())) == Page(render_without_plots()).tags.count(
        "table"
    )


def test_groups_of_messages_are_shown_with_counts_and_intervals() -> None:
    words = " ".join(Page(render_without_plots(groups=GROUPS, confidence=0.9)).words.split())
    assert "its 90 % interval (Wilson)" in words
    assert "Long number with a number of four digits or more0 of 01 of 1100.0 %" in words
    assert "<Factor> <False>" in words
    assert "Kinds of message" not in Page(render_without_plots()).words


def test_the_page_of_an_approved_model_counts_its_checks() -> None:
    checks = [Check("a", True, "check one"), Check("b", True, "check two"), Check("c", None, "third")]
    words = Page(render_without_plots(verdict=Verdict(True, ["check one", "check two"], checks))).words
    assert "2 of 3 checks passed; 1 could not be made." in words
    assert words.count("check one") == 1


def test_the_page_supports_phones_and_dark_mode() -> None:
    html = render_without_plots()
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in html
    assert "prefers-color-scheme: dark" in html


def test_the_page_of_a_refused_model_gives_the_reasons() -> None:
    page = Page(render_without_plots(verdict=Verdict(False, ["MCC 0.0000 is <not> above 0"])))
    assert "Not approved" in page.words
    assert "MCC 0.0000 is <not> above 0" in page.words


def test_the_version_in_service_is_shown_for_comparison() -> None:
    worse = evaluate(LABELS, 1 - SCORES, 0.5)
    assert "In service" not in Page(render_without_plots()).words
    page = Page(render_without_plots(in_service=worse))
    assert "In service" in page.words
    assert f"{worse.log_loss:.4f}" in page.words


def test_facts_are_shown_as_they_are() -> None:
    words = Page(render_without_plots(facts={"<Data>": {"a & b": None, "share": 0.1 + 0.2, "path": "\u202ex"}})).words
    for part in ("<Data>", "a & b", "None", "0.3", "[U+202E]x"):
        assert part in words


hostile_text = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(st.characters(exclude_categories=())),
    st.text(st.sampled_from("<>&\"'/=-!{}%[]U+0 \n\u202e\u200b\u0301\ud83d\ufe0f\U000e0041ab")),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(hostile_text, min_size=len(TEXTS), max_size=len(TEXTS)))
@example(HOSTILE[:6])
@example(HOSTILE[4:])
def test_no_message_changes_the_page_and_each_is_shown_literally(texts: list[str]) -> None:
    html = render_without_plots(texts=texts)
    html.encode("utf-8")
    page, plain = Page(html), Page(render_without_plots())
    varying = ("i", "small")
    assert [tag for tag in page.tags if tag not in varying] == [tag for tag in plain.tags if tag not in varying]
    in_order = [texts[index] for index in (2, 1, 0, 3, 4, 5)]
    assert page.messages == [spell_out(text[:SHOWN_CHARACTERS]) for text in in_order]


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=())))
def test_spelled_out_text_has_no_invisible_and_no_direction_characters(text: str) -> None:
    shown = spell_out(text)
    assert shown == shown.encode("utf-8").decode("utf-8")
    categories = {unicodedata.category(character) for character in shown if character not in "\n\t "}
    assert not categories & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, “quoted” £5 é 你好 مرحبا", "plain, “quoted” £5 é 你好 مرحبا"),
        ("line\nend\ttab", "line\nend\ttab"),
        ("carriage\r", "carriage[U+000D]"),
        ("f\u200bree", "f[U+200B]ree"),
        ("\u202eesrever", "[U+202E]esrever"),
        ("soft\u00adhyphen", "soft[U+00AD]hyphen"),
        ("no\u00a0break", "no[U+00A0]break"),
        ("\u3164\u2800\u115f\u034f", "[U+3164][U+2800][U+115F][U+034F]"),
        ("\U000e0041", "[U+E0041]"),
        ("\U000e0101", "[U+E0101]"),
        ("\ud83d", "[U+D83D]"),
        ("❤\ufe0f", "❤\ufe0f"),
        ("", ""),
    ],
)
def test_invisible_characters_are_spelled_out(text: str, shown: str) -> None:
    assert spell_out(text) == shown


def test_spelled_out_characters_are_highlighted() -> None:
    html = render_without_plots(texts=["f\u200bree", *TEXTS[1:]])
    assert "<bdi>f<i>[U+200B]</i>ree</bdi>" in html


@pytest.mark.parametrize(("length", "hidden"), [(SHOWN_CHARACTERS, 0), (SHOWN_CHARACTERS + 1234, 1234)])
def test_a_long_message_is_cut_with_a_note(length: int, hidden: int) -> None:
    page = Page(render_without_plots(texts=["x" * length, *TEXTS[1:]]))
    assert "x" * SHOWN_CHARACTERS in page.messages
    assert ("1,234 more characters" in page.words) is bool(hidden)


def test_the_hardest_messages_of_each_label_are_sorted_worst_first() -> None:
    rng = np.random.default_rng(1)
    labels, scores = rng.random(200) < 0.5, rng.random(200)
    texts = [f"{number}" for number in range(200)]
    for list_spam in (True, False):
        found = hardest_messages(labels, scores, texts, 0.5, list_spam)
        wanted = sorted(scores[labels == list_spam], reverse=not list_spam)[:MAX_HARDEST]
        assert [message.probability for message in found] == wanted
        assert all(labels[int(message.parts[0])] == list_spam for message in found)
        assert [message.wrong for message in found] == [(score >= 0.5) != list_spam for score in wanted]


@dataclass
class Moved:
    """Replaces an explanation, which would need TensorFlow."""

    message: str

    def strongest(self, limit: int) -> list[SimpleNamespace]:
        words = self.message.split(" ")[:limit]
        return [SimpleNamespace(text=word, change=1.25 if word != "me" else -0.5) for word in words]

    @property
    def decisive(self) -> list[SimpleNamespace]:
        return self.strongest(2)


def explain_all(messages: Sequence[str]) -> list[Any]:
    return [Moved(message) for message in messages]


def test_only_the_worst_mistakes_are_explained_with_the_words_that_moved_their_scores() -> None:
    asked: list[str] = []

    def explain(messages: Sequence[str]) -> list[Any]:
        asked.extend(messages)
        return explain_all(messages)

    page = Page(render_without_plots(explain=explain))
    assert asked == ["hi, it is me", "your code is 1234"]
    assert "Moved by: hi, +1.25, it +1.25, is +1.25, me \N{MINUS SIGN}0.50" in page.words
    assert page.words.count("Moved by:") == 2
    assert "Caught without: hi,, it" in page.words
    assert "Let through without: your, code" in page.words
    assert "Moved by no single word" not in page.words
    still = [SimpleNamespace(strongest=lambda _: [], decisive=())]
    assert Page(render_without_plots(explain=lambda _: still)).words.count("Moved by no single word.") == 2
    assert "Moved by:" not in Page(render_without_plots()).words


@pytest.mark.parametrize("hostile", HOSTILE)
def test_words_of_an_explanation_are_escaped_spelled_out_and_cut(hostile: str) -> None:
    word = hostile.replace(" ", "_") + "x" * 500
    page = Page(render_without_plots(texts=[*TEXTS[:2], word, *TEXTS[3:]], explain=explain_all))
    assert spell_out(word[:MAX_WORD_CHARACTERS]) + "…" in page.messages
    assert page.tags.count("script") == page.tags.count("img") == 0


IN_SERVICE = np.array([0.9, 0.4, 0.2, 0.6, 0.4, 0.0])
GATE = GateSettings(resamples=100)


def test_a_figure_is_shown_with_that_in_service_and_all_three_intervals() -> None:
    metrics, compared = evaluate(LABELS, SCORES, 0.5), compare(LABELS, SCORES, IN_SERVICE, 0.002, GATE)
    html = render_without_plots(
        compared=compared, verdict=judge(metrics, compared), in_service=metrics, in_service_version=7, confidence=0.9
    )
    words = " ".join(Page(html).words.split())
    assert "Against version 7, on the same test messages" in words
    assert "Below each figure is its 90 % interval" in words
    first = compared[0]
    for interval, form in ((first.new, ".4f"), (first.in_service, ".4f"), (first.difference, "+.4f")):
        assert interval
        assert f"{interval.value:{form}}" in words
        assert f"{interval.low:{form}} to {interval.high:{form}}" in words
    alone = Page(render_without_plots(compared=compare(LABELS, SCORES, None, 0.002, GATE))).words
    assert "Uncertainty of the figures" in alone
    assert "Difference" not in alone


def test_a_self_trained_model_is_compared_with_its_teacher_in_a_table_of_its_own() -> None:
    compared = compare(LABELS, SCORES, IN_SERVICE, 0.002, GATE)
    words = " ".join(Page(render_without_plots(compared_with_teacher=compared)).words.split())
    _, _, table = words.partition("Against its teacher, on the same test messages")
    assert "This modelTeacherDifference" in table
    assert "lower than with its teacher" in table
    assert compared[0].difference
    assert f"{compared[0].difference.value:+.4f}" in table


def test_each_check_of_the_gate_is_passed_failed_or_not_made() -> None:
    checks = [Check("a", True, "first"), Check("b", False, "<second>"), Check("c", None, "third")]
    words = " ".join(Page(render_without_plots(verdict=Verdict(False, ["<second>"], checks))).words.split())
    assert "passedfirst failed<second> not madethird" in words


@pytest.mark.parametrize("hostile", HOSTILE)
def test_flipped_messages_are_counted_and_shown_escaped(hostile: str) -> None:
    examples = [Flip("<id>", hostile, 0.1234, 0.8766, flagged_now=True, spam=False), Flip("b", "x", 0.9, 0.1, False)]
    html = render_without_plots(flips=[Flips("the <messages>", 1000, 20, 1, examples)])
    page = Page(html)
    words = " ".join(page.words.split())
    assert "Of the <messages>, 1,000 in all, 20 would be newly flagged, and 1 would no longer be" in words
    assert "2.10 %. The 2 with the largest change of probability:" in words
    assert spell_out(hostile) in page.messages
    assert "flagged now, wrong: it is ham0.12340.8766" in words  # cells of one row
    assert "no longer flagged0.90000.1000" in words
    assert "tag bad" in html
    assert page.tags.count("script") == page.tags.count("img") == 0


def test_the_reason_is_shown_if_flips_could_not_be_counted() -> None:
    assert (
        "Not counted: no batch is <published>." in Page(render_without_plots(flips=["no batch is <published>"])).words
    )


def test_the_page_says_how_the_threshold_was_chosen() -> None:
    threshold = Threshold(0.5, 0.002, 700, 0)
    assert threshold.description in Page(render_without_plots(threshold=threshold)).words


@pytest.mark.parametrize(
    ("labels", "scores", "expected"),
    [
        ([1] * 98 + [0] * 640, [0.9] * 94 + [0.1] * 4 + [0.9] * 2 + [0.1] * 638,
         ["Of 98 spam messages 94 were caught; of 640 ham messages 2 were flagged wrongly.",
          "With a threshold that flags at most 0.1 % of the ham (here 0 of 640), 0.0 % of the spam would be caught.",
          "One spam message is 1 % of recall here; smaller differences mean nothing."]),
        ([1, 0], [0.9, 0.9], ["Of 1 spam message 1 was caught; of 1 ham message 1 was flagged wrongly."]),
        ([1], [0.9], ["Of 1 spam message 1 was caught; there was no ham."]),
        ([0, 0], [0.1, 0.1], ["There was no spam; of 2 ham messages 0 were flagged wrongly."]),
        ([], [], ["No labelled message was scored, so there are no figures."]),
    ],
)  # fmt: skip
def test_the_headline_summarizes_the_metrics(labels: list[int], scores: list[float], expected: list[str]) -> None:
    found = headline(evaluate(np.array(labels, dtype=int), np.array(scores), 0.5))
    assert found[: len(expected)] == expected


def test_a_page_without_messages_is_complete() -> None:
    none = np.array([], dtype=bool)
    metrics = evaluate(none, np.array([]), 0.5)
    page = Page(
        render(
            labels=none,
            probabilities=np.array([]),
            texts=[],
            metrics=metrics,
            verdict=judge(metrics),
            history=[],
            facts={},
        )
    )
    assert "not defined" in page.words
    assert page.words.count("None.") == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"texts": TEXTS[1:]},
        {"probabilities": SCORES[1:]},
        {"labels": LABELS[1:], "probabilities": SCORES[1:], "texts": TEXTS[1:]},
        {"probabilities": SCORES + 1},
    ],
)
def test_inputs_of_different_length_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"Expected .*Received: "):
        render_without_plots(**changes)


def test_reading_and_judging_load_neither_scikit_learn_nor_matplotlib() -> None:
    code = (
        "import sys, models.statistics.metrics, models.reports.evaluation_report, models.reports.model_card;"
        "print(sorted({'sklearn', 'scipy', 'matplotlib', 'tensorflow', 'pandas'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert ran.stdout.strip() == "[]"
