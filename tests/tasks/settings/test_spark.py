"""The settings of the Spark engine."""

from __future__ import annotations

from typing import Any

import pytest

from models.errors import SettingsError
from tasks.settings.spark import SparkSettings


@pytest.mark.parametrize(
    "master",
    ["local", "local[*]", "local[3]", "spark://host:7077", "spark://a:1,b:2", "k8s://https://host:443", "yarn"],
)
def test_a_master_has_one_of_the_forms_of_spark(master: str) -> None:
    assert SparkSettings(master=master).is_local == master.startswith("local")


@pytest.mark.parametrize(
    "master", ["", "host:7077", "spark://host", "local[0]", "local[-1]", "mesos://host:5050", "yarn-client"]
)
def test_another_master_is_refused(master: str) -> None:
    with pytest.raises(SettingsError, match=r"\[spark\] master = .*expected spark://host:port"):
        SparkSettings(master=master)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", {}),
        ("spark.a=1", {"spark.a": "1"}),
        ("spark.a=1  spark.b=x=y\nspark.a=2", {"spark.a": "2", "spark.b": "x=y"}),
        ("spark.a='two words' spark.b=", {"spark.a": "two words", "spark.b": ""}),
    ],
)
def test_options_are_names_and_values_separated_by_spaces(options: str, expected: dict[str, Any]) -> None:
    assert SparkSettings(options=options).parse_options() == expected


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("spark.a", r"spark\.a: expected spark\.name=value"),
        ("executor.cores=1", r"executor\.cores: expected spark\.name=value"),
        ("spark.a='open", "No closing quotation"),
        (
            "spark.executorEnv.SPAMSCORE_DATABASE_URL=postgresql://u:secret@h/d",
            "Spark shows this value on its web page",
        ),
    ],
)
def test_an_option_that_spark_cannot_use_or_would_show_is_refused_without_its_value(options: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason) as raised:
        SparkSettings(options=options)
    assert "secret" not in str(raised.value)
