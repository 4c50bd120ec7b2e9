"""Reads and writes `models.config`: the versions that TensorFlow Serving loads, and which of them is in service.

TensorFlow Serving polls the file, and every other part of the program reads the version in service from it, so all of
them follow one file. It is a `ModelServerConfig` in protobuf text format (tensorflow_serving/config). This module reads
exactly what it writes.

The server moves an existing label only to a version that it has loaded. If the version is not loaded, the server
rejects the whole file, and then does not load the version either. So the file also lists the next version: the server
loads it as soon as it is exported, and by the next poll the label can move.
"""

from __future__ import annotations

import dataclasses
import os
import re
from dataclasses import dataclass
from pathlib import Path

from models.errors import ArtifactError
from tasks.settings.loading import load
from tasks.settings.serving import ServingSettings
from tasks.settings.storage import ArtifactSettings

MODEL_CONFIG, BATCHING_CONFIG, MONITORING_CONFIG = "models.config", "batching.config", "monitoring.config"
STABLE, CANARY = "stable", "canary"

_HEADER = "# Written by spamscore, and read by TensorFlow Serving. To change the version in service: spamscore serve\n"
_LABEL = '    version_labels {{\n      key: "{label}"\n      value: {version}\n    }}\n'
_VERSION = "        versions: {version}\n"
_MODEL = """\
model_config_list {{
  config {{
    name: "{name}"
    base_path: "{base_path}"
    model_platform: "tensorflow"
    model_version_policy {{
      specific {{
{versions}      }}
    }}
{labels}  }}
}}
"""
_FORM = re.compile(
    re.escape(_HEADER)
    + re.escape(_MODEL.replace("{{", "{").replace("}}", "}"))
    .replace(r"\{name\}", r"[\w.-]+")
    .replace(r"\{base_path\}", '[^"\n]+')
    .replace(r"\{versions\}", r"((?:        versions: [1-9]\d{0,17}\n)+)")
    .replace(
        r"\{labels\}",
        '    version_labels \\{\n      key: "stable"\n      value: ([1-9]\\d{0,17})\n    \\}\n'
        '(?:    version_labels \\{\n      key: "canary"\n      value: ([1-9]\\d{0,17})\n    \\}\n)?',
    )
)
# An operator may tune these two, so they are written only where they are missing.
_INITIAL_FILES = {
    BATCHING_CONFIG: """\
# Requests that arrive within a millisecond share a batch. TensorFlow Serving refuses a request of more messages.
max_batch_size { value: 1024 }
batch_timeout_micros { value: 1000 }
max_enqueued_batches { value: 100 }
""",
    MONITORING_CONFIG: """\
prometheus_config {
  enable: true
  path: "/monitoring/prometheus/metrics"
}
""",
}


@dataclass(frozen=True)
class ServedVersions:
    """The content of `models.config`.

    Attributes:
        stable: version in service.
        canary: candidate that clients can ask for by its label; None for none.
        loaded: versions that the server loads, ascending. The last one does not exist yet.
    """

    stable: int
    canary: int | None
    loaded: tuple[int, ...]

    @property
    def next_version(self) -> int:
        """The version that the next export gets."""
        return self.loaded[-1]


def read_model_config(folder: Path) -> ServedVersions | None:
    """Reads `models.config` of a folder of exports; None if there is none.

    Raises:
        ArtifactError: the file is not as spamscore writes it.
    """
    path = folder / MODEL_CONFIG
    try:
        match = _FORM.fullmatch(path.read_text(encoding="utf-8", errors="replace"))
    except FileNotFoundError:
        return None
    if match is None:
        raise ArtifactError(
            f"{path}: expected the file as spamscore writes it, received another: changed by hand? Delete it, and then "
            "choose the version again: spamscore serve VERSION"
        )
    listed, stable, canary = match.groups()
    return ServedVersions(int(stable), int(canary) if canary else None, tuple(map(int, re.findall(r"\d+", listed))))


def write_model_config(folder: Path, served: ServedVersions) -> None:
    """Writes `models.config` atomically, and the files for batching and monitoring if they are missing.

    Args:
        folder: the folder of the exported versions.
        served: the new content.
    """
    labels = {STABLE: served.stable, CANARY: served.canary}
    content = _HEADER + _MODEL.format(
        name=load(ArtifactSettings).model_name,
        base_path=load(ServingSettings).base_path or str(folder.resolve()),
        versions="".join(_VERSION.format(version=version) for version in served.loaded),
        labels="".join(_LABEL.format(label=label, version=version) for label, version in labels.items() if version),
    )
    for name, initial in _INITIAL_FILES.items():
        if not (folder / name).exists():
            _write_atomically(folder / name, initial)
    _write_atomically(folder / MODEL_CONFIG, content)


def serve_versions(exported: list[int], stable: int, canary: int | None, also: tuple[int, ...] = ()) -> ServedVersions:
    """Chooses the versions that the server loads: the newest ones, those with a label, and the next one.

    Args:
        exported: all exported versions, ascending.
        stable: version in service.
        canary: candidate; None for none. The version in service is not a candidate at the same time.
        also: more versions to load.
    """
    newest = exported[-load(ServingSettings).keep_loaded :]
    labelled = [version for version in (stable, canary) if version]
    loaded = sorted({*newest, *labelled, *also, exported[-1] + 1})
    return ServedVersions(stable, None if canary == stable else canary, tuple(loaded))


def list_more(served: ServedVersions, version: int) -> ServedVersions:
    """Returns the same content with one more version to load."""
    return dataclasses.replace(served, loaded=tuple(sorted({*served.loaded, version})))


def _write_atomically(path: Path, content: str) -> None:
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(content, encoding="utf-8")
    os.replace(temporary, path)
