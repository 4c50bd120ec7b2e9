"""Tests of deploy/kubernetes: the schemas of Kubernetes accept it, and it names only what this program has."""

from __future__ import annotations

import configparser
import re
import shlex
import subprocess
import sys
import zoneinfo
from pathlib import Path

import kubectl_commands
import kubernetes_validate
import pytest
import yaml
from chain import environment
from doc_pages import DOCS, VERSION, reference_pages
from manifests import (
    KUBERNETES,
    OVERLAYS,
    container,
    find,
    job_spec,
    kubectl,
    pod_templates,
    read_executor,
    render,
    render_text,
)
from serving import read_flags

import pipeline
from tasks.settings.loading import FILE_SUFFIX, environment_variable
from tasks.settings.serving import ApiSettings
from tasks.settings.storage import ArtifactSettings

PAGE = (DOCS / "how-to" / "kubernetes.md").read_text(encoding="utf-8")
VERSIONS = sorted(
    {tuple(map(int, version.split(".")[:2])) for version in kubernetes_validate.utils.all_versions()}
)[-3:]  # fmt: skip
# Kinds of the Prometheus operator: the keys of their objects here. kubernetes-validate has no schema of them.
CUSTOM_KINDS = {
    "PrometheusRule": {"apiVersion", "kind", "metadata", "spec", "groups"},
    "ServiceMonitor": {"apiVersion", "kind", "metadata", "spec", "selector", "endpoints"},
}
per_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


@per_overlay
@pytest.mark.parametrize("version", [f"{major}.{minor}" for major, minor in VERSIONS])
def test_the_schemas_of_kubernetes_accept_every_object_of_an_overlay(overlay: str, version: str) -> None:
    extra = [read_executor()] if overlay == "spark" else []
    for manifest in (*render(overlay), *extra):
        if manifest["kind"] not in CUSTOM_KINDS:
            kubernetes_validate.validate(manifest, version, strict=True)


def test_the_page_names_the_versions_of_the_schemas() -> None:
    (oldest, _, latest) = (".".join(map(str, version)) for version in VERSIONS)
    assert f"The manifests fit the schemas of {oldest} to {latest}." in PAGE


def test_the_schemas_reject_a_key_that_does_not_exist() -> None:
    manifest = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a"}, "automountToken": False}
    with pytest.raises(kubernetes_validate.ValidationError, match="automountToken"):
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_every_folder_of_components_and_overlays_is_tested() -> None:
    assert {path.name for path in (KUBERNETES / "overlays").iterdir()} == set(OVERLAYS)
    used = [
        name
        for path in (KUBERNETES / "overlays").glob("*/kustomization.yaml")
        for name in yaml.safe_load(path.read_text(encoding="utf-8")).get("components", [])
    ]
    assert {Path(name).name for name in used} == {path.name for path in (KUBERNETES / "components").iterdir()}


@per_overlay
def test_objects_have_distinct_names_and_the_namespace(overlay: str) -> None:
    names = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in render(overlay)]
    assert len(names) == len(set(names))
    outside = [manifest["kind"] for manifest in render(overlay) if manifest["metadata"].get("namespace") != "spamscore"]
    assert outside == ["Namespace"]


# Settings


def read_settings(overlay: str) -> dict[str, str]:
    """Returns the settings files of an overlay by their paths in the containers."""
    files = {
        "/etc/luigi/luigi.cfg": find(overlay, "ConfigMap", "spamscore-settings")["data"]["luigi.cfg"],
        "/srv/spamscore/luigi.cfg": find(overlay, "ConfigMap", "spamscore-cluster")["data"]["luigi.cfg"],
    }
    if overlay == "spark":
        files["/etc/spamscore/spark.cfg"] = find(overlay, "ConfigMap", "spamscore-spark")["data"]["spark.cfg"]
    return files


def merge_settings(overlay: str) -> configparser.RawConfigParser:
    """Returns the settings that are in force in the containers of an overlay."""
    parser = configparser.RawConfigParser()
    for text in read_settings(overlay).values():
        parser.read_string(text)
    return parser


