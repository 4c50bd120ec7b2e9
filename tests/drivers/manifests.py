"""Renders the overlays of deploy/kubernetes with kustomize, and finds the parts of their objects."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from missing import skip_or_fail

KUBERNETES = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes"
OVERLAYS = ("local", "production", "load-balancer", "spark")
# Components and `labels` need it. kubectl 1.27 was the first release with kustomize 5.
_LEAST_KUSTOMIZE = 5

Manifest = dict[str, Any]


def kubectl(*arguments: str | Path, stdin: str | None = None) -> str:
    """Returns the output of kubectl. Skips the test if kubectl is missing or too old, or fails it with CI set."""
    if problem := _find_problem():
        skip_or_fail(problem)
    done = subprocess.run(["kubectl", *arguments], input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def _find_problem() -> str:
    if shutil.which("kubectl") is None:
        return "kubectl is not installed: apt-get install kubernetes-client (Debian 13)"
    done = subprocess.run(["kubectl", "version", "--client"], capture_output=True, text=True, check=False)
    found = re.search(r"^Kustomize Version: v(\d+)", done.stdout, re.MULTILINE)
    if not found or int(found[1]) < _LEAST_KUSTOMIZE:
        return f"kubectl: expected kustomize {_LEAST_KUSTOMIZE} or later, received {done.stdout or done.stderr}"
    return ""


@functools.cache
def render_text(overlay: str) -> str:
    """Returns the objects of an overlay as kustomize writes them."""
    return kubectl("kustomize", KUBERNETES / "overlays" / overlay)


@functools.cache
def render(overlay: str) -> tuple[Manifest, ...]:
    """Returns the objects of an overlay, in the order of kustomize."""
    return tuple(yaml.safe_load_all(render_text(overlay)))


def of_kind(overlay: str, *kinds: str) -> list[Manifest]:
    """Returns the objects of some kinds."""
    return [manifest for manifest in render(overlay) if manifest["kind"] in kinds]


def find(overlay: str, kind: str, name: str) -> Manifest:
    """Returns an object by its name; a ConfigMap by its name without the hash."""
    (found,) = [
        manifest
        for manifest in of_kind(overlay, kind)
        if re.sub(r"-[a-z0-9]{10}$", "", manifest["metadata"]["name"]) == name or manifest["metadata"]["name"] == name
    ]
    return found


def job_spec(manifest: Manifest) -> Manifest:
    """Returns the specification of the Jobs of a CronJob."""
    return dict(manifest["spec"]["jobTemplate"]["spec"])


def pod_template(manifest: Manifest) -> Manifest:
    """Returns the pod template of a Deployment or CronJob, or a Pod itself."""
    if manifest["kind"] == "Pod":
        return manifest
    return dict(job_spec(manifest)["template"] if manifest["kind"] == "CronJob" else manifest["spec"]["template"])


def read_executor() -> Manifest:
    """Returns the template of the pods of Spark's executors."""
    return dict(yaml.safe_load((KUBERNETES / "components" / "spark" / "executor.yaml").read_text(encoding="utf-8")))


def pod_templates(overlay: str) -> dict[str, Manifest]:
    """Returns the pod templates of an overlay by the name of their object."""
    found = {
        manifest["metadata"]["name"]: pod_template(manifest) for manifest in of_kind(overlay, "Deployment", "CronJob")
    }
    return found | ({"executor": read_executor()} if overlay == "spark" else {})


def container(template: Manifest) -> Manifest:
    """Returns the only container of a pod template."""
    (only,) = template["spec"]["containers"]
    return dict(only)


def matches(selector: Manifest, labels: dict[str, str]) -> bool:
    """Returns whether labels match a selector with `matchLabels`, and `matchExpressions` with the operator In."""
    pairs = selector.get("matchLabels", {}).items()
    expressions = selector.get("matchExpressions", [])
    assert all(expression["operator"] == "In" for expression in expressions)
    return all(labels.get(key) == value for key, value in pairs) and all(
        labels.get(expression["key"]) in expression["values"] for expression in expressions
    )


def walk(value: Any, key: str) -> Iterator[Any]:
    """Yields every value of a key, at any depth."""
    if isinstance(value, dict):
        for name, part in value.items():
            if name == key:
                yield part
            yield from walk(part, key)
    elif isinstance(value, list):
        for part in value:
            yield from walk(part, key)


def check_restricted(template: Manifest) -> None:
    """Checks the rules of the Pod Security Standard "restricted", and a read-only root file system."""
    spec, only = template["spec"], container(template)
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & spec.keys()
    security = spec["securityContext"]
    assert (security["runAsNonRoot"], security["runAsUser"], security["runAsGroup"]) == (True, 10001, 10001)
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert only["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}
    }  # fmt: skip
    kinds = {key for volume in spec["volumes"] for key in volume if key != "name"}
    assert kinds <= {"configMap", "emptyDir", "persistentVolumeClaim", "secret"}
    assert not list(walk(spec, "hostPort"))
