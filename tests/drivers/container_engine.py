"""Builds and runs the images with podman, in a store of its own that is deleted at the end.

The images of registries are used where one can be reached, and else the stand-ins of `base_images.sh`.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import servers
import sqlalchemy as sa
import yaml
from chain import CommandResult
from sqlalchemy.engine import URL

UID = 10001  # of the images
ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "deploy" / "docker"
BASES = ("docker.io/library/python:3.11-slim-bookworm", "docker.io/tensorflow/serving:2.20.0")
PROGRAMS = {"podman": "podman", "runc": "runc", "mmdebstrap": "mmdebstrap"}
# The image of the process that holds the namespaces of a pod.
PAUSE = "localhost/pause:test"
# The certificate authorities of this machine, and where a build finds them. Packages of Debian write to /etc/ssl/certs.
CERTIFICATES, MOUNTED_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt", "/etc/build-certificates.crt"
# A container of the tests has no way out, no rights and no place to write but /tmp.
HARDENED = (
    "--read-only", "--tmpfs", "/tmp", "--network", "none", "--cap-drop", "all", "--security-opt", "no-new-privileges",
)  # fmt: skip


def find_missing_programs() -> list[str]:
    """Returns the Debian packages that are missing to build and run images; and "root" for another user."""
    missing = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    return missing + (["root"] if os.geteuid() != 0 else [])


def _limit(kind: int, most: int) -> int:
    """Returns the hard limit of this process, at most a value."""
    limit = resource.getrlimit(kind)[1]
    return most if limit == resource.RLIM_INFINITY else min(limit, most)


class Engine:
    """podman with a store of its own.

    Attributes:
        folder: the folder of the store and of its files.
        program: a script that runs podman with this store.
        compiled: a folder for the code that Numba compiles in containers.
        real_bases: whether the base images are those of the registries.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program, self.compiled = folder / "podman", folder / "numba"
        self.compiled.mkdir(exist_ok=True)
        self.compiled.chmod(0o1777)
        options = f"--root {folder}/store --runroot {folder}/run --storage-driver overlay --events-backend file"
        # Limits above those of this process cannot be set where it may not raise its own.
        limits = (("nofile", resource.RLIMIT_NOFILE, 20000), ("nproc", resource.RLIMIT_NPROC, 4096))
        values = [f'"{name}={value}:{value}"' for name, kind, most in limits for value in [_limit(kind, most)]]
        settings = folder / "containers.conf"
        settings.write_text(
            f'[containers]\ndefault_ulimits = [{", ".join(values)}]\n[engine]\ninfra_image = "{PAUSE}"\n',
            encoding="utf-8",
        )
        # crun does not start with cgroups of both versions, as on some machines; runc does.
        self.program.write_text(
            f"#!/bin/sh\nexport CONTAINERS_CONF={settings}\n"
            f'exec podman {options} --runtime runc --cgroup-manager cgroupfs "$@"\n',
            encoding="utf-8",
        )
        self.program.chmod(0o755)

    def get_bases(self) -> None:
        """Pulls the base images, or makes their stand-ins."""
        self.real_bases = all(self._call("pull", "--quiet", base, timeout=120).code == 0 for base in BASES)
        if not self.real_bases:
            script = Path(__file__).with_name("base_images.sh")
            subprocess.run([script, self.program, self.folder], check=True, stdin=subprocess.DEVNULL)

    def _call(self, *arguments: str | Path, timeout: float | None = None) -> CommandResult:
        try:
            done = subprocess.run(
                [self.program, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, check=False, timeout=timeout,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return CommandResult(124, "no answer")
        # podman warns about files of the machine that it does not use here.
        lines = [line for line in done.stdout.splitlines(keepends=True) if "CNI config" not in line]
        return CommandResult(done.returncode, "".join(lines))

    def call(self, *arguments: str | Path) -> str:
        """Runs a command of podman that must succeed, and returns its output."""
        done = self._call(*arguments)
        assert done.code == 0, done.output
        return done.output

    def build(self, *targets: str) -> None:
        """Builds targets with deploy/docker/build.sh. The image has the tag ``test``."""
        flags = [
            "--isolation",
            "chroot",
            "--pull=never",
            "--layers",
            "--volume",
            f"{CERTIFICATES}:{MOUNTED_CERTIFICATES}:ro",
        ]
        variables = {
            "ENGINE": str(self.program), "TAG": "test", "BUILD_FLAGS": " ".join(flags),
            "PIP_CONFIG": str(self._write_pip_config()),
        }  # fmt: skip
        done = subprocess.run(
            [DOCKER / "build.sh", *targets], env={**os.environ, **variables}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-5000:]

    def _write_pip_config(self) -> Path:
        """Writes a pip.conf with the package index of this machine; folders of this machine are not in a build."""
        listed = subprocess.run(
            [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
        ).stdout
        values = dict(line.removeprefix("global.").split("=", 1) for line in listed.splitlines() if "global." in line)
        keys = ("index-url", "timeout", "proxy", "trusted-host")
        lines = [f"cert = {MOUNTED_CERTIFICATES}", *(f"{key} = {values[key][1:-1]}" for key in keys if key in values)]
        path = self.folder / "pip.conf"
        path.write_text("\n".join(["[global]", *lines]) + "\n", encoding="utf-8")
        return path

    def run(self, image: str, *arguments: str, options: tuple[str, ...] = (), memory: str = "3g") -> CommandResult:
        """Runs a container to its end, and returns its exit code and output."""
        return self._call(*self._command("--rm", image, *arguments, options=options, memory=memory))

    def start(self, image: str, *arguments: str, options: tuple[str, ...] = (), memory: str = "3g") -> Container:
        """Starts a container that runs until it is stopped or killed."""
        name = f"spamscore-test-{uuid.uuid4().hex[:8]}"
        self.call(*self._command("--detach", image, *arguments, options=("--name", name, *options), memory=memory))
        return Container(self, name)

    def _command(self, mode: str, image: str, *arguments: str, options: tuple[str, ...], memory: str) -> list[str]:
        # The user of the image shares the code that Numba has compiled, which takes half a minute.
        cache = () if "--user" in options else ("--volume", f"{self.compiled}:/tmp/numba")
        return ["run", mode, "--memory", memory, *HARDENED, *cache, *options, f"{image}:test", *arguments]

    def play(self, *objects: dict[str, Any]) -> None:
        """Creates and starts Kubernetes objects with `podman kube play`, with no network but loopback."""
        if self._call("image", "exists", PAUSE).code != 0:
            folder = self.folder / "pause"
            folder.mkdir()
            (folder / "Dockerfile").write_text(f'FROM {BASES[0]}\nENTRYPOINT ["sleep", "infinity"]\n', encoding="utf-8")
            self.call("build", "--isolation", "chroot", "--pull=never", "--tag", PAUSE, folder)
        path = self.folder / "objects.yaml"
        path.write_text(yaml.safe_dump_all(objects), encoding="utf-8")
        self.call("kube", "play", "--network", "none", path)

    def find_volume(self, name: str) -> Path:
        """Returns the folder of a named volume."""
        return Path(self.call("volume", "inspect", "--format", "{{.Mountpoint}}", name).strip())

    def clean(self) -> None:
        """Removes all containers and images, and unmounts the store."""
        self._call("pod", "rm", "--all", "--force", "--time", "0")
        self._call("rm", "--all", "--force", "--time", "0")
        self._call("rmi", "--all", "--force")
        self._call("unmount", "--all")
        subprocess.run(["umount", "--lazy", "--quiet", self.folder / "store" / "overlay"], check=False)


class Container:
    """A container that was started."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine, self.name = engine, name

    @property
    def log(self) -> str:
        return self._engine._call("logs", self.name).output

    def wait_for(self, text: str) -> None:
        """Waits until a text is in the log."""
        command = [self._engine.program, "logs", "--follow", self.name]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as follower:
            assert follower.stdout
            found = any(text in line for line in follower.stdout)  # ends with the container
            follower.terminate()
        assert found, self.log[-3000:]

    def execute(self, *command: str) -> CommandResult:
        """Runs a command in the container, as a health check does."""
        return self._engine._call("exec", self.name, *command)

    def kill(self, signal: str = "KILL") -> int:
        """Sends a signal to the first process, and returns the exit code of the container."""
        self._engine.call("kill", "--signal", signal, self.name)
        return self.wait()

    def wait(self) -> int:
        """Waits until the container has ended, and returns its exit code."""
        return int(self._engine.call("wait", self.name))


@dataclass(frozen=True)
class SocketDatabase:
    """A database that a container reaches by a socket.

    Attributes:
        engine: a connection for the test.
        options: of podman: they give the container the socket and the URL in a file, and no network.
    """

    engine: sa.Engine
    options: tuple[str, ...]

    def count_published(self, date: str) -> list[int]:
        """Returns the number of scores of each published batch of a date."""
        if not sa.inspect(self.engine).has_table("score_batches"):
            return []
        statement = sa.text("SELECT count(*) FROM published_scores WHERE batch_date = :date GROUP BY batch_id")
        with self.engine.connect() as connection:
            return list(connection.execute(statement, {"date": date}).scalars())


@contextlib.contextmanager
def socket_database(server: URL) -> Iterator[SocketDatabase]:
    """Creates a database on a PostgreSQL server that listens on a Unix socket, and drops it at the end."""
    with servers.temporary_database(server) as url, tempfile.TemporaryDirectory(prefix="spamscore-secret-") as folder:
        socket, secret = Path(str(url.query["host"])) / ".s.PGSQL.5432", Path(folder) / "database-url"
        inside = url.set(drivername="postgresql", query={"host": "/run/postgresql"})
        secret.write_text(inside.render_as_string(hide_password=False) + "\n", encoding="utf-8")
        secret.chmod(0o444)
        engine = sa.create_engine(url.set(drivername="postgresql+psycopg"), poolclass=sa.pool.NullPool)
        yield SocketDatabase(engine, (
            "--volume", f"{socket}:/run/postgresql/.s.PGSQL.5432", "--volume", f"{secret}:/run/secrets/database-url:ro",
            "--env", "SPAMSCORE_DATABASE_URL_FILE=/run/secrets/database-url",
        ))  # fmt: skip


def give(folder: Path, uid: int) -> tuple[str, ...]:
    """Gives a folder and its files to a user, and returns the options that make it the working folder."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, uid, uid)
    return ("--volume", f"{folder}:/srv/spamscore")


@contextlib.contextmanager
def small_volume(folder: Path, size: str) -> Iterator[tuple[str, ...]]:
    """Mounts a file system of a size on a folder, and yields the options that make it the working folder."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=1777", "tmpfs", folder], check=True)
    try:
        yield ("--volume", f"{folder}:/srv/spamscore")
    finally:
        subprocess.run(["umount", folder], check=True)


@contextlib.contextmanager
def container_engine() -> Iterator[Engine]:
    """Creates a store with the base images, and deletes it with all that was made in it."""
    folder = Path(tempfile.mkdtemp(prefix="spamscore-images-", dir="/var/tmp"))
    engine = Engine(folder)
    try:
        engine.get_bases()
        yield engine
    finally:
        engine.clean()
        shutil.rmtree(folder, ignore_errors=True)
        assert str(folder) not in Path("/proc/mounts").read_text(encoding="utf-8")
