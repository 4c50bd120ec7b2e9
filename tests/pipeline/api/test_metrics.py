"""Tests /metrics: promtool accepts it, it counts what happened, and clients cannot add labels."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from front_end import FrontEnd


def test_promtool_accepts_the_metrics(front: FrontEnd) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("skipped: promtool is not installed (apt-get install prometheus)")
    front.predict("hello")
    text = front.get("/metrics").text
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_requests_and_messages_are_counted(front: FrontEnd) -> None:
    names = [
        'spamscore_api_requests_total{call="predict",code="200",protocol="rest"}',
        'spamscore_api_requests_total{call="predict",code="422",protocol="rest"}',
        'spamscore_api_request_seconds_count{protocol="rest"}',
        'spamscore_api_messages_total{result="passed"}',
        'spamscore_api_messages_total{result="unscored"}',
        "spamscore_api_batch_messages_sum",
    ]
    before = [front.metric(name) for name in names]
    front.predict("see you at lunch", "", "see you tomorrow then")
    front.post("/v1/predictions", {})
    after = [front.metric(name) for name in names]
    assert [new - old for new, old in zip(after, before, strict=True)] == [1, 1, 2, 2, 1, 2]
    assert front.metric("spamscore_api_ready") == 1
    assert front.metric("spamscore_api_degraded") == 0
    assert front.metric("spamscore_api_version_in_service") == 1


def test_what_clients_send_makes_no_new_series(front: FrontEnd) -> None:
    def ask(number: int) -> None:
        front.get(f"/x{number}")
        front.get(f"/v1/models/x{number}")
        front.get(f"/v1/models/spam_ham/versions/{100 + number}")
        front.post(f"/v1/models/x{number}:predict", {})
        front.post(f"/v1/predictions?x{number}=1", {"messages": []})
        front.send(f"METHOD{number}", "/v1/predictions")
        front.post("/v1/models/spam_ham:predict", {"signature_name": f"x{number}", "instances": ["x"]})

    def series() -> set[str]:
        return set(re.findall(r"^(\S+) ", front.get("/metrics").text, re.MULTILINE))

    ask(0)
    before = series()
    for number in range(1, 5):
        ask(number)
    assert series() == before
