"""`spamscore config`."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from luigi.configuration import LuigiConfigParser
from spamscore_command import (
    get_error,
    get_output,
    get_rows,
    run,
    run_process,
)

from models.settings import declared_settings
from pipeline.answers import configuration
from tasks.scheduler.luigi_defaults import LUIGI_DEFAULTS
from tasks.settings.sections import SECTIONS


def test_config_lists_every_setting_with_its_source(folder: Path) -> None:
    listed = [row[:2] for row in get_rows("config")]
    project = [
        [section, setting.key] for section, cls in SECTIONS.items() for setting in declared_settings(section, cls)
    ]
    assert listed[: len(project)] == project
    assert [[section, key] for section, keys in LUIGI_DEFAULTS.items() for key in keys] == listed[len(project) :]
    assert ["scoring", "threshold", "auto", "default"] in get_rows("config", "scoring")
    description = (
        "spam probability from which a message is flagged; auto computes it from held-out scores and ham_blocked_share"
    )
    assert [row[4] for row in get_rows("config", "scoring", "--long") if row[1] == "threshold"] == [description]
    assert set(json.loads(get_output("config", "--json"))[0]) == {
        "section",
        "key",
        "value",
        "source",
        "default",
        "description",
    }


def test_config_shows_the_source_of_each_value(folder: Path) -> None:
    (folder / "luigi.cfg").write_text(
        "[scoring]\nthreshold = 0.7\nchunk-size = 9\n[corpus]\nquery = SELECT '50%',\n  label\n"
        "[email]\nreceiver = a@b.example\n"
        "[smtp]\npassword = hunter2\n[metrics]\npushgateway = http://me:hunter2@push:9091\n"
        "[database]\nurl = sqlite:///other.db\n[core]\nlog_level = DEBUG\n"
    )
    environment = {
        **os.environ,
        "SPAMSCORE_CORPUS_URL": "postgresql://me:hunter2@host/db?password=hunter2",
        "SPAMSCORE_ALERTS_WEBHOOK_URL": "https://chat.internal/hooks/hunter2",
    }
    result = run_process("config", cwd=folder, env=environment)
    assert (result.returncode, result.stderr) == (0, "")
    settings = {tuple(line.split("\t")[:2]): line.split("\t")[2:] for line in result.stdout.splitlines()}
    assert settings["scoring", "threshold"] == ["0.7", "luigi.cfg"]
    assert settings["scoring", "chunk_size"] == ["9", "luigi.cfg"]
    assert settings["scoring", "batch_size"] == ["auto", "default"]
    assert settings["corpus", "query"] == ["SELECT '50%',\\nlabel", "luigi.cfg"]
    assert settings["corpus", "url"] == ["postgresql://me:***@host/db?password=***", "SPAMSCORE_CORPUS_URL"]
    assert settings["alerts", "webhook_url"] == ["https://chat.internal/…", "SPAMSCORE_ALERTS_WEBHOOK_URL"]
    assert settings["metrics", "pushgateway"][0] == "http://me:***@push:9091"
    assert settings["database", "url"] == ["sqlite:///other.db", "luigi.cfg"]
    assert settings["core", "log_level"] == ["DEBUG", "luigi.cfg"]
    assert settings["email", "receiver"] == ["a@b.example", "luigi.cfg"]
    assert settings["smtp", "password"] == ["***", "luigi.cfg"]


@pytest.mark.parametrize("options", [[], ["--json"], ["--long"]], ids=["plain", "json", "long"])
def test_passwords_are_masked(folder: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]) -> None:
    monkeypatch.setenv("SPAMSCORE_DATABASE_URL", "postgresql://me:p%40ss-word@localhost:1/scores")
    output = get_output("config", "database", *options)
    assert "postgresql://me:***@localhost:1/scores" in output
    assert "SPAMSCORE_DATABASE_URL" in output
    assert "ss-word" not in output
    for command in (["--debug", "batches"], ["summary"]):
        result = run(*command)
        assert result.exit_code == 35
        assert "ss-word" not in result.output
        assert "me:***@localhost" in result.output


def test_an_error_for_an_unknown_section_lists_the_sections(folder: Path) -> None:
    assert "[scores]: no such section. Sections are artifacts, database, corpus" in get_error(2, "config", "scores")


def test_the_default_file_has_every_setting_at_its_default(folder: Path) -> None:
    text = get_output("config", "--defaults")
    parser = LuigiConfigParser()
    parser.read_string(text)
    assert parser.sections() == [*SECTIONS, *LUIGI_DEFAULTS]
    for section, settings_class in SECTIONS.items():
        settings = declared_settings(section, settings_class)
        assert parser.options(section) == [setting.key for setting in settings]
        for setting in settings:
            assert setting.parse(parser.get(section, setting.key)) == setting.default
            assert setting.rule.description in re.sub(r"\n# ", " ", text)
    for section, keys in LUIGI_DEFAULTS.items():
        assert dict(parser.items(section)) == keys
        assert set(configuration._LUIGI_DESCRIPTIONS[section]) == set(keys)


def test_luigi_reads_the_default_file(folder: Path) -> None:
    (folder / "luigi.cfg").write_text(get_output("config", "--defaults"))
    result = run_process("config", "--json", cwd=folder)
    settings = json.loads(result.stdout)
    assert {setting["source"] for setting in settings} == {"luigi.cfg"}
    assert [setting["key"] for setting in settings if setting["value"] != setting["default"]] == []
