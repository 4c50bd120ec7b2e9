"""The files of deploy/docker without a container engine: lock files, slim.py, and the scripts.

tests/images/ builds the images and runs nights in them.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from missing import skip_or_fail
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
DOCKER = ROOT / "deploy" / "docker"
SCRIPTS = sorted(DOCKER.glob("*.sh"))
DOCKERFILE = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
LOCKS = {path.name: path.read_text(encoding="utf-8") for path in sorted(DOCKER.glob("*.lock"))}


def read_lock() -> dict[str, Version]:
    """Returns the version of each package of the lock files, and TensorFlow's under the name that packages require."""
    found = re.findall(r"^([\w.-]+)==(\S+)", "\n".join(LOCKS.values()), re.MULTILINE)
    versions = {canonicalize_name(name): Version(version) for name, version in found}
    return {**versions, "tensorflow": versions["tensorflow-cpu"]}


def read_setup(folder: Path) -> dict[str, list[str]]:
    """Returns the requirements of setup.py: those of the program under "", and those of each extra."""
    code = (
        "import json, setuptools; found = {}; setuptools.setup = found.update; exec(open('setup.py').read(), "
        "{'__file__': 'setup.py'}); print(json.dumps({'': found['install_requires'], **found['extras_require']}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def test_every_locked_package_has_hashes_and_no_address() -> None:
    assert set(LOCKS) == {"requirements.lock", "requirements-spark.lock"}
    for text in LOCKS.values():
        packages = re.split(r"\n(?=\w)", text.strip())
        for package in packages:
            assert re.fullmatch(r"[\w.-]+==\S+ \\\n(    --hash=sha256:[0-9a-f]{64}( \\\n)?)+", package), package[:200]
        assert "://" not in text


def test_the_locked_versions_are_those_that_setup_py_allows() -> None:
    locked, requirements = read_lock(), read_setup(ROOT)
    for extra in ("", "postgresql", "mysql", "s3", "gs", "abfs", "api", "serving", "spark"):
        for line in requirements[extra]:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate():
                name = canonicalize_name(requirement.name)
                assert locked[name] in requirement.specifier, f"{line}: locked is {locked[name]}. Run: make lock"
    assert (DOCKER / "requirements-spark.in").read_text(encoding="utf-8").split() == requirements["spark"]


def test_the_distribution_tensorflow_has_the_version_of_the_locked_tensorflow_cpu() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "setup.py", "--version"], cwd=DOCKER / "tensorflow", capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert Version(done.stdout.strip()) == read_lock()["tensorflow-cpu"]


# Dockerfile


def test_the_context_of_the_build_has_every_file_that_is_copied() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = [line[1:] for line in lines if line.startswith("!")]
    sources = [word for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
               for word in line.split()[:-1] if not word.startswith("--")]  # fmt: skip
    assert len(sources) > 8
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(source == path or source.startswith(f"{path}/") for path in allowed), source
    assert all((ROOT / path).exists() for path in allowed)


def test_no_final_image_runs_as_root_or_has_a_secret() -> None:
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)
    final = [stage for stage in stages if stage.startswith("base AS ")]
    assert [stage.split()[2] for stage in final] == ["luigid", "batch", "api", "spark"]
    (base,) = [stage for stage in stages if stage.startswith("${PYTHON_IMAGE} AS base")]
    for stage in (base, *final):
        users = re.findall(r"^USER (.*)$", stage, re.MULTILINE)
        assert users[-1:] in ([], ["10001:10001"]), stage
    assert re.findall(r"^USER (.*)$", base, re.MULTILINE)
    assert not re.search(r"(?i)^(ARG|ENV).*(password|token|secret|_URL)", DOCKERFILE, re.MULTILINE)


# slim.py


@pytest.fixture(scope="module")
def slim() -> ModuleType:
    spec = importlib.util.spec_from_file_location("slim", DOCKER / "slim.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def packages(tmp_path: Path, slim: ModuleType) -> Path:
    """A folder with a file for each entry of the lists, and one more that no entry matches."""
    for pattern in (*slim.REMOVED, *slim.REMOVED_SPARK):
        path = tmp_path / pattern.replace("**", "package").replace("*", "some")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 1000)
    for name in slim.STRIPPED:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(shutil.which("true") or "/bin/true", tmp_path / name)
    (tmp_path / "tensorflow" / "__init__.py").touch()
    return tmp_path


