"""compose.yaml: its form, what it names, and the command and health check of each service of this project.

No engine is needed: the commands run here as the containers run them, with the files of the compose file.
"""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import servers
import sqlalchemy as sa
import yaml
from chain import DATE, CommandResult, environment, kill_group_on_exit, luigi
from compose_spec import PyOptions
from doc_pages import ROOT, VERSION, reference_pages
from front_end import front_end
from missing import skip_or_fail
from receivers import web_server
from servers import free_port, wait_for_port
from serving import model_server, read_flags
from spamscore_command import run_process

from tasks.scheduler.luigi_defaults import LUIGID_VARIABLE

DOCKER = ROOT / "deploy" / "docker"
BIN = Path(sys.executable).parent
# Compose replaces ${NAME:-default}.
TEXT = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", (ROOT / "compose.yaml").read_text(encoding="utf-8"))
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OWN = ("luigid", "nightly", "api")
NIGHT = {"LUIGI_CONFIG_PATH": str(DOCKER / "night.cfg")}


def validate(text: str) -> None:
    """Validates a compose file against the specification.

    Raises:
        ValueError: it is not valid.
    """
    PyOptions(apply_merge=True).from_yaml(text).validate()


def test_the_file_follows_the_compose_specification() -> None:
    validate(TEXT)


@pytest.mark.parametrize(
    ("correct", "mistake"),
    [
        ("read_only: true", "readonly: true"),
        ("condition: service_healthy", "condition: healthy"),
        ("secrets: [database-url]", "secrets: [other]"),
        ("mem_limit: 4g", "mem_limit: much"),
    ],
)
def test_the_validator_finds_a_mistake(correct: str, mistake: str) -> None:
    assert correct in TEXT
    with pytest.raises(ValueError, match=r"readonly|healthy|other|much"):
        validate(TEXT.replace(correct, mistake))


def test_every_volume_file_and_service_that_is_named_exists() -> None:
    for name, service in SERVICES.items():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith("./") else source in COMPOSE["volumes"], volume
        assert set(service.get("depends_on", ())) <= set(SERVICES), name
    used = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", ())}
    assert set(COMPOSE["volumes"]) <= used


def test_each_environment_variable_is_one_that_the_program_reads() -> None:
    known = {LUIGID_VARIABLE, "LUIGI_CONFIG_PATH"}
    for setting in reference_pages.SETTINGS:
        if variable := reference_pages.environment_variable(setting):
            known |= {variable, f"{variable}_FILE"}
    for name in OWN:
        assert set(SERVICES[name].get("environment", ())) <= known, name


def test_a_secret_is_mounted_where_a_variable_names_its_file() -> None:
    for name, service in SERVICES.items():
        values = map(str, dict(service.get("environment", {})).values())
        named = {value.rpartition("/")[2] for value in values if value.startswith("/run/secrets/")}
        assert named == set(service.get("secrets", ())) - ({"api-token"} if name == "prometheus" else set()), name
    assert "/run/secrets/api-token" in (DOCKER / "prometheus.yml").read_text(encoding="utf-8")
    assert not re.search(r"(?i)(password|token|secret)\w*: (?!/run/secrets/|\./secrets/)[^\s{\[]", TEXT)


def test_the_script_writes_the_secrets_that_are_missing_and_keeps_the_others(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    first = subprocess.run([DOCKER / "make-secrets.sh", folder], capture_output=True, text=True, check=True)
    contents = {path.name: path.read_text("utf-8") for path in folder.iterdir()}
    assert set(contents) == {Path(secret["file"]).name for secret in COMPOSE["secrets"].values()}
    assert contents["database-password"] in contents["database-url"]
    assert len(set(contents.values())) == 4
    assert not any(value.strip() in first.stdout + first.stderr for value in contents.values())
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o444}
    (folder / "api-token").unlink()
    second = subprocess.run([DOCKER / "make-secrets.sh", folder], capture_output=True, text=True, check=True)
    assert second.stdout == f"wrote {folder}/api-token\n"
    assert (folder / "database-url").read_text("utf-8") == contents["database-url"]
    config = run_process(
        "config", "database", cwd=tmp_path, env=environment(SPAMSCORE_DATABASE_URL_FILE="secrets/database-url")
    )
    assert "postgresql://spamscore:***@postgresql:5432/spamscore" in config.stdout


