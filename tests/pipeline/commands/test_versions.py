"""`spamscore models` and `serve`."""

from __future__ import annotations

import json
import re
from pathlib import Path

from spamscore_command import (
    Terminal,
    export_version,
    get_error,
    get_output,
    get_rows,
    run,
    strip_styles,
)

from tasks.artifacts.folders import write_json


def test_models_lists_the_versions_with_their_metrics_and_marks_the_one_in_service(folder: Path) -> None:
    overruled = {"threshold": {"value": 0.801326}, "judged": {"approved": False, "reasons": ["why"]}}
    export_version(folder, 9, "t9", {"pr_auc": 0.98765, "mcc": 0.9}, **overruled)
    export_version(folder, 10, "t10")
    exported_at = "2026-01-31T02:05:06+00:00"
    assert get_rows("models") == [
        ["10", "true", exported_at, "", "", "t10", ""], ["9", "false", exported_at, "0.98765", "0.9", "t9", "0.801326"],
    ]  # fmt: skip
    versions = json.loads(get_output("models", "--json"))
    assert [(version["pr_auc"], version["approved"]) for version in versions] == [(None, None), (0.98765, False)]
    write_json(folder / "artifacts" / "exports" / "spam_ham" / "service.json", {"version": 9, "newest": 10})
    assert [line[1] for line in get_rows("models")] == ["false", "true"]
    code, screen = Terminal("models").wait()
    assert code == 0
    assert re.search(r"9 +in service +2026-01-31 02:05 +0.9877 +0.9000 +t9 +0.801326", strip_styles(screen))


def test_without_a_model_a_note_names_the_command_to_export_one(folder: Path) -> None:
    result = run("models")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "luigi --module pipeline ExportModel" in result.stderr
    assert "luigi --module pipeline ExportModel" in get_error(1, "text", "hello")


def test_an_older_version_stays_in_service_until_a_newer_one_is_exported(folder: Path) -> None:
    for version in (1, 2):
        export_version(folder, version, "t", checkpoints=version == 1)
    output = get_output("serve", "1", "--yes")
    assert output == "version 1 is in service until a newer one is exported; before, it was version 2\n"
    assert [line[:2] for line in get_rows("models")] == [["2", "false"], ["1", "true"]]
    assert get_output("serve", "1") == "version 1 is in service already\n"
    assert get_output("serve", "2", "--yes").endswith("before, it was version 1\n")
    get_output("serve", "1", "--yes")
    export_version(folder, 3, "t")
    assert get_rows("models")[0][:2] == ["3", "true"]


def test_a_version_without_checkpoints_is_not_put_in_service(folder: Path) -> None:
    assert "there are: none" in get_error(1, "serve", "1", "--yes")
    export_version(folder, 1, "t1", checkpoints=True)
    export_version(folder, 2, "t2")
    assert "model version 7: not in artifacts/exports/spam_ham; there are: 1, 2" in get_error(1, "serve", "7", "--yes")
    assert "the checkpoints of version 2 are missing" in get_error(1, "serve", "2", "--yes")
    assert not (folder / "artifacts" / "exports" / "spam_ham" / "service.json").exists()
    assert run("serve", "0").exit_code == 2
    for words in ([], ["1", "--refused"]):
        result = run("serve", *words)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "expected either VERSION or --refused" in result.stderr
