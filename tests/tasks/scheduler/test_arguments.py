"""The arguments of `luigi`: every value of every parameter is accepted, or described in one line."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from luigi.task_register import Register

import pipeline
from tasks.scheduler.arguments import describe_unknown_task, find_mistake

PARAMETERS: dict[str, Any] = {
    f"{task}.{name}": parameter for task, _, name, parameter in Register.get_all_params() if not task.startswith("_")
}
EXAMPLES = (
    "2026-01-31", "2026-01-01..2026-01-31", "0000-00-00", "9999-12-31..9999-12-31", "2026-01-31T05", "1e999",
    "1E14", "-1", "nan", "[1]", "{}", "5", "null", "true", "\u0661", "9" * 19,
)  # fmt: skip
VALUES = st.text(max_size=20) | st.sampled_from(EXAMPLES)


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_value_is_accepted_or_described(name: str) -> None:
    @given(VALUES)
    def check(text: str) -> None:
        mistake = find_mistake(f"--{name}", PARAMETERS[name], text)
        assert mistake is None or mistake

    check()


@given(st.text(max_size=20))
def test_a_task_that_does_not_exist_is_described_with_the_tasks_that_do(name: str) -> None:
    message = describe_unknown_task(name)
    assert message.startswith(f"no task {name}")
    assert all(f"{task}" in message for task in (*pipeline.__all__, "RangeDaily"))
    listed = message.rpartition("Tasks are ")[2].rstrip(".").split(", ")
    assert not {"Task", "Config", "ExternalTask", "ExternalFile"} & set(listed)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [("ScoreBach", "ScoreBatch"), ("scorebatch", "ScoreBatch"), ("Nightl", "Nightly"), ("RangeDayly", "RangeDaily")],
)
def test_the_most_similar_task_is_suggested(name: str, suggestion: str) -> None:
    assert f"(did you mean {suggestion}?)" in describe_unknown_task(name)
