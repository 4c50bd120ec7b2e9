"""Which machine of a training on several machines this one is: from [training] workers, or from TF_CONFIG."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.errors import SettingsError
from models.settings import TrainingSettings

_VARIABLE = "TF_CONFIG"
_ADDRESS = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):(\d{1,5})\Z")


@dataclass(frozen=True)
class Membership:
    """The machines of a training.

    Attributes:
        addresses: host and port of each worker. The first one, the chief, writes the result.
        worker: number of this machine, from 0.
    """

    addresses: tuple[str, ...]
    worker: int

    def describe(self, worker: int) -> str:
        """Returns the name of a worker for messages: ``worker 1 (host:2222)``."""
        return f"worker {worker} ({self.addresses[worker]})"


def read_membership(settings: TrainingSettings, environment: Mapping[str, str]) -> Membership | None:
    """Returns the machines of the training, or None if this machine trains alone.

    Args:
        settings: the [training] section. Its `workers` take precedence over TF_CONFIG.
        environment: the environment variables. TF_CONFIG has the form that TensorFlow reads and operators of
            Kubernetes set.

    Raises:
        SettingsError: an address or number cannot be used.
    """
    if settings.workers.strip():
        addresses = tuple(part.strip() for part in settings.workers.split(","))
        source, worker = f"[training] workers = {settings.workers}", settings.worker
    elif environment.get(_VARIABLE):
        source = f"{_VARIABLE} = {environment[_VARIABLE]}"
        addresses, worker = _parse_variable(environment[_VARIABLE], source)
    elif settings.worker:
        raise SettingsError(
            f"[training] worker = {settings.worker}: expected 0, because [training] workers is empty. Set workers to "
            "host:port of each machine, separated by commas."
        )
    else:
        return None
    for address in addresses:
        match = _ADDRESS.match(address)
        if match is None or not 0 < int(match[1]) < 2**16:
            raise SettingsError(f"{source}: expected host:port for each worker, received {address!r}.")
    if len(set(addresses)) < len(addresses):
        raise SettingsError(f"{source}: expected a different address for each worker.")
    if worker >= len(addresses):
        raise SettingsError(
            f"[training] worker = {worker}: expected a number from 0 to {len(addresses) - 1}, because {source} names "
            f"{len(addresses)} workers."
        )
    if settings.shards % len(addresses):
        raise SettingsError(
            f"[training] shards = {settings.shards}: expected a multiple of {len(addresses)}, because {source} names "
            f"{len(addresses)} workers. Set shards to a multiple, or to 0 for one shard on each device."
        )
    return Membership(addresses, worker) if len(addresses) > 1 else None


def _parse_variable(text: str, source: str) -> tuple[tuple[str, ...], int]:
    """Reads the addresses and this worker's number from TF_CONFIG. A chief counts as the first worker."""
    example = '{"cluster": {"worker": ["host:2222", …]}, "task": {"type": "worker", "index": 0}}'
    try:
        value: Any = json.loads(text)
        cluster, task = value.get("cluster", {}), value.get("task", {})
        others = sorted(cluster.keys() - {"chief", "worker"})
        chiefs, workers = list(cluster.get("chief", [])), list(cluster.get("worker", []))
        kind, index = str(task.get("type", "worker")), int(task.get("index", 0))
        addresses = tuple(str(address) for address in (*chiefs, *workers))
        worker = index + (len(chiefs) if kind == "worker" else 0)
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise SettingsError(f"{source}: expected JSON such as {example}. Correct or unset it.") from None
    if others or kind not in ("chief", "worker") or index < 0:
        raise SettingsError(
            f"{source}: expected the task types chief and worker, received {', '.join(others) or f'{kind} {index}'}. "
            "Parameter servers and evaluators are not used."
        )
    if not addresses:
        raise SettingsError(f"{source}: expected the addresses of the workers, as in {example}. Correct or unset it.")
    return addresses, worker