def test_the_images_of_this_project_have_its_version_by_default() -> None:
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    assert re.findall(r"image: spamscore.*:\$\{SPAMSCORE_TAG:-(.*)\}", text) == [VERSION] * len(OWN)
    assert re.findall(r"^ARG VERSION=(.*)$", read_dockerfile(), re.MULTILINE) == [VERSION]


@pytest.mark.parametrize("name", OWN)
def test_the_containers_of_this_project_are_hardened(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "user" not in service  # the image's, which is not root
    assert service["build"]["target"] in re.findall(r"^FROM base AS (\w+)$", read_dockerfile(), re.MULTILINE)


def test_ports_are_published_on_loopback_only() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(ports) == 6
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_promtool_accepts_the_configuration_of_prometheus(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        message = "promtool is not installed: apt-get install prometheus"
        skip_or_fail(message)
    text = (DOCKER / "prometheus.yml").read_text(encoding="utf-8")
    (tmp_path / "token").write_text("a-token", encoding="utf-8")
    text = text.replace("/run/secrets/api-token", "token").replace("/etc/prometheus/", f"{ROOT}/deploy/prometheus/")
    (tmp_path / "prometheus.yml").write_text(text, encoding="utf-8")
    done = subprocess.run(
        ["promtool", "check", "config", "prometheus.yml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    targets = re.findall(r'targets: \["(\w+):(\d+)"\]', text)
    assert {name for name, _ in targets} <= set(SERVICES)
    assert ("luigid", "8082") in targets


def test_grafana_loads_the_dashboard_from_where_it_is_mounted() -> None:
    mounts = dict(volume.split(":")[:2] for volume in SERVICES["grafana"]["volumes"])
    providers = yaml.safe_load((DOCKER / "grafana" / "dashboards.yml").read_text(encoding="utf-8"))["providers"]
    assert Path(mounts["./deploy/grafana/spamscore.json"]).parent == Path(providers[0]["options"]["path"])
    (source,) = yaml.safe_load((DOCKER / "grafana" / "datasource.yml").read_text(encoding="utf-8"))["datasources"]
    assert source["url"] == "http://prometheus:9090"


# The commands of the services of this project


def read_dockerfile(name: str = "Dockerfile") -> str:
    return (DOCKER / name).read_text(encoding="utf-8")


def read_entry_point(target: str) -> list[str]:
    """Returns the ENTRYPOINT of a target of the Dockerfile."""
    stage = re.split(r"^FROM ", read_dockerfile(), flags=re.MULTILINE)
    (text,) = [part for part in stage if re.match(rf"base AS {target}\n", part)]
    return list(yaml.safe_load(re.findall(r"^ENTRYPOINT (\[.*\])$", text, re.MULTILINE)[0]))


def check_health(service: str, port: int) -> int:
    """Runs the health check of a service at another port, and returns its exit code."""
    kind, program, *arguments = SERVICES[service]["healthcheck"]["test"]
    assert kind == "CMD"
    arguments = [re.sub(r"127\.0\.0\.1[:/]\d+", lambda m: f"{m[0][:10]}{port}", argument) for argument in arguments]
    program = str(BIN / program) if program == "python" else program
    return subprocess.run([program, *arguments], check=False, capture_output=True).returncode


@pytest.fixture
def luigid(tmp_path: Path) -> Iterator[int]:
    """The port of luigid, started with the entry point of its image and the settings of the compose file."""
    port, log = free_port(), tmp_path / "luigid.log"
    program, *arguments = read_entry_point("luigid")
    replaced = {"8082": str(port), "/var/lib/spamscore/luigid.pickle": str(tmp_path / "state")}
    assert set(replaced) < set(arguments)
    arguments = [replaced.get(argument, argument) for argument in arguments]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [BIN / program, *arguments, "--address", "127.0.0.1"], cwd=tmp_path, env=environment(**NIGHT),
            stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    with kill_group_on_exit(process):
        wait_for_port(port, process, log)
        yield port


def test_luigid_starts_and_is_healthy(luigid: int) -> None:
    assert check_health("luigid", luigid) == 0
    assert check_health("luigid", free_port()) != 0


def test_nightly_runs_with_the_secrets_of_files_against_luigid_and_postgresql(
    trained: Path, tmp_path: Path, luigid: int
) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "srv"))
    entry, command = read_entry_point("batch"), SERVICES["nightly"]["command"]
    assert entry[:3] == ["luigi", "--module", "pipeline"]
    with servers.postgresql() as server, web_server() as pushgateway:
        (tmp_path / "database-url").write_text(server.url.render_as_string(hide_password=False) + "\n", "utf-8")
        done = luigi(
            folder, *entry[3:], *command, "--date", DATE, "--run-catch-up-days", "0", **NIGHT,
            SPAMSCORE_DATABASE_URL_FILE=str(tmp_path / "database-url"), SPAMSCORE_METRICS_PUSHGATEWAY=pushgateway.url,
            SPAMSCORE_LUIGID_URL=f"http://127.0.0.1:{luigid}",
        )  # fmt: skip
        assert done.code == 0, done.output
        engine = sa.create_engine(server.url.set(drivername="postgresql+psycopg"))
        with engine.connect() as connection:
            scored = connection.execute(sa.text("SELECT count(*) FROM published_scores")).scalar_one()
        engine.dispose()
    assert scored > 400


def test_the_front_end_starts_with_the_token_of_a_file_and_is_healthy(
    finished: tuple[Path, CommandResult], tmp_path: Path
) -> None:
    (tmp_path / "api-token").write_text("a-secret-token\n", encoding="utf-8")
    assert read_entry_point("api") == ["spamscore", "api"]
    options = SERVICES["api"]["command"]
    variables = {"SPAMSCORE_API_TOKEN_FILE": str(tmp_path / "api-token"), **NIGHT}
    with front_end(finished[0], *options, **variables) as running:
        assert check_health("api", running.port) == 0
        assert running.get("/metrics").status_code == 401
        assert running.get("/metrics", headers={"Authorization": "Bearer a-secret-token"}).status_code == 200
    assert check_health("api", running.port) != 0


def test_tensorflow_serving_gets_the_flags_of_the_script_in_each_place() -> None:
    assert SERVICES["serving"]["command"] == read_flags("/srv/spamscore/artifacts/exports/spam_ham")
    assert SERVICES["serving"]["volumes"] == ["artifacts:/srv/spamscore:ro"]
    image = read_dockerfile("serving.Dockerfile")
    command = yaml.safe_load(re.findall(r"^CMD (\[.*?\])$", image.replace("\\\n", ""), re.MULTILINE)[0])
    assert command == read_flags("/models/spam_ham")
    (entry,) = re.findall(r"^ENTRYPOINT (\[.*\])$", image, re.MULTILINE)
    assert yaml.safe_load(entry) == SERVICES["serving"]["entrypoint"]


def test_the_health_check_of_tensorflow_serving_asks_for_the_version_in_service(
    finished: tuple[Path, CommandResult],
) -> None:
    with model_server(finished[0] / "artifacts" / "exports" / "spam_ham") as server:
        assert check_health("serving", int(server.rest.rpartition(":")[2])) == 0
    assert check_health("serving", free_port()) != 0
