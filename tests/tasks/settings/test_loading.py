"""Secrets from files: `SPAMSCORE_…_FILE` names a file with the value."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from chain import environment, luigi
from doc_pages import reference_pages
from spamscore_command import run_process

SECRET = "hunter2-hunter2"
URL = f"postgresql://scorer:{SECRET}@127.0.0.1:1/spam"
MASKED_URL = "postgresql://scorer:***@127.0.0.1:1/spam"
# A valid value of each setting with an environment variable.
VALUES = {
    "SPAMSCORE_DATABASE_URL": URL,
    "SPAMSCORE_CORPUS_URL": URL,
    "SPAMSCORE_MESSAGES_URL": URL,
    "SPAMSCORE_SERVING_TOKEN": SECRET,
    "SPAMSCORE_API_TOKEN": SECRET,
    "SPAMSCORE_ALERTS_WEBHOOK_URL": f"https://chat.internal/{SECRET}",
    "SPAMSCORE_METRICS_PUSHGATEWAY": f"http://me:{SECRET}@push.internal:9091",
}


def test_every_secret_setting_can_be_given_by_a_file(tmp_path: Path) -> None:
    named = {variable: reference_pages.environment_variable(setting)
             for setting in reference_pages.SETTINGS
             if (variable := reference_pages.environment_variable(setting))}  # fmt: skip
    assert set(named) == set(VALUES)
    variables = {}
    for variable, value in VALUES.items():
        (tmp_path / variable).write_text(f"{value}\n", encoding="utf-8")
        variables[f"{variable}_FILE"] = str(tmp_path / variable)
    by_file = run_process("config", cwd=tmp_path, env=environment(**variables))
    by_variable = run_process("config", cwd=tmp_path, env=environment(**VALUES))
    assert (by_file.returncode, by_file.stderr, by_variable.returncode) == (0, "", 0)
    assert SECRET not in by_file.stdout
    sources = {line.split("\t")[3] for line in by_file.stdout.splitlines()}
    assert sources == {"default", *variables}
    # The same values: the lines differ only in the source.
    assert re.sub(r"(\tSPAMSCORE_\w+?)_FILE\b", r"\1", by_file.stdout) == by_variable.stdout


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"], ids=repr)
def test_line_breaks_at_the_end_of_a_file_do_not_belong_to_the_value(tmp_path: Path, end: str) -> None:
    (tmp_path / "url").write_bytes(f"{URL}{end}".encode())
    done = run_process("config", "database", cwd=tmp_path, env=environment(SPAMSCORE_DATABASE_URL_FILE="url"))
    assert done.stdout.splitlines()[0] == f"database\turl\t{MASKED_URL}\tSPAMSCORE_DATABASE_URL_FILE"


def test_a_link_to_a_file_is_followed_and_a_changed_file_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("first")
    variables = environment(SPAMSCORE_DATABASE_URL_FILE="link")
    for name in ("first", "second"):
        (tmp_path / name).write_text(f"sqlite:///{name}.db\n", encoding="utf-8")
        (tmp_path / "link").unlink()
        (tmp_path / "link").symlink_to(name)
        assert f"sqlite:///{name}.db" in run_process("config", "database", cwd=tmp_path, env=variables).stdout


# What is wrong, and text of the line.
BAD_FILES = [
    ("missing", "SPAMSCORE_DATABASE_URL_FILE = secret: no such file. "),
    ("a folder", "SPAMSCORE_DATABASE_URL_FILE = secret: expected a regular file with the value. "),
    ("a pipe", "SPAMSCORE_DATABASE_URL_FILE = secret: expected a regular file with the value. "),
    ("below a file", "SPAMSCORE_DATABASE_URL_FILE = luigi.cfg/secret: Not a directory. "),
    ("a loop of links", "SPAMSCORE_DATABASE_URL_FILE = secret: Too many levels of symbolic links. "),
    ("empty", "SPAMSCORE_DATABASE_URL_FILE = secret: the file is empty; expected the value in one line. "),
    ("only line breaks", "SPAMSCORE_DATABASE_URL_FILE = secret: the file is empty; expected the value in one line. "),
    ("two lines", "SPAMSCORE_DATABASE_URL_FILE = secret: expected the value in one line, received more than a line. "),
    ("not UTF-8", "SPAMSCORE_DATABASE_URL_FILE = secret: expected UTF-8, received other bytes. "),
    ("huge", "SPAMSCORE_DATABASE_URL_FILE = secret: expected at most 65536 bytes. "),
    ("both set", "SPAMSCORE_DATABASE_URL and SPAMSCORE_DATABASE_URL_FILE: both are set; expected one of them, "),
]
CONTENTS = {
    "empty": b"", "only line breaks": b"\n\r\n", "two lines": f"{URL}\n{URL}\n".encode(),
    "not UTF-8": SECRET.encode() + b"\xff\n", "huge": SECRET.encode() * 5000, "both set": URL.encode(),
}  # fmt: skip


def make_bad_file(folder: Path, fault: str) -> dict[str, str]:
    """Makes the file ``secret`` of a fault in a folder, and returns the environment that names it."""
    path = folder / "secret"
    if fault in CONTENTS:
        path.write_bytes(CONTENTS[fault])
    elif fault == "a folder":
        path.mkdir()
    elif fault == "a pipe":
        os.mkfifo(path)
    elif fault == "a loop of links":
        path.symlink_to("secret")
    (folder / "luigi.cfg").touch()
    value = {"SPAMSCORE_DATABASE_URL": URL} if fault == "both set" else {}
    return {**value, "SPAMSCORE_DATABASE_URL_FILE": "luigi.cfg/secret" if fault == "below a file" else "secret"}


@pytest.mark.parametrize(("fault", "text"), BAD_FILES, ids=[row[0] for row in BAD_FILES])
def test_a_file_that_gives_no_secret_is_one_line_and_stops_the_run_before_any_work(
    tmp_path: Path, fault: str, text: str
) -> None:
    variables = make_bad_file(tmp_path, fault)
    done = run_process("config", cwd=tmp_path, env=environment(**variables))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert done.stderr.startswith(f"spamscore: {text}")
    assert SECRET not in done.stderr
    night = luigi(tmp_path, "IngestCorpus", **variables)
    assert (night.code, night.ran) == (40, set()), night.output
    assert text in night.last_line
    assert SECRET not in night.output
    assert not (tmp_path / "artifacts").exists()


def test_an_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    (tmp_path / "url").write_text(URL, encoding="utf-8")
    for given, empty in (("SPAMSCORE_DATABASE_URL_FILE", ""), ("SPAMSCORE_DATABASE_URL", "_FILE")):
        variables = {"SPAMSCORE_DATABASE_URL" + ("_FILE" if not empty else ""): "url" if not empty else URL}
        variables["SPAMSCORE_DATABASE_URL" + empty] = ""
        done = run_process("config", "database", cwd=tmp_path, env=environment(**variables))
        assert done.stdout.splitlines()[0] == f"database\turl\t{MASKED_URL}\t{given}"


def test_an_unreadable_secret_of_the_mail_server_stops_the_run_before_any_work(tmp_path: Path) -> None:
    done = luigi(tmp_path, "IngestCorpus", SPAMSCORE_SMTP_PASSWORD_FILE="missing")
    assert (done.code, done.ran) == (40, set())
    assert "SPAMSCORE_SMTP_PASSWORD_FILE = missing: no such file. " in done.last_line
