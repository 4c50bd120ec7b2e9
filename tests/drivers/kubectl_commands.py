"""Checks commands of kubectl without an API server: verbs, options, files, and the objects of deploy/kubernetes."""

from __future__ import annotations

import copy
import functools
import re
import shlex
from typing import Any

import kubernetes_validate
import yaml
from doc_pages import ROOT, blocks
from manifests import kubectl, render

# Verbs whose next words belong to them.
_LONGER_VERBS = {"create job": 2, "create secret": 3, "rollout": 2, "set": 2}
# Verbs that take the type and the name of an object as two words.
_TYPE_AND_NAME = ("describe", "delete", "patch")
_OVERLAY = "production"


def check(command: str, page: str) -> None:
    """Checks each command of a pipe.

    Args:
        command: as on the page.
        page: its Jobs exist too, once a command of the page has created them.
    """
    for part in command.split(" | "):
        words = shlex.split(part)
        assert words.pop(0) == "kubectl"
        if words[0] == "-n":
            assert words[1] == "spamscore"
            words = words[2:]
        length = next((count for start, count in _LONGER_VERBS.items() if " ".join(words).startswith(start)), 1)
        verb, arguments = words[:length], words[length:]
        for option in (word.partition("=")[0] for word in arguments if word.startswith("--")):
            assert re.search(rf"^ +(-\w, )?{option}=", _help(*verb), re.MULTILINE), f"kubectl {verb} has no {option}"
        _check_names(verb[0], arguments, page)


@functools.cache
def _help(*verb: str) -> str:
    return kubectl(*verb, "--help")


def _check_names(verb: str, arguments: list[str], page: str) -> None:
    for argument in arguments:
        value = argument.partition("=")[2] or argument
        if value.startswith("deploy/"):
            assert (ROOT / value).exists(), value
        elif match := re.fullmatch(r"([a-z]+)/([a-z-]+)", value):
            _find(match[1], match[2], page)
    plain = [argument for argument in arguments if not argument.startswith("--")]
    if verb in _TYPE_AND_NAME and len(plain) == 2:
        found = _find(*plain, page)
        for argument in arguments:
            if argument.startswith("--patch="):
                _check_patch(found, yaml.safe_load(argument.removeprefix("--patch=")))


def _find(kind: str, name: str, page: str) -> dict[str, Any]:
    """Returns an object of the overlay; an empty one for a Job that the page creates."""
    if kind == "job":
        commands = [command for block in blocks() if block.page == page for command in block.commands]
        assert any(f" create job {name} " in command for command in commands), name
        return {}
    (found,) = [
        manifest
        for manifest in render(_OVERLAY)
        if (manifest["kind"].lower(), manifest["metadata"]["name"]) == (kind, name)
    ]
    return found


def _check_patch(manifest: dict[str, Any], patch: dict[str, Any]) -> None:
    changed = copy.deepcopy(manifest)
    for key, value in patch["spec"].items():
        assert type(changed["spec"].get(key, value)) is type(value)
        changed["spec"][key] = value
    kubernetes_validate.validate(changed, kubernetes_validate.latest_version(), strict=True)
