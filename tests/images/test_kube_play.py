"""The pod templates of deploy/kubernetes, run by `podman kube play`: the night with luigid, and the front end.

The templates are those of the CronJob and of the Deployments in the overlay `local`, with its ConfigMaps and claims.
"""

from __future__ import annotations

import base64
import copy
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from chain import SMALL, format_settings
from container_engine import UID, Container, Engine
from eventually import eventually
from manifests import Manifest, find, of_kind, pod_template

OVERLAY = "local"
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
LUIGID = "http://127.0.0.1:8082"


def adapt(template: Manifest) -> Manifest:
    """Returns a pod template with the images of the tests, and without what podman 4.3 does differently.

    podman mounts the whole ConfigMap where a file of it is named (subPath). So Luigi is told the path of the settings.
    It asks probes with curl, which no image has: the tests ask them. It publishes ports, which needs a network.
    """
    template = copy.deepcopy(template)
    (only,) = template["spec"]["containers"]
    only["image"] = f"localhost/{only['image'].split(':')[0]}:test"
    for key in (*PROBES, "ports"):
        only.pop(key, None)
    (mount,) = [mount for mount in only["volumeMounts"] if "subPath" in mount]
    mount["mountPath"] = "/etc/spamscore"
    only.setdefault("env", []).append({"name": "LUIGI_CONFIG_PATH", "value": f"/etc/spamscore/{mount.pop('subPath')}"})
    return template


def join(name: str, *templates: Manifest) -> Manifest:
    """Returns a Pod with the containers of several templates, which reach each other by the name of the Pod."""
    first, *others = [template["spec"] for template in templates]
    volumes = {volume["name"]: volume for spec in (*others, first) for volume in spec["volumes"]}
    assert all(other["securityContext"] == first["securityContext"] for other in others)
    containers = [spec["containers"][0] for spec in (*others, first)]
    spec = {**first, "containers": containers, "volumes": list(volumes.values())}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def read_config_maps() -> list[Manifest]:
    """Returns the ConfigMaps of the overlay, with a small network, and without the dates before yesterday."""
    maps: list[Manifest] = copy.deepcopy(of_kind(OVERLAY, "ConfigMap"))
    (cluster,) = [each["data"] for each in maps if each["metadata"]["name"].startswith("spamscore-cluster-")]
    cluster["luigi.cfg"] += format_settings({**SMALL, "run": {"catch_up_days": "0"}})
    return maps


def read_claims() -> list[Manifest]:
    """Returns the claims of the overlay. Annotations give their volumes to the user, as fsGroup does in a cluster."""
    claims: list[Manifest] = copy.deepcopy(of_kind(OVERLAY, "PersistentVolumeClaim"))
    for claim in claims:
        claim["metadata"]["annotations"] = {"volume.podman.io/uid": str(UID), "volume.podman.io/gid": str(UID)}
    return claims


def ask(container: Container, url: str, data: str = "") -> tuple[int, str]:
    """Returns the status and the body of a request that is sent from inside a container."""
    code = (
        "import sys, urllib.error as e, urllib.request as r\n"
        "try: answer = r.urlopen(sys.argv[1], sys.argv[2].encode() or None, 30)\n"
        "except e.HTTPError as error: answer = error\n"
        "print(answer.status, answer.read().decode())"
    )
    done = container.execute("python", "-c", code, url, data)
    status, _, body = done.output.partition(" ")
    return (int(status), body) if done.code == 0 else (0, done.output)


def answer_probes(container: Container, name: str, port: int) -> None:
    """Waits until each HTTP probe of a Deployment gets the status 200."""
    (only,) = pod_template(find(OVERLAY, "Deployment", name))["spec"]["containers"]
    paths = {only[probe]["httpGet"]["path"] for probe in PROBES}
    assert paths
    for path in paths:
        eventually(
            lambda path=path: ask(container, f"http://127.0.0.1:{port}{path}"), lambda answer: answer[0] == 200,
            detail=lambda: container.log[-3000:],
        )  # fmt: skip


@pytest.fixture(scope="module")
def night_pod(engine: Engine) -> tuple[Container, Container]:
    """The containers of luigid and of a night that has ended, in one Pod without a network but its own loopback."""
    night = adapt(pod_template(find(OVERLAY, "CronJob", "spamscore-nightly")))
    luigid = adapt(pod_template(find(OVERLAY, "Deployment", "luigid")))
    # The settings ask for luigid by the name of its Service. podman gives the name of the Pod the address 127.0.0.1.
    engine.play(*read_config_maps(), *read_claims(), join("luigid", night, luigid))
    return Container(engine, "luigid-luigid"), Container(engine, "luigid-batch")


@pytest.mark.timeout(3600)
def test_a_night_of_the_cronjob_publishes_its_scores(night_pod: tuple[Container, Container], engine: Engine) -> None:
    _, night = night_pod
    assert night.wait() == 0, night.log[-5000:]
    with closing(sqlite3.connect(engine.find_volume("spamscore-artifacts") / "spamscore.db")) as connection:
        (count,) = connection.execute("SELECT count(*) FROM published_scores").fetchone()
    assert count == 437
    (state,) = json.loads(engine.call("inspect", night.name))
    assert state["HostConfig"]["Memory"] == 3 << 30
    assert state["HostConfig"]["ReadonlyRootfs"]
    assert state["EffectiveCaps"] in (None, [])


@pytest.mark.timeout(3600)
def test_luigid_answers_its_probes_and_knows_the_night(night_pod: tuple[Container, Container]) -> None:
    luigid, night = night_pod
    answer_probes(luigid, "luigid", 8082)
    assert night.wait() == 0, night.log[-5000:]
    status, body = ask(luigid, f"{LUIGID}/api/task_list", 'data={"status": "DONE", "upstream_status": ""}')
    assert status == 200, body
    assert {"TrainModel", "ScoreBatch"} <= {task["name"] for task in json.loads(body)["response"].values()}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_front_end_of_the_deployment_is_ready_once_there_is_a_model(
    engine: Engine, night_pod: tuple[Container, Container], tmp_path: Path
) -> None:
    assert night_pod[1].wait() == 0
    engine.build("api")
    # podman reads the Secret of a volume from a secret of its own, in the form of a manifest.
    secret = {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "spamscore-api"},
        "data": {"token": base64.b64encode(b"a-secret-token").decode()},
    }  # fmt: skip
    (tmp_path / "secret.yaml").write_text(yaml.safe_dump(secret), encoding="utf-8")
    engine.call("secret", "create", "spamscore-api", tmp_path / "secret.yaml")
    template = adapt(pod_template(find(OVERLAY, "Deployment", "spamscore-api")))
    for volume in template["spec"]["volumes"]:
        if "secret" in volume:
            volume["secret"]["optional"] = False  # podman 4.3 ends with an error of its own where this is missing
    engine.play(*read_config_maps(), join("spamscore-api", template))
    answer_probes(Container(engine, "spamscore-api-api"), "spamscore-api", 8000)