def test_slim_removes_what_the_lists_name_and_nothing_else(
    packages: Path, slim: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert slim.main([str(packages), "spark"]) == 0
    left = {str(path.relative_to(packages)) for path in packages.rglob("*") if path.is_file()}
    assert left == {"tensorflow/__init__.py", *slim.STRIPPED}
    assert re.search(r": \d+ MB, reduced to \d+ MB\n$", capsys.readouterr().out)


def test_an_entry_that_matches_nothing_is_an_error(
    packages: Path, slim: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    (packages / "pyspark" / "jars" / "rocksdbjni-some.jar").unlink()
    assert slim.main([str(packages), "spark"]) == 1
    assert "nothing matches pyspark/jars/rocksdbjni-*.jar. Correct the list" in capsys.readouterr().out


def test_a_folder_that_is_no_environment_is_left_alone(
    tmp_path: Path, slim: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "clang").mkdir()
    assert slim.main([str(tmp_path)]) == 1
    assert "tensorflow: no such folder. Expected the site-packages of an environment" in capsys.readouterr().out
    assert (tmp_path / "clang").is_dir()


def test_each_entry_has_a_reason(slim: ModuleType) -> None:
    reasons = {**slim.REMOVED, **slim.REMOVED_SPARK}.values()
    assert all(len(reason) >= 5 for reason in reasons)


# Scripts


def run_script(name: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a script of deploy/docker with the system's programs alone."""
    return subprocess.run(
        [DOCKER / name, *arguments], capture_output=True, text=True, check=False,
        env={"PATH": "/usr/bin:/bin", **variables},
    )  # fmt: skip


def make_program(path: Path, script: str = 'echo "$@"') -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_shellcheck_finds_nothing_in_the_scripts() -> None:
    if shutil.which("shellcheck") is None:
        message = "shellcheck is not installed: apt-get install shellcheck"
        skip_or_fail(message)
    assert len(SCRIPTS) == 5
    done = subprocess.run(["shellcheck", *SCRIPTS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_build_builds_each_target_with_the_version_of_setup_py(tmp_path: Path) -> None:
    engine = make_program(tmp_path / "engine")
    done = run_script("build.sh", ENGINE=str(engine), EXTRAS="mysql", PIP_CONFIG="pip.conf", BUILD_FLAGS="--no-cache")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[1::2] == [
        f"built {name}:0.1.0" for name in ("spamscore", "spamscore-api", "spamscore-spark", "spamscore-luigid")
    ]
    assert lines[0].startswith("build --file deploy/docker/Dockerfile --target batch --tag spamscore:0.1.0 ")
    assert lines[0].endswith(" --build-arg EXTRAS=mysql --secret id=pip-config,src=pip.conf --no-cache .")
    (one, built) = run_script("build.sh", "luigid", ENGINE=str(engine), TAG="night").stdout.splitlines()
    assert " --target luigid --tag spamscore-luigid:night " in one
    assert built == "built spamscore-luigid:night"


def test_push_without_a_registry_is_one_line() -> None:
    done = run_script("push.sh")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "push.sh: expected a registry: make push REGISTRY=registry.internal/spam\n"


def test_push_prints_the_digest_of_its_registry_when_docker_knows_several(tmp_path: Path) -> None:
    docker = make_program(
        tmp_path / "docker",
        'case $1 in image) printf "%s\\n" other/spamscore@sha256:1 reg/spam/spamscore@sha256:2 "" ;; esac',
    )
    make_program(tmp_path / "cyclonedx-py", "cat > /dev/null")
    done = run_script(
        "push.sh", "reg/spam", "batch", ENGINE=str(docker), SBOM_FOLDER=str(tmp_path / "sbom"),
        PATH=f"{tmp_path}:/usr/bin:/bin",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"pushed reg/spam/spamscore@sha256:2; SBOM: {tmp_path}/sbom/spamscore-0.1.0.cdx.json\n"


# The variables that Spark's driver sets in the container of an executor.
EXECUTOR = {
    "SPARK_EXECUTOR_MEMORY": "512m", "SPARK_DRIVER_URL": "spark://driver:7078", "SPARK_EXECUTOR_ID": "3",
    "SPARK_EXECUTOR_CORES": "4", "SPARK_APPLICATION_ID": "spark-1", "SPARK_EXECUTOR_POD_IP": "10.0.0.3",
    "SPARK_RESOURCE_PROFILE_ID": "0", "SPARK_EXECUTOR_POD_NAME": "night-exec-3",
    "SPARK_JAVA_OPT_0": "-Dspark.network.timeout=120s", "SPARK_JAVA_OPT_1": "-Dnote=two words",
}  # fmt: skip


@pytest.fixture
def spark_path(tmp_path: Path) -> str:
    """PATH with this Python and a `java` that prints each argument in a line."""
    make_program(tmp_path / "java", 'printf "%s\\n" "$@"')
    return f"{tmp_path}:{Path(sys.executable).parent}:/usr/bin:/bin"


def test_an_executor_on_kubernetes_starts_the_class_of_spark_with_what_the_driver_set(spark_path: str) -> None:
    done = run_script("spark.sh", "executor", PATH=spark_path, **EXECUTOR)
    assert done.returncode == 0, done.stderr
    words = done.stdout.splitlines()
    assert words[:5] == ["-Dspark.network.timeout=120s", "-Dnote=two words", "-Xms512m", "-Xmx512m", "-cp"]
    backend = "org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend"
    assert words[6] == backend
    jars = Path(re.findall(r":([^:]*/jars)/\*", words[5])[0])
    (jar,) = jars.glob("spark-kubernetes_*.jar")
    assert f"{backend.replace('.', '/')}.class".encode() in jar.read_bytes()
    options = dict(zip(words[7::2], words[8::2], strict=True))
    assert options["--driver-url"] == "spark://driver:7078"
    assert (options["--executor-id"], options["--podName"]) == ("3", "night-exec-3")


def test_an_executor_without_a_variable_of_the_driver_is_one_line(spark_path: str) -> None:
    for name in [name for name in EXECUTOR if "JAVA_OPT" not in name]:
        variables = {key: value for key, value in EXECUTOR.items() if key != name}
        done = run_script("spark.sh", "executor", PATH=spark_path, **variables)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert done.stderr.startswith(f"spark.sh: {name} is not set. ")


def test_other_commands_run_as_they_are(spark_path: str) -> None:
    done = run_script("spark.sh", "echo", "two words", PATH=spark_path)
    assert (done.returncode, done.stdout) == (0, "two words\n")
    assert run_script("spark.sh", PATH=spark_path).stderr.startswith("spark.sh: expected a command: executor, worker")
