"""Starts a standalone Spark cluster on loopback: a master, and workers of one core each with addresses of their own."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from eventually import eventually
from missing import skip_or_fail
from servers import free_port

WORKER_MEMORY = "3g"
# The processes of a test live for seconds: compiling their code well, or collecting garbage in parallel, costs more.
QUICK_JAVA = {"JDK_JAVA_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}
_MASTER = "org.apache.spark.deploy.master.Master"
_WORKER = "org.apache.spark.deploy.worker.Worker"


def require_spark() -> None:
    """Skips the test if PySpark or Java is missing; fails it where all servers are expected."""
    missing = []
    try:
        import pyspark  # noqa: F401
    except ModuleNotFoundError:
        missing.append("pyspark is not installed (pip install 'spamscore[spark]')")
    if shutil.which("java") is None:
        missing.append("java is not installed (apt-get install openjdk-17-jre-headless)")
    if missing:
        message = f"skipped: {' and '.join(missing)}"
        skip_or_fail(message)


class SparkProcess:
    """A master or a worker, with its log."""

    def __init__(self, folder: Path, name: str, arguments: list[str], environment: dict[str, str]) -> None:
        import pyspark

        home = Path(pyspark.__file__).parent
        self.log = folder / f"{name}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(home / "bin/spark-class"), *arguments],
                stdout=log, stderr=log, cwd=folder, start_new_session=True,
                env={**environment, "SPARK_HOME": str(home)},
            )  # fmt: skip

    def read_log(self) -> str:
        return self.log.read_text(errors="replace")

    def children(self) -> list[psutil.Process]:
        """Returns the processes that this process started: executors and their Python processes."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def send(self, number: int) -> None:
        """Sends a signal to the process and to all that it started."""
        for process in (*self.children(), self.process):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def kill(self) -> None:
        """Kills the process and all that it started."""
        self.send(signal.SIGKILL)
        self.process.wait()


class SparkCluster:
    """A master and its workers. Attributes: `url` of the master, `page` of its web page, `workers`."""

    def __init__(self, folder: Path, workers: int, variables: dict[str, str]) -> None:
        self.folder, self.port = folder, free_port()
        self.url, self.page = f"spark://127.0.0.1:{self.port}", f"http://127.0.0.1:{free_port()}"
        # A master that was killed finds its workers and applications again.
        options = f"-Dspark.deploy.recoveryMode=FILESYSTEM -Dspark.deploy.recoveryDirectory={folder}/recovery"
        self._environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("SPAMSCORE_")},
            **QUICK_JAVA,
            "SPARK_MASTER_OPTS": options, "SPARK_LOCAL_DIRS": f"{folder}/local", "SPARK_DAEMON_MEMORY": "256m",
            "PYTHONPATH": str(Path(__file__).parents[2]), **variables,
        }  # fmt: skip
        self.master = self.start_master()
        self.workers = [self.start_worker(number) for number in range(workers)]
        self.wait_for_workers(workers)

    def start_master(self) -> SparkProcess:
        """Starts the master, also again after it was killed."""
        arguments = [_MASTER, "--host", "127.0.0.1", "--port", str(self.port), "--webui-port", self.page.split(":")[-1]]
        master = SparkProcess(self.folder, "master", arguments, self._environment)
        eventually(lambda: "I have been elected leader" in master.read_log(), detail=master.read_log)
        return master

    def restart_master(self) -> None:
        """Kills the master and starts it again; waits until it has found its workers and applications."""
        applications = len(self.state()["activeapps"])
        self.master.kill()
        self.master = self.start_master()
        self.wait_for_workers(len(self.workers))
        eventually(lambda: len(self.state().get("activeapps", [])), lambda number: number == applications)

    def restart_worker(self, number: int, **variables: str) -> None:
        """Kills a worker, if it runs, and starts it again with variables in its environment."""
        self.workers[number].kill()
        self.workers[number] = self.start_worker(number, **variables)
        self.wait_for_workers(len(self.workers))

    def start_worker(self, number: int, **variables: str) -> SparkProcess:
        """Starts a worker of one core; each has an address of its own, so that speculation may use another one."""
        host = f"127.0.0.{number + 1}"
        arguments = [
            _WORKER, "--cores", "1", "--memory", WORKER_MEMORY, "--host", host, "--webui-port", "0",
            "--work-dir", f"{self.folder}/worker-{number}", self.url,
        ]  # fmt: skip
        environment = {**self._environment, "SPARK_LOCAL_IP": host, **variables}
        return SparkProcess(self.folder, f"worker-{number}", arguments, environment)

    def wait_for_workers(self, number: int) -> None:
        """Waits until so many workers have registered."""
        eventually(lambda: self.state()["aliveworkers"] == number, detail=self._read_logs)

    def state(self) -> dict[str, Any]:
        """Returns what the master tells of itself, its workers and its applications."""
        import json

        try:
            with urllib.request.urlopen(f"{self.page}/json/", timeout=10) as answer:
                return dict(json.load(answer))
        except (OSError, ValueError):  # it is not up, or recovers
            return {"aliveworkers": -1}

    def find_python_workers(self) -> list[psutil.Process]:
        """Returns the Python processes of executors that have loaded TensorFlow."""
        found = []
        for worker in self.workers:
            for process in worker.children():
                with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    is_python = "python" in Path(process.exe()).name
                    if is_python and re.search("tensorflow", Path(f"/proc/{process.pid}/maps").read_text()):
                        found.append(process)
        return found

    def find_executors(self) -> list[psutil.Process]:
        """Returns the JVMs of executors."""
        found = []
        for worker in self.workers:
            for process in worker.children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    if "CoarseGrainedExecutorBackend" in " ".join(process.cmdline()):
                        found.append(process)
        return found

    def stop(self) -> None:
        """Kills everything."""
        for process in (*self.workers, self.master):
            process.kill()

    def _read_logs(self) -> str:
        return "\n".join(process.read_log()[-3000:] for process in (self.master, *self.workers))


@contextlib.contextmanager
def spark_cluster(workers: int = 2, **variables: str) -> Iterator[SparkCluster]:
    """Starts a cluster with variables in its environment; kills it and deletes its files at the end."""
    with tempfile.TemporaryDirectory(prefix="spamscore-spark-", ignore_cleanup_errors=True) as folder:
        cluster = SparkCluster(Path(folder), workers, variables)
        try:
            yield cluster
        finally:
            cluster.stop()