@per_overlay
def test_the_program_accepts_the_settings_of_an_overlay(overlay: str, tmp_path: Path) -> None:
    for name, text in read_settings(overlay).items():
        # The working folder has the first two as client.cfg and luigi.cfg, so that the machine's /etc stays as it is.
        target = {"/etc/luigi/luigi.cfg": "client.cfg", "/srv/spamscore/luigi.cfg": "luigi.cfg"}.get(name, "spark.cfg")
        (tmp_path / target).write_text(text, encoding="utf-8")
    variables = {"POD_IP": "10.1.2.3", "POD_NAME": "a-pod", "SPARK_IMAGE": "an-image"}
    if (tmp_path / "spark.cfg").exists():
        variables["LUIGI_CONFIG_PATH"] = "spark.cfg"
    code = (
        "import pipeline; from tasks.settings.checking import check_settings; check_settings(); "
        "from tasks.settings.loading import load; from tasks.settings.spark import SparkSettings; "
        "print(load(SparkSettings).parse_options())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(**variables), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "${" not in done.stdout
    assert ("10.1.2.3" in done.stdout) == (overlay == "spark")


@per_overlay
def test_every_setting_of_this_project_in_the_files_is_declared(overlay: str) -> None:
    declared = {(setting.section, setting.key) for setting in reference_pages.SETTINGS}
    sections = {section for section, _ in declared}
    settings = merge_settings(overlay)
    used = {(section, key) for section in settings.sections() if section in sections for key in settings[section]}
    assert len(used) >= 7
    assert used <= declared


@per_overlay
def test_a_container_mounts_the_settings_where_the_program_reads_them(overlay: str) -> None:
    for name, template in pod_templates(overlay).items():
        mounts = {mount["mountPath"]: mount for mount in container(template)["volumeMounts"]}
        if name in ("spamscore-serving", "executor"):  # the driver sends an executor its settings
            continue
        assert {"/etc/luigi", "/srv/spamscore/luigi.cfg"} <= mounts.keys()
        assert mounts["/srv/spamscore/luigi.cfg"]["subPath"] == "luigi.cfg"
        assert container(template)["workingDir"] == "/srv/spamscore"


@per_overlay
def test_every_variable_of_a_container_is_read_by_the_program_or_inserted(overlay: str) -> None:
    secrets = {environment_variable(setting) for setting in reference_pages.SETTINGS} - {None}
    files = {f"{name}{FILE_SUFFIX}" for name in secrets}
    settings = merge_settings(overlay)
    values = " ".join(value for section in settings.sections() for value in settings[section].values())
    inserted = set(re.findall(r"\$\{(\w+)\}", values))
    for template in pod_templates(overlay).values():
        only = container(template)
        arguments = set(re.findall(r"\$\((\w+)\)", " ".join(only.get("args", []))))
        names = {variable["name"] for variable in only.get("env", [])}
        # HOME: the folder of caches. LUIGI_CONFIG_PATH: Luigi's own.
        assert names <= files | inserted | arguments | {"HOME", "LUIGI_CONFIG_PATH"}
        assert arguments <= names
    if overlay == "spark":
        batch = container(pod_templates(overlay)["spamscore-nightly"])
        assert inserted <= {variable["name"] for variable in batch["env"]}


@per_overlay
def test_a_variable_that_names_a_file_names_a_mounted_one(overlay: str) -> None:
    for template in pod_templates(overlay).values():
        only, volumes = container(template), {volume["name"]: volume for volume in template["spec"]["volumes"]}
        mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in only["volumeMounts"]}
        for variable in only.get("env", []):
            if variable["name"].endswith((FILE_SUFFIX, "_PATH")):
                folder, _, file = variable["value"].rpartition("/")
                config = mounts[folder].get("configMap")
                name = re.sub(r"-[a-z0-9]{10}$", "", config["name"]) if config else ""
                assert "secret" in mounts[folder] or file in find(overlay, "ConfigMap", name)["data"]


# Commands, exit codes, times


@per_overlay
def test_every_command_of_a_container_is_one_that_its_program_has(overlay: str) -> None:
    commands = {name: container(template) for name, template in pod_templates(overlay).items()}
    for name in ("spamscore-nightly", "spamscore-backfill"):
        command, arguments = commands[name]["command"], commands[name]["args"]
        assert (command, arguments[:2]) == (["luigi"], ["--module", pipeline.__name__])
        assert arguments[2] in pipeline.__all__
    assert commands["spamscore-api"]["command"] + commands["spamscore-api"]["args"] == ["spamscore", "api"]
    assert commands["luigid"]["command"] == ["luigid"]
    assert all((Path(sys.executable).parent / program).exists() for program in ("luigi", "luigid", "spamscore"))


def test_tensorflow_serving_has_the_flags_of_serve_sh() -> None:
    folder = f"/srv/spamscore/{ArtifactSettings().folder}/exports/{ArtifactSettings().model_name}"
    arguments = container(pod_templates("production")["spamscore-serving"])["args"]
    assert arguments == ["--port=8500", "--rest_api_port=8501", *read_flags(folder)]


@pytest.mark.parametrize("name", ["spamscore-nightly", "spamscore-backfill"])
def test_every_exit_code_is_retried_or_not_as_it_is_documented(name: str) -> None:
    ignored, failed, counted = job_spec(find("production", "CronJob", name))["podFailurePolicy"]["rules"]
    assert (ignored["action"], ignored["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")
    assert (failed["action"], counted["action"]) == ("FailJob", "Count")
    final, retried = failed["onExitCodes"]["values"], counted["onExitCodes"]["values"]
    assert {code.code for code in reference_pages.luigi_codes()} == {0, *final, *retried}
    assert {20, 40, 50} <= set(final)
    assert {30, 35} <= set(retried)
    for values in (final, retried):  # the API server refuses other lists
        assert values == sorted(set(values))
    for rule in (failed, counted):
        assert rule["onExitCodes"]["operator"] == "In"
        assert rule["onExitCodes"]["containerName"] == container(pod_templates("production")[name])["name"]
    row = r"^\| ([\d, ]+) \| (.+?) \|"
    documented = {
        code: text for codes, text in re.findall(row, PAGE, re.MULTILINE) for code in map(int, codes.split(","))
    }
    assert {code for code, text in documented.items() if text == "retried"} == set(retried)
    assert {code for code, text in documented.items() if text == "not retried"} == set(final)


@pytest.mark.parametrize("overlay", ["local", "production"])
def test_nightly_starts_once_a_day_in_the_time_zone_of_the_messages(overlay: str) -> None:
    nightly = find(overlay, "CronJob", "spamscore-nightly")["spec"]
    assert re.fullmatch(r"\d+ \d+ \* \* \*", nightly["schedule"])
    assert nightly["timeZone"] == merge_settings(overlay)["messages"]["timezone"]
    assert nightly["timeZone"] in zoneinfo.available_timezones()
    assert nightly["concurrencyPolicy"] == "Forbid"
    day = 24 * 3600
    assert nightly["startingDeadlineSeconds"] < day
    assert nightly["jobTemplate"]["spec"]["activeDeadlineSeconds"] < day
    assert nightly["jobTemplate"]["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_a_backfill_differs_from_a_night_in_its_arguments_and_in_having_no_time_limit() -> None:
    night, backfill = (find("local", "CronJob", f"spamscore-{name}")["spec"] for name in ("nightly", "backfill"))
    assert backfill["suspend"] is True
    jobs = [dict(spec["jobTemplate"]["spec"]) for spec in (night, backfill)]
    assert [set(job) for job in jobs] == [set(jobs[0]), set(jobs[0]) - {"activeDeadlineSeconds"}]
    first, second = (job["template"]["spec"]["containers"][0] for job in jobs)
    assert {key for key in first if first[key] != second[key]} == {"args", "env"}


def test_the_documented_command_sets_the_dates_of_a_backfill() -> None:
    spec = find("local", "CronJob", "spamscore-backfill")["spec"]["jobTemplate"]["spec"]
    job = yaml.safe_dump({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "january"}, "spec": spec})
    (command,) = re.findall(r"kubectl (set env --local .*?) \|", PAGE)
    changed = yaml.safe_load(kubectl(*shlex.split(command), stdin=job))
    variables = container(changed["spec"]["template"])["env"]
    assert {"name": "DATES", "value": "2026-01-01..2026-01-31"} in variables


@pytest.mark.parametrize(
    "command",
    [
        "kubectl -n spamscore get pods --colour=red",
        "kubectl -n spamscore logs deployment/spamscore",
        "kubectl -n spamscore describe job second-night",
        "kubectl apply --kustomize=deploy/kubernetes/overlays/other",
        """kubectl -n spamscore patch cronjob spamscore-nightly --patch='{"spec": {"suspended": true}}'""",
    ],
)
def test_a_wrong_option_object_file_or_patch_in_a_command_is_found(command: str) -> None:
    with pytest.raises((AssertionError, ValueError, kubernetes_validate.ValidationError)):
        kubectl_commands.check(command, "docs/how-to/kubernetes.md")


@per_overlay
def test_a_container_has_as_many_threads_as_processors(overlay: str) -> None:
    threads = int(merge_settings(overlay)["devices"]["threads"])
    for name in ("spamscore-nightly", "spamscore-backfill", "spamscore-api"):
        assert int(container(pod_templates(overlay)[name])["resources"]["limits"]["cpu"]) == threads
    if overlay == "spark":
        spark = merge_settings(overlay)["spark"]
        assert f"spark.kubernetes.executor.limit.cores={spark['cores']}" in spark["options"].split()


@per_overlay
def test_the_front_end_has_the_time_to_drain(overlay: str) -> None:
    drain = float(merge_settings(overlay)["api"].get("drain_seconds", str(ApiSettings().drain_seconds)))
    template = pod_templates(overlay)["spamscore-api"]["spec"]
    pause = template["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert template["terminationGracePeriodSeconds"] >= pause + drain + 5


@per_overlay
def test_only_the_autoscaler_sets_the_number_of_front_ends(overlay: str) -> None:
    assert "replicas" not in find(overlay, "Deployment", "spamscore-api")["spec"]
    scaler = find(overlay, "HorizontalPodAutoscaler", "spamscore-api")["spec"]
    assert scaler["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "spamscore-api"}
    assert 1 <= scaler["minReplicas"] < scaler["maxReplicas"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_image_has_the_version_of_the_project(overlay: str) -> None:
    images = set(re.findall(r"(?:image|value): (\S*spamscore[\w-]*:\S+)$", render_text(overlay), re.MULTILINE))
    names = {"spamscore", "spamscore-api", "spamscore-luigid", "spamscore-serving"}
    names |= {"spamscore-spark"} if overlay == "spark" else set()
    assert {image.rpartition("/")[2] for image in images} == {f"{name}:{VERSION}" for name in names}


def test_driver_and_executors_have_one_image() -> None:
    for name in ("spamscore-nightly", "spamscore-backfill"):
        only = container(pod_templates("spark")[name])
        (image,) = [variable["value"] for variable in only["env"] if variable["name"] == "SPARK_IMAGE"]
        assert only["image"] == image
