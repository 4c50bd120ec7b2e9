"""Tests deploy/kubernetes against real processes: probes and scraping of luigid and the front end, retries, Spark."""

from __future__ import annotations

import configparser
import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import kubernetes_validate
import pytest
import requests
from chain import DATE, CommandResult, environment, kill_group_on_exit, luigi, write_settings
from eventually import eventually
from kubernetes_api import KubernetesApi, kubernetes_api
from luigid import Luigid
from manifests import KUBERNETES, check_restricted, container, find, pod_templates, read_executor
from other_user import readable_folder
from servers import free_port, wait_for_port
from serving import model_server
from spark_cluster import require_spark

from tasks.scoring.spark.context import open_context
from tasks.settings.spark import SparkSettings

BASE = (KUBERNETES / "base" / "luigi.cfg").read_text(encoding="utf-8")
TOKEN = "a-token"
USER = "10001"  # runAsUser
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def probe_paths(name: str) -> set[str]:
    """Returns the paths that the probes of a Deployment ask for."""
    only = container(pod_templates("production")[name])
    return {only[probe]["httpGet"]["path"] for probe in PROBES if "httpGet" in only[probe]}


def scraped_path(name: str) -> str:
    """Returns the path that Prometheus scrapes."""
    (endpoint,) = find("production", "ServiceMonitor", name)["spec"]["endpoints"]
    return str(endpoint["path"])


def get(url: str, **headers: str) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        return session.get(url, headers=headers, timeout=60)


# The front end


@pytest.fixture(scope="module")
def front_end_url(finished: tuple[Path, CommandResult]) -> Iterator[str]:
    """The front end with the settings and the command of its pod, as its user, who cannot write the artifacts."""
    with readable_folder() as folder:
        shutil.copytree(finished[0] / "artifacts", folder / "artifacts")
        (folder / "luigi.cfg").write_text(BASE, encoding="utf-8")
        (folder / "token").write_text(f"{TOKEN}\n", encoding="utf-8")
        for path in [*folder.rglob("*"), folder]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        home = folder.with_name(folder.name + "-home")
        home.mkdir()
        home.chmod(0o777)  # the volume at /tmp
        try:
            with run_front_end(folder, home) as url:
                yield url
        finally:
            shutil.rmtree(home)
            for path in [folder, *folder.rglob("*")]:
                path.chmod(0o755)


@contextlib.contextmanager
def run_front_end(folder: Path, home: Path) -> Iterator[str]:
    template = container(pod_templates("production")["spamscore-api"])
    program, port = Path(sys.executable).parent / template["command"][0], free_port()
    as_user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"] if os.geteuid() == 0 else []
    variables = environment(SPAMSCORE_API_TOKEN_FILE=str(folder / "token"), HOME=str(home), TMPDIR=str(home))
    del variables["NUMBA_CACHE_DIR"]  # the tests' own
    log = home / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*as_user, program, *template["args"], "--port", str(port)], cwd=folder, env=variables,
            stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    with kill_group_on_exit(process):
        wait_for_port(port, process, log)
        yield f"http://127.0.0.1:{port}"
        process.terminate()
        assert process.wait(timeout=60) == 0, log.read_text()


def test_the_front_end_answers_each_probe_without_a_token(front_end_url: str) -> None:
    assert probe_paths("spamscore-api") == {"/livez", "/readyz"}
    for path in probe_paths("spamscore-api"):
        # The kubelet addresses the pod by its number.
        answer = eventually(lambda path=path: get(front_end_url + path, Host="10.1.2.3:8000"), lambda answer: answer.ok)
        assert answer.json()[{"/livez": "alive", "/readyz": "ready"}[path]] is True


def test_prometheus_reads_the_metrics_of_the_front_end_with_its_token_only(front_end_url: str) -> None:
    url = front_end_url + scraped_path("spamscore-api")
    assert get(url).status_code == 401
    assert "spamscore_api_ready" in get(url, Authorization=f"Bearer {TOKEN}").text


# luigid


@pytest.fixture
def luigid(tmp_path: Path) -> Iterator[Luigid]:
    """luigid with the settings of its pod, but for shorter pauses."""
    running, text = Luigid(tmp_path / "luigid"), BASE
    for line, replacement in [("retry_delay = 600", "retry_delay = 1"), ("wait_interval = 5", "wait_interval = 1")]:
        assert f"\n{line}\n" in text
        text = text.replace(line, replacement)
    (tmp_path / "night.cfg").write_text(text.replace("http://luigid:8082", running.url), encoding="utf-8")
    (running.folder / "luigi.cfg").write_text(text, encoding="utf-8")
    with running:
        yield running


def test_luigid_answers_its_probes_and_prometheus(luigid: Luigid) -> None:
    (path,) = probe_paths("luigid")
    for asked, words in ((path, "Luigi Task"), (scraped_path("luigid"), "luigi_task_started_total")):
        answer = get(luigid.url + asked)
        assert (answer.status_code, words in answer.text) == (200, True)


def test_the_next_pod_is_given_the_task_that_failed(luigid: Luigid, tmp_path: Path) -> None:
    write_settings(tmp_path, {"messages": {"source": "sql", "query": "SELECT nonsense FROM nowhere"}})
    command = ("ExtractMessages", "--date", DATE)
    for _ in range(2):
        done = luigi(tmp_path, *command, LUIGI_CONFIG_PATH="night.cfg")
        assert (done.code, done.output.count("failed    ExtractMessages(")) == (30, 3), done.output
        # The Job waits for ten seconds, and the pod needs some to start. luigid's own clock decides here.
        eventually(lambda: luigid.find_task("ExtractMessages")["status"], lambda status: status == "FAILED")


