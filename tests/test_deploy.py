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
from missing import skip_or_fail
from prometheus_client import generate_latest

from pipeline import Nightly
from pipeline.api.metrics import Metrics
from tasks.artifacts.model_config import ServedVersions, write_model_config
from tasks.database.batches import BatchRow
from tasks.monitoring.alerts import KINDS, Alerts
from tasks.monitoring.prometheus import batch_metrics, run_metrics

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yml"
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
SCRIPTS = sorted(DEPLOY.glob("serving/*.sh"))
UNITS = sorted([*DEPLOY.glob("*.service"), *DEPLOY.glob("*.timer")])


def run(package: str, *command: str | Path, cwd: Path = ROOT) -> str:
    """Returns the output of a program. Skips the test if the program is not installed, or fails it with CI set."""
    if shutil.which(str(command[0])) is None:
        message = f"{command[0]} is not installed: apt-get install {package}"
        skip_or_fail(message)
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


def front_end_metrics() -> set[str]:
    """Returns the names of the metrics of the front end."""
    return set(re.findall(r"^# TYPE (\w+)", Metrics().render().decode(), re.MULTILINE))


def find_metrics(expressions: list[str]) -> set[str]:
    return {name for expression in expressions for name in re.findall(r"\b(?:spamscore|luigi)_\w+", expression)}


def test_rules_and_dashboard_name_only_metrics_that_are_exported() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "spamscore.json").read_text(encoding="utf-8"))
    shown = find_metrics([target["expr"] for panel in dashboard["panels"] for target in panel["targets"]])
    in_rules = find_metrics([rule["expr"] for rule in read_rules()])
    assert in_rules <= exported_metrics() | front_end_metrics()
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


# deploy/serving


def run_script(name: str, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a script of deploy/serving on a machine with the system's programs alone, and no container engine."""
    return subprocess.run(
        [DEPLOY / "serving" / name, *arguments], capture_output=True, text=True, check=False,
        env={"PATH": "/usr/bin:/bin", "ENGINE": "", **variables},
    )  # fmt: skip


def test_shellcheck_finds_nothing_in_the_scripts() -> None:
    assert len(SCRIPTS) == 3
    assert run("shellcheck", "shellcheck", *SCRIPTS) == ""


@pytest.fixture
def exports(tmp_path: Path, set_settings: Any) -> Path:
    """A folder with the files that an export writes for the server."""
    folder = tmp_path / "spam_ham"
    folder.mkdir()
    write_model_config(folder, ServedVersions(1, None, (1, 2)))
    return folder


FLAGS = (
    "--model_config_file={folder}/models.config --model_config_file_poll_wait_seconds=5 "
    "--file_system_poll_wait_seconds=5 --allow_version_labels_for_unavailable_models=true --enable_batching=true "
    "--batching_parameters_file={folder}/batching.config --monitoring_config_file={folder}/monitoring.config "
    "--rest_api_timeout_in_ms=30000"
)


def make_program(path: Path) -> Path:
    """Writes a program that prints its arguments."""
    path.write_text('#!/bin/sh\necho "$@"\n')
    path.chmod(0o755)
    return path


def test_the_server_is_started_with_the_files_of_the_exports(exports: Path, tmp_path: Path) -> None:
    make_program(tmp_path / "tensorflow_model_server")
    done = run_script(
        "serve.sh", exports, "--num_load_threads=2", PATH=f"{tmp_path}:/usr/bin:/bin", GRPC_PORT="1500", TLS_CONFIG="t"
    )
    flags = f"--port=1500 --rest_api_port=8501 {FLAGS} --ssl_config_file=t --num_load_threads=2\n"
    assert (done.returncode, done.stdout) == (0, flags.format(folder=exports))


def test_the_container_gets_the_folder_at_the_path_that_models_config_has(exports: Path, tmp_path: Path) -> None:
    config = exports / "models.config"
    config.write_text(config.read_text().replace(str(exports), "/models/spam_ham"))
    done = run_script("serve.sh", exports, ENGINE=str(make_program(tmp_path / "podman")))
    assert done.returncode == 0, done.stderr
    assert f" --volume {exports}:/models/spam_ham:ro --entrypoint tensorflow_model_server " in done.stdout
    assert " --publish 127.0.0.1:8500:8500 --publish 127.0.0.1:8501:8501 " in done.stdout
    assert done.stdout.endswith(f"--port=8500 --rest_api_port=8501 {FLAGS}\n".format(folder="/models/spam_ham"))


def test_without_a_server_or_an_export_the_scripts_say_so_in_one_line(exports: Path, tmp_path: Path) -> None:
    empty = tmp_path / "programs"
    empty.mkdir()
    for name in ("bash", "realpath", "dirname", "sed", "env"):
        (empty / name).symlink_to(shutil.which(name) or name)
    path = {"PATH": str(empty)}
    for script, argument, code, words in (
        ("serve.sh", exports, 1, "neither tensorflow_model_server nor podman nor docker is installed"),
        ("serve.sh", tmp_path, 1, "models.config: no such file"),
        ("check-real-server.sh", tmp_path, 3, "NOT CHECKED: there is no tensorflow_model_server"),
    ):
        done = run_script(script, argument, **path)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1), done.stderr
        assert words in done.stderr
