"""Tests that the programs for which deploy/ has files accept them, and that the files name only what exists."""

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
    """Returns the output of a program. Skips the test if the program is not installed, or fails it with CI set."""
    if shutil.which(str(command[0])) is None:
        message = f"{command[0]} is not installed: apt-get install {package}"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def read_rules() -> list[dict[str, Any]]:
    content = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    return [rule for group in content["groups"] for rule in group["rules"]]


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """Copies of the units that start the programs of this environment, because systemd checks that they exist."""
    for unit in UNITS:
        text = unit.read_text(encoding="utf-8").replace("/srv/spamscore/.venv/bin", str(Path(sys.executable).parent))
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
    return sorted(tmp_path.iterdir())


def test_systemd_accepts_the_units_without_a_warning(units: list[Path]) -> None:
    assert run("systemd", "systemd-analyze", "verify", *units) == ""


def test_systemd_rates_the_services_as_sandboxed(units: list[Path]) -> None:
    services = [unit for unit in units if unit.suffix == ".service"]
    for unit in services:
        output = run("systemd", "systemd-analyze", "security", "--offline=yes", "--threshold=45", "--no-pager", unit)
        assert "Overall exposure level" in output


def test_the_timer_catches_up_on_a_start_while_the_machine_was_off() -> None:
    timer = (DEPLOY / "spamscore.timer").read_text(encoding="utf-8")
    assert "\nPersistent=true\n" in timer
    calendar = re.findall(r"^OnCalendar=(.*)$", timer, re.MULTILINE)
    assert "Next elapse" in run("systemd", "systemd-analyze", "calendar", *calendar)


@pytest.mark.parametrize("path", [DEPLOY / "spamscore.service", DEPLOY / "crontab"], ids=lambda path: path.name)
def test_systemd_and_cron_start_nightly_with_its_settings(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert f".venv/bin/luigi --module pipeline {Nightly.__name__}" in text
    assert "LUIGI_CONFIG_PATH=deploy/nightly.cfg" in text
    assert (DEPLOY / "nightly.cfg").is_file()


def test_the_crontab_has_one_line_with_five_times_and_a_shell_command() -> None:
    lines = (DEPLOY / "crontab").read_text(encoding="utf-8").splitlines()
    (line,) = [line for line in lines if not re.match(r"#|[A-Z_]+=|$", line)]
    *times, command = line.split(None, 5)
    assert all(re.fullmatch(r"\*|\d+", field) for field in times)
    assert "%" not in command  # cron ends the command at a per cent sign
    subprocess.run(["sh", "-n", "-c", command], check=True)


def test_the_settings_of_nightly_cfg_are_valid(tmp_path: Path) -> None:
    shutil.copy(DEPLOY / "nightly.cfg", tmp_path)
    environment = {**os.environ, "LUIGI_CONFIG_PATH": "nightly.cfg"}
    code = "import pipeline; from tasks.settings.checking import check_settings; check_settings()"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


# Prometheus


def test_promtool_accepts_the_rules() -> None:
    assert f"{len(read_rules())} rules found" in run("prometheus", "promtool", "check", "rules", RULES)


def test_each_rule_fires_when_it_should_and_not_before() -> None:
    path = RULES.with_name("rules_test.yml")
    run("prometheus", "promtool", "test", "rules", path.name, cwd=path.parent)
    cases = [
        case for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"] for case in test["alert_rule_test"]
    ]
    firing = {case["alertname"] for case in cases if case.get("exp_alerts")}
    quiet = {case["alertname"] for case in cases if not case.get("exp_alerts")}
    assert firing == quiet == {rule["alert"] for rule in read_rules()}


def exported_metrics() -> set[str]:
    """Returns the names of all metrics: of a batch, of a run, and of luigid."""
    row: Any = dict.fromkeys(BatchRow.__dataclass_fields__)
    row |= {"batch_date": datetime.date(2026, 1, 31), "threshold": 0.5, "model_version": 1}
    parts = [batch_metrics(BatchRow(**row), None), run_metrics(Alerts(), False, 1.0)]
    text = b"".join(generate_latest(part) for part in parts) + PrometheusMetricsCollector().generate_latest()
    return set(re.findall(r"^# TYPE (\w+)", text.decode(), re.MULTILINE))


def find_metrics(expressions: list[str]) -> set[str]:
    return {name for expression in expressions for name in re.findall(r"\b(?:spamscore|luigi)_\w+", expression)}


def test_rules_and_dashboard_name_only_metrics_that_a_night_or_luigid_exports() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "spamscore.json").read_text(encoding="utf-8"))
    shown = find_metrics([target["expr"] for panel in dashboard["panels"] for target in panel["targets"]])
    in_rules = find_metrics([rule["expr"] for rule in read_rules()])
    assert in_rules <= exported_metrics()
    assert shown <= exported_metrics()
    # A rule or a panel uses every metric, except the one that counts the tasks that luigid started.
    assert {name for name in exported_metrics() if not name.endswith("_created")} - shown - in_rules <= {
        "luigi_task_started_total"
    }


def test_the_alert_kinds_that_the_rules_name_exist() -> None:
    kinds = re.findall(r'kind="(\w+)"', RULES.read_text(encoding="utf-8"))
    assert kinds
    assert set(kinds) <= set(KINDS)


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "spamscore.json").read_text(encoding="utf-8"))
    occupied: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        position = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(position["x"], position["x"] + position["w"])
            for y in range(position["y"], position["y"] + position["h"])
        }
        assert not cells & occupied, panel["title"]
        assert max(x for x, _ in cells) < 24
        occupied |= cells


# docs/operations.md


def find_paragraph(pattern: str) -> str:
    match = re.search(pattern, OPERATIONS, re.MULTILINE | re.DOTALL)
    return match[1] if match else ""


@pytest.mark.parametrize("code", [exit_code.code for exit_code in reference_pages.luigi_codes()])
def test_operations_has_a_paragraph_for_each_exit_code_of_the_reference(code: int) -> None:
    assert len(find_paragraph(rf"^### Exit code {code}\n\n(.*?)\n\n")) > 40


def test_operations_names_only_exit_codes_of_the_reference() -> None:
    codes = {int(code) for code in re.findall(r"^### Exit code (\d+)$", OPERATIONS, re.MULTILINE)}
    assert codes == {exit_code.code for exit_code in reference_pages.luigi_codes()} >= {0, 10, 30, 50}


@pytest.mark.parametrize("name", [rule["alert"] for rule in read_rules()])
def test_operations_has_a_paragraph_for_each_alert_rule(name: str) -> None:
    assert len(find_paragraph(rf"^### {name}\n\n(.*?)(?:\n\n|\Z)")) > 20


@pytest.mark.parametrize("kind", KINDS)
def test_operations_has_a_paragraph_for_each_kind_of_alert(kind: str) -> None:
    assert len(find_paragraph(rf"^\*\*{kind}\*\* \(mail, webhook\): (.*?)\n\n")) > 10


def test_operations_names_only_alerts_of_the_rules() -> None:
    part = OPERATIONS[OPERATIONS.index("## Alerts of Prometheus") :]
    assert set(re.findall(r"^### (\w+)$", part, re.MULTILINE)) == {rule["alert"] for rule in read_rules()}


def test_nightly_cfg_has_no_password() -> None:
    parser = configparser.RawConfigParser()
    parser.read(DEPLOY / "nightly.cfg", encoding="utf-8")
    assert not [key for section in parser.sections() for key in parser.options(section) if re.search("pass|token", key)]