# TensorFlow Serving


def test_a_model_server_answers_the_probes_of_tensorflow_serving(finished: tuple[Path, CommandResult]) -> None:
    (path,) = probe_paths("spamscore-serving")
    with model_server(finished[0] / "artifacts" / "exports" / "spam_ham") as server:
        answer = eventually(lambda: get(f"http://{server.rest}{path}"), lambda answer: answer.ok)
        assert answer.json()["model_spec"]["name"] == "spam_ham"


# Spark


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The variables and the token of a service account, as a pod has them, and no configuration of kubectl."""
    folder = tmp_path_factory.mktemp("account")
    (folder / "token").write_text("token-of-the-account", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        patch.delenv("KUBECONFIG", raising=False)
        patch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        patch.setenv("KUBERNETES_SERVICE_PORT", "443")
        patch.setenv("KUBERNETES_AUTH_SERVICEACCOUNT_TOKEN", str(folder / "token"))  # elsewhere than in a pod
        yield


@pytest.fixture(scope="module")
def spark_requests(account: None) -> KubernetesApi:
    """What a driver with the settings of the overlay asks the API server for, from its start to its end."""
    require_spark()
    configuration = configparser.RawConfigParser()
    configuration.read_string(find("spark", "ConfigMap", "spamscore-spark")["data"]["spark.cfg"])
    section = dict(configuration["spark"])
    ports = {"7078": str(free_port()), "7079": str(free_port())}
    replacements = {
        "${POD_IP}": "127.0.0.1", "${POD_NAME}": "the-driver", "${SPARK_IMAGE}": "an-image",
        "/etc/spamscore/executor.yaml": str(KUBERNETES / "components" / "spark" / "executor.yaml"),
        "port=7078": f"port={ports['7078']}", "port=7079": f"port={ports['7079']}",
    }  # fmt: skip
    for text, replacement in replacements.items():
        assert text in section["options"]
        section["options"] = section["options"].replace(text, replacement)
    # No executor starts, and Spark would wait half a minute for one.
    options = f"{section['options']} spark.scheduler.minRegisteredResourcesRatio=0"
    numbers = {name: int(section[name]) for name in ("executors", "cores", "memory")}
    with kubernetes_api("the-driver") as api:
        settings = SparkSettings(
            master=f"k8s://{api.url}", options=options, database_url=section["database_url"], **numbers
        )
        connection = open_context(settings, "spamscore ScoreBatch", {})
        eventually(lambda: len(api.pods) == settings.executors)
        connection.close()
        return api


def test_the_executor_pods_that_spark_requests_are_valid_and_restricted(spark_requests: KubernetesApi) -> None:
    assert len(spark_requests.pods) == 4
    for pod in spark_requests.pods:
        kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
        check_restricted(pod)
        only = container(pod)
        assert only["resources"]["limits"] == only["resources"]["requests"] == {"cpu": "2", "memory": "3072Mi"}
        assert only["image"] == "an-image"
        assert pod["metadata"]["labels"]["app.kubernetes.io/component"] == "executor"
        assert pod["metadata"]["ownerReferences"][0]["name"] == "the-driver"


def test_the_driver_sends_the_token_of_its_service_account(spark_requests: KubernetesApi) -> None:
    assert spark_requests.tokens == {"Bearer token-of-the-account"}


def test_an_executor_gets_the_database_from_the_secret_and_not_from_the_driver(spark_requests: KubernetesApi) -> None:
    template = read_executor()["spec"]
    for pod in spark_requests.pods:
        variables = {variable["name"]: variable.get("value") for variable in container(pod)["env"]}
        assert {name for name in variables if name.startswith("SPAMSCORE_")} == {"SPAMSCORE_DATABASE_URL_FILE"}
        for key in ("serviceAccountName", "automountServiceAccountToken", "securityContext"):
            assert pod["spec"][key] == template[key]
        for volume in template["volumes"]:
            assert volume in pod["spec"]["volumes"]


def test_the_entry_point_of_the_image_gets_the_variables_that_it_needs(spark_requests: KubernetesApi) -> None:
    script = (KUBERNETES.parent / "docker" / "spark.sh").read_text(encoding="utf-8")
    needed = re.findall(r'"\$(SPARK_\w+)"', script)  # of the command line of the executor's class
    assert len(needed) == 7
    assert "-Xmx$SPARK_EXECUTOR_MEMORY" in script
    for pod in spark_requests.pods:
        assert container(pod)["args"] == ["executor"]
        variables = {variable["name"] for variable in container(pod)["env"]}
        assert {*needed, "SPARK_EXECUTOR_MEMORY", "SPARK_JAVA_OPT_0"} <= variables


def test_the_role_of_the_driver_allows_what_spark_asks_for(spark_requests: KubernetesApi) -> None:
    (rule,) = find("spark", "Role", "spamscore-driver")["rules"]
    allowed = {(verb, resource) for verb in rule["verbs"] for resource in rule["resources"]}
    assert set(spark_requests.requests) <= allowed
    # Beyond that, Spark deletes a single pod that does not start in time.
    assert allowed - set(spark_requests.requests) == {("delete", "pods")}
    assert rule["apiGroups"] == [""]
