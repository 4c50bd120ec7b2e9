"""Starting Spark: the options of an application, and the errors of a machine without Spark, Java or a master."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest
from spark_cluster import require_spark

from models.errors import ClusterError, SettingsError
from tasks.scoring.spark.context import make_options, open_context
from tasks.settings.spark import SparkSettings


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            SparkSettings(master="spark://h:1", executors=3, cores=4, memory=4096),
            {
                "spark.executor.cores": "4", "spark.task.cpus": "4", "spark.cores.max": "12",
                "spark.executor.instances": "3", "spark.executor.memory": "512m",
                "spark.executor.memoryOverhead": "3584m", "spark.pyspark.python": sys.executable,
            },
        ),
        (SparkSettings(master="local[3]", cores=1), {"spark.task.cpus": "3", "spark.master": "local[3]"}),
        (
            SparkSettings(archive="env.tar.gz"),
            {"spark.archives": "env.tar.gz#environment", "spark.pyspark.python": "./environment/bin/python"},
        ),
        (SparkSettings(archive="a", python="/opt/python"), {"spark.pyspark.python": "/opt/python"}),
        (SparkSettings(options="spark.executor.memory=2g spark.x=1"), {"spark.executor.memory": "2g", "spark.x": "1"}),
    ],
)  # fmt: skip
def test_settings_become_options_of_spark(settings: SparkSettings, expected: dict[str, str]) -> None:
    options = make_options(settings, "name")
    assert {key: options[key] for key in expected} == expected


def test_without_java_one_line_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SettingsError, match=r"Java is not installed: no java is in PATH\. Install Java 17 or 21"):
        open_context(SparkSettings(), "name", {})
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(SettingsError, match=r"JAVA_HOME = .* has no bin/java"):
        open_context(SparkSettings(), "name", {})


def test_without_pyspark_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\n")
    java.chmod(0o755)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with pytest.raises(SettingsError, match=r"pyspark is not installed\. Install it: pip install 'spamscore\[spark\]'"):
        open_context(SparkSettings(), "name", {})


def test_a_master_that_does_not_answer_is_named_at_once() -> None:
    require_spark()
    with socket.socket() as bound:  # a port on which nothing listens
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        with pytest.raises(ClusterError, match=rf"cannot be reached: 127\.0\.0\.1:{port}: Connection refused"):
            open_context(SparkSettings(master=f"spark://127.0.0.1:{port}"), "name", {})
