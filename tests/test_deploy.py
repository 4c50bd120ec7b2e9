"""What is under deploy/ is what the programs it is for take, and names only what there is."""

from __future__ import annotations

import configparser
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from doc_pages import reference_pages
from luigi.contrib.prometheus_metric import PrometheusMetricsCollector
from prometheus_client import generate_latest

from pipeline import Nightly
from tasks.database.batches import BatchRow
from tasks.monitoring.alerts import KINDS, Alerts
from tasks.monitoring.prometheus import batch_metrics, run_metrics

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yml"
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
UNITS = sorted([*DEPLOY.glob("*.service"), *DEPLOY.glob("*.timer")])


def run(package: str, *command: str | Path, cwd: Path = ROOT) -> str:
    """What a program says that takes the file; without it the test is left out."""
    if shutil.which(str(command[0])) is None:
        message = f"{command[0]} is not here: apt-get install {package}"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def rules() -> list[dict[str, Any]]:
    content = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    return [rule for group in content["groups"] for rule in group["rules"]]


@pytest.fixture
def installed(tmp_path: Path) -> list[Path]:
    """The units with the programs of this environment, for they must be there."""
    for unit in UNITS:
        text = unit.read_text(encoding="utf-8").replace("/srv/spamscore/.venv/bin", str(Path(sys.executable).parent))
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
    return sorted(tmp_path.iterdir())


def test_systemd_takes_the_units_without_a_word(installed: list[Path]) -> None:
    assert run("systemd", "systemd-analyze", "verify", *installed) == ""


def test_systemd_finds_the_services_shut_in(installed: list[Path]) -> None:
    services = [unit for unit in installed if unit.suffix == ".service"]
    for unit in services:
        said = run("systemd", "systemd-analyze", "security", "--offline=yes", "--threshold=45", "--no-pager", unit)
        assert "Overall exposure level" in said


def test_the_timer_makes_up_for_a_night_that_the_machine_was_off() -> None:
    timer = (DEPLOY / "spamscore.timer").read_text(encoding="utf-8")
    assert "\nPersistent=true\n" in timer
    calendar = re.findall(r"^OnCalendar=(.*)$", timer, re.MULTILINE)
    assert "Next elapse" in run("systemd", "systemd-analyze", "calendar", *calendar)


