"""Tells whether the driver and an executor run the same software: other versions may give other scores."""

from __future__ import annotations

import functools
import hashlib
import platform
from importlib import metadata
from pathlib import Path

from models.errors import ClusterError

_ROOT = Path(__file__).resolve().parents[3]
_SOURCES = ("models", "tasks")
# The packages that compute a score, and those whose data cross between driver and executor.
_PACKAGES = ("tensorflow", "keras", "numpy", "numba", "pyarrow")


@functools.cache
def describe_software() -> dict[str, str]:
    """Returns the versions of Python and of the packages that compute scores, and a hash of this program's modules."""
    versions = {package: metadata.version(package) for package in _PACKAGES}
    python = ".".join(platform.python_version_tuple()[:2])
    return {"spamscore (hash of its modules)": _hash_modules(), "Python": python, **versions}


def _hash_modules() -> str:
    digest = hashlib.sha256()
    for folder in _SOURCES:
        for path in sorted((_ROOT / folder).rglob("*.py")):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(_ROOT)} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def require_same_software(driver: dict[str, str]) -> None:
    """Checks that this process runs the software of the driver.

    Args:
        driver: what `describe_software` returned there.

    Raises:
        ClusterError: they differ; names both versions of each package that differs.
    """
    executor = describe_software()
    differences = [
        f"{name}: expected {version} as on the driver, received {executor.get(name)}"
        for name, version in driver.items()
        if executor.get(name) != version
    ]
    if differences:
        raise ClusterError(
            f"executor on {platform.node()}: its software differs from the driver's, so its scores could too. "
            f"{'; '.join(differences)}. Install the same versions on all machines, or send them: [spark] archive."
        )
