"""Runs the recipes of the pages: those of "My file is not read" on files as other programs write them, and Python code.

The commands of the pages are run by test_commands.py.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from chain import DATE, SMALL, environment, luigi
from doc_pages import ROOT, Block, blocks

PYTHON = [block for block in blocks() if block.language == "python"]
CONTINUE_TRAINING = "docs/how-to/continue-training.md"

BACKUP = """<?xml version='1.0' encoding='UTF-8' standalone='yes' ?>
<!--File Created By SMS Backup & Restore v10.20.002 on 01/02/2026 08:00:00-->
<?xml-stylesheet type="text/xsl" href="sms.xsl"?>
<smses count="3" backup_set="2f3a" backup_date="1769932800000" type="full">
  <sms protocol="0" address="+15550100" date="1769853600000" type="1" subject="null" toa="null"
       body="WIN &#55356;&#57217; now &amp; here" sc_toa="null" service_center="null" read="1"
       status="-1" readable_date="31 Jan 2026 10:00:00" />
  <mms date="1769857200000" address="+15550101" msg_box="1"><parts>
    <part seq="0" ct="application/smil" text="&lt;smil/&gt;" /><part seq="0" ct="text/plain" text="See you at six" />
  </parts></mms>
  <sms protocol="0" address="+15550102" date="1767000000000" type="1" body="of another date" />
</smses>
"""
KAGGLE = 'v1,v2,,,\r\nham,"Go until jurong point, crazy..",,,\r\nspam,You have WON a £900 prize!,,,\r\n'


def _recipe(section: str) -> str:
    """Returns the settings of a recipe: the block on the page that has the section."""
    (text,) = (
        block.text
        for block in blocks()
        if block.page == "docs/how-to/file-not-read.md" and block.language == "ini" and f"[{section}]" in block.text
    )
    return text


@pytest.mark.parametrize("timezone", ["UTC", "Europe/Berlin"])
def test_the_recipe_reads_a_backup_of_sms_backup_and_restore(tmp_path: Path, timezone: str) -> None:
    (tmp_path / "sms-20260201080000.xml").write_text(BACKUP, encoding="utf-8")
    (tmp_path / "luigi.cfg").write_text(f"{_recipe('messages')}\ntimezone = {timezone}\n", encoding="utf-8")
    done = luigi(tmp_path, "ExtractMessages", "--date", DATE)
    assert done.code == 0, done.output
    (snapshot,) = tmp_path.glob(f"artifacts/snapshots/{DATE}/*/messages.parquet")
    rows = pq.read_table(snapshot).to_pylist()
    assert [(row["message_id"], row["text"], row["fault"]) for row in rows] == [
        ("1", "WIN 🎁 now & here", None),
        ("2", "See you at six", None),
    ]


def test_the_recipe_reads_the_spam_csv_of_kaggle_and_the_default_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "spam.csv").write_bytes(KAGGLE.encode("cp1252"))
    (tmp_path / "luigi.cfg").write_text(_recipe("corpus"), encoding="utf-8")
    done = luigi(tmp_path, "IngestCorpus")
    assert done.code == 0, done.output
    (corpus,) = tmp_path.glob("artifacts/corpus/*/corpus.parquet")
    assert pq.read_table(corpus, columns=["label", "text"]).to_pylist() == [
        {"label": "ham", "text": "Go until jurong point, crazy.."},
        {"label": "spam", "text": "You have WON a £900 prize!"},
    ]
    without = _recipe("corpus").replace("encoding = cp1252\n", "")
    (tmp_path / "luigi.cfg").write_text(without, encoding="utf-8")
    refused = luigi(tmp_path, "IngestCorpus")
    assert refused.code == 30
    assert "cp1252" in refused.last_line


def run_python(code: str, folder: Path) -> str:
    """Runs a block of Python in a new process and returns its output."""
    variables = environment(PYTHONPATH=str(ROOT), TF_CPP_MIN_LOG_LEVEL="3")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "block", [block for block in PYTHON if block.page != CONTINUE_TRAINING], ids=lambda block: f"line {block.line}"
)
def test_the_python_code_of_a_page_runs_beside_the_artifacts(block: Block, trained: Path) -> None:
    assert run_python(block.text, trained).strip()


def test_saved_model_and_keras_file_give_the_same_probabilities(trained: Path) -> None:
    codes = [block.text for block in PYTHON if "You have WON" in block.text and block.page == "docs/how-to/own-code.md"]
    (served, loaded) = (
        [float(number) for number in re.findall(r"[\d.]+(?:e-\d+)?", run_python(code, trained))] for code in codes
    )
    assert len(served) == 2
    np.testing.assert_allclose(served, loaded, rtol=0, atol=1e-5)


def test_the_vectors_of_another_program_are_a_start(trained: Path) -> None:
    (code,) = [block.text for block in PYTHON if block.page == CONTINUE_TRAINING]
    assert "embedding_size = 48" in code
    run_python(code.replace("48", SMALL["network"]["embedding_size"]), trained)
    (recipe,) = [
        block.text
        for block in blocks()
        if block.page == CONTINUE_TRAINING and block.language == "ini" and "vectors.npz" in block.text
    ]
    options = [
        word
        for key, value in re.findall(r"^(\w+) = (.+)$", recipe, re.MULTILINE)
        for word in (f"--training-{key.replace('_', '-')}", value)
    ]
    done = luigi(trained, "TrainModel", *options)
    assert done.code == 0, done.output
    assert "starting from vectors.npz: 1 of" in done.output
    assert "it may know messages of the validation and the test part" in done.last_line