@pytest.mark.parametrize("path", [DEPLOY / "spamscore.service", DEPLOY / "crontab"], ids=lambda path: path.name)
def test_what_starts_the_night_starts_nightly_with_its_settings(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert f".venv/bin/luigi --module pipeline {Nightly.__name__}" in text
    assert "LUIGI_CONFIG_PATH=deploy/nightly.cfg" in text
    assert (DEPLOY / "nightly.cfg").is_file()


def test_the_crontab_s_one_line_is_five_times_and_a_command_for_a_shell() -> None:
    lines = (DEPLOY / "crontab").read_text(encoding="utf-8").splitlines()
    (line,) = [line for line in lines if not re.match(r"#|[A-Z_]+=|$", line)]
    *times, command = line.split(None, 5)
    assert all(re.fullmatch(r"\*|\d+", one) for one in times)
    assert "%" not in command  # cron ends the command there
    subprocess.run(["sh", "-n", "-c", command], check=True)


def test_the_settings_of_a_night_are_all_known(tmp_path: Path) -> None:
    shutil.copy(DEPLOY / "nightly.cfg", tmp_path)
    environment = {**os.environ, "LUIGI_CONFIG_PATH": "nightly.cfg"}
    code = "import pipeline; from tasks.settings.checking import check_settings; check_settings()"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# Prometheus


def test_promtool_takes_the_rules() -> None:
    assert f"{len(rules())} rules found" in run("prometheus", "promtool", "check", "rules", RULES)


def test_each_rule_fires_when_it_should_and_not_before() -> None:
    path = RULES.with_name("rules_test.yml")
    run("prometheus", "promtool", "test", "rules", path.name, cwd=path.parent)
    cases = [
        case for one in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"] for case in one["alert_rule_test"]
    ]
    fired = {case["alertname"] for case in cases if case.get("exp_alerts")}
    quiet = {case["alertname"] for case in cases if not case.get("exp_alerts")}
    assert fired == quiet == {rule["alert"] for rule in rules()}


def exported() -> set[str]:
    """Names of all metrics: those of a batch and of a run, and luigid's."""
    row: Any = dict.fromkeys(BatchRow.__dataclass_fields__)
    row |= {"batch_date": datetime.date(2026, 1, 31), "threshold": 0.5, "model_version": 1}
    parts = [batch_metrics(BatchRow(**row), None), run_metrics(Alerts(), False, 1.0)]
    text = b"".join(generate_latest(part) for part in parts) + PrometheusMetricsCollector().generate_latest()
    return set(re.findall(r"^# TYPE (\w+)", text.decode(), re.MULTILINE))


def named(expressions: list[str]) -> set[str]:
    return {name for one in expressions for name in re.findall(r"\b(?:spamscore|luigi)_\w+", one)}


def test_rules_and_dashboard_name_only_metrics_that_a_night_or_luigid_exports() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "spamscore.json").read_text(encoding="utf-8"))
    shown = named([target["expr"] for panel in dashboard["panels"] for target in panel["targets"]])
    ruled = named([rule["expr"] for rule in rules()])
    assert ruled <= exported()
    assert shown <= exported()
    # What is exported is looked at somewhere, but for when luigid started a task.
    assert {name for name in exported() if not name.endswith("_created")} - shown - ruled <= {
        "luigi_task_started_total"
    }


def test_the_kind_that_a_rule_asks_for_is_one() -> None:
    kinds = re.findall(r'kind="(\w+)"', RULES.read_text(encoding="utf-8"))
    assert kinds
    assert set(kinds) <= set(KINDS)


def test_the_panels_of_the_dashboard_do_not_lie_on_each_other() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "spamscore.json").read_text(encoding="utf-8"))
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


# docs/operations.md


def paragraph(pattern: str) -> str:
    found = re.search(pattern, OPERATIONS, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


@pytest.mark.parametrize("code", [one.code for one in reference_pages.luigi_codes()])
def test_operations_has_a_paragraph_for_each_exit_code_of_the_reference(code: int) -> None:
    assert len(paragraph(rf"^### Exit code {code}\n\n(.*?)\n\n")) > 40


def test_operations_names_no_exit_code_that_is_not_there() -> None:
    found = {int(code) for code in re.findall(r"^### Exit code (\d+)$", OPERATIONS, re.MULTILINE)}
    assert found == {one.code for one in reference_pages.luigi_codes()} >= {0, 10, 30, 50}


@pytest.mark.parametrize("name", [rule["alert"] for rule in rules()])
def test_operations_has_a_paragraph_for_each_alert_rule(name: str) -> None:
    assert len(paragraph(rf"^### {name}\n\n(.*?)(?:\n\n|\Z)")) > 20


@pytest.mark.parametrize("kind", KINDS)
def test_operations_has_a_paragraph_for_each_kind_of_alert(kind: str) -> None:
    assert len(paragraph(rf"^\*\*{kind}\*\* \(mail, webhook\): (.*?)\n\n")) > 10


def test_operations_names_no_alert_that_is_not_there() -> None:
    part = OPERATIONS[OPERATIONS.index("## Alerts of Prometheus") :]
    assert set(re.findall(r"^### (\w+)$", part, re.MULTILINE)) == {rule["alert"] for rule in rules()}


def test_the_night_s_settings_file_has_no_password() -> None:
    parser = configparser.RawConfigParser()
    parser.read(DEPLOY / "nightly.cfg", encoding="utf-8")
    assert not [key for section in parser.sections() for key in parser.options(section) if re.search("pass|token", key)]
