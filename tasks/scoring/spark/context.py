"""Opens and closes the Spark context of a run, with the JVM that it lives in.

PySpark passes the options of a context to its JVM on the command line, where every user of the machine sees them, and
shows those of executors' environments on its web page. Therefore the JVM is started with the options that it must have
at its start only. The others are sent through its socket, and the database URL goes with the tasks, into the
environment of the Python processes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from models.errors import ClusterError, SettingsError
from tasks.settings.spark import SparkSettings

if TYPE_CHECKING:
    from pyspark import SparkContext

HEAP_MIB = 512  # of the driver's JVM, and of each executor's
_CONNECT_TIMEOUT = 5.0  # seconds
_STOP_TIMEOUT = 20.0  # seconds
_SHOWN_CHARACTERS = 600  # of the JVM's own output, if it does not start
_LOG_CONFIGURATION = Path(__file__).with_name("log4j2.properties")
_ARCHIVE_FOLDER = "environment"
_JVM_ENDED = "its JVM has ended"
# Options that the JVM of the driver needs at its start.
_START_OPTIONS = (
    "spark.driver.memory", "spark.driver.extraJavaOptions", "spark.driver.extraClassPath", "spark.jars",
    "spark.jars.packages", "spark.master",
)  # fmt: skip


class SparkConnection:
    """A Spark context and its JVM, opened by `open_context`."""

    def __init__(self, context: SparkContext, jvm: subprocess.Popen[bytes]) -> None:
        self.context, self._jvm = context, jvm

    def close(self) -> None:
        """Stops the application and its JVM."""
        from py4j.protocol import Py4JError
        from pyspark import SparkContext

        if self._jvm.poll() is None:
            with contextlib.suppress(Py4JError, OSError):  # the JVM may end meanwhile
                self.context.stop()
        # Otherwise PySpark would give the next context of this process a JVM that has ended.
        SparkContext._active_spark_context = SparkContext._gateway = SparkContext._jvm = None
        if self._jvm.stdin is not None:
            self._jvm.stdin.close()  # the JVM ends with it
        try:
            self._jvm.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._jvm.kill()
            self._jvm.wait()


def open_context(settings: SparkSettings, name: str, environment: dict[str, str]) -> SparkConnection:
    """Starts a JVM and connects it to the cluster.

    Args:
        settings: the [spark] section.
        name: name of the application, for Spark's web page.
        environment: environment of the executors' Python processes, which may have secrets.

    Raises:
        SettingsError: PySpark or Java is not installed.
        ClusterError: the cluster cannot be reached.
    """
    _require_java()
    try:
        import pyspark  # noqa: F401
    except ModuleNotFoundError:
        raise SettingsError(
            "[scoring] engine = spark: pyspark is not installed. Install it: pip install 'spamscore[spark]'; or set "
            "[scoring] engine = local."
        ) from None
    _require_reachable(settings.master)
    options = make_options(settings, name)
    os.environ["PYSPARK_PYTHON"] = options["spark.pyspark.python"]
    with _captured_output(settings) as output, warnings.catch_warnings():
        # Of pandas 3, which this engine does not use with Spark. A context imports all of PySpark.
        warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)
        connection = _start(settings, options, output)
    connection.context.environment.update(environment)
    # PySpark's server for accumulators, which this program does not use, prints a traceback if the JVM is killed.
    connection.context._accumulatorServer.handle_error = lambda *_: None  # type: ignore[method-assign]
    return connection


def make_options(settings: SparkSettings, name: str) -> dict[str, str]:
    """Returns the options of the application: those of [spark], and [spark] options, which take precedence.

    An executor runs one task at a time, which uses all its cores, so that its threads share one model.
    """
    cores = settings.executor_cores
    python = settings.python or (f"./{_ARCHIVE_FOLDER}/bin/python" if settings.archive else sys.executable)
    archive = {"spark.archives": f"{settings.archive}#{_ARCHIVE_FOLDER}"} if settings.archive else {}
    defaults = {
        "spark.master": settings.master,
        "spark.app.name": name,
        "spark.pyspark.python": python,
        "spark.driver.memory": f"{HEAP_MIB}m",
        "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={_LOG_CONFIGURATION.as_uri()} "
        f"-Dspamscore.log={settings.log}",
        "spark.executor.cores": str(cores),
        "spark.task.cpus": str(cores),
        "spark.cores.max": str(cores * settings.executor_count),  # standalone
        "spark.executor.instances": str(settings.executor_count),  # YARN, Kubernetes
        "spark.executor.memory": f"{HEAP_MIB}m",
        "spark.executor.memoryOverhead": f"{settings.memory - HEAP_MIB}m",
        "spark.locality.wait": "0s",  # the chunks are on shared storage
        "spark.speculation": "true",  # safe, because the ledger rejects a second copy of a chunk
        # A copy that is faster ends the other one: an executor that loads the model must not lose it for a small batch.
        "spark.speculation.minTaskRuntime": "30s",
        "spark.ui.showConsoleProgress": "false",
        **archive,
    }
    return {**defaults, **settings.parse_options()}


def _require_java() -> None:
    home = os.environ.get("JAVA_HOME", "")
    if not shutil.which(f"{home}/bin/java" if home else "java"):
        found = f"JAVA_HOME = {home} has no bin/java" if home else "no java is in PATH"
        raise SettingsError(
            f"[scoring] engine = spark: Java is not installed: {found}. Install Java 17 or 21, such as Debian's "
            "openjdk-17-jre-headless; or set [scoring] engine = local."
        )


def _require_reachable(master: str) -> None:
    """Checks that a standalone master answers. Spark itself would try for a minute, and then say little.

    Raises:
        ClusterError: none of the addresses of the master accepts a connection.
    """
    if not master.startswith("spark://"):
        return
    errors = []
    for address in master.removeprefix("spark://").split(","):
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT_TIMEOUT).close()
        except OSError as error:
            errors.append(f"{address}: {error.strerror or error}")
        else:
            return
    raise ClusterError(
        f"[spark] master = {master}: cannot be reached: {'; '.join(errors)}. Start the master, or correct the address."
    )


@contextlib.contextmanager
def _captured_output(settings: SparkSettings) -> Iterator[IO[bytes] | None]:
    """Gives the file that receives the JVM's own output; None for this process's stderr, if [spark] log shows it."""
    if settings.log != "OFF":
        yield None
        return
    with tempfile.TemporaryFile() as output:
        yield output


def _start(settings: SparkSettings, options: dict[str, str], output: IO[bytes] | None) -> SparkConnection:
    from py4j.protocol import Py4JError
    from pyspark import SparkConf, SparkContext
    from pyspark.errors import PySparkException
    from pyspark.java_gateway import launch_gateway

    start = SparkConf(loadDefaults=False).setAll([(key, options[key]) for key in _START_OPTIONS if key in options])
    popen: dict[str, Any] = {} if output is None else {"stdout": output, "stderr": output}
    gateway = None
    try:
        gateway = launch_gateway(start, popen)
        conf = SparkConf(loadDefaults=False).setAll(list(options.items()))
        return SparkConnection(SparkContext(conf=conf, gateway=gateway), gateway.proc)
    except (Py4JError, PySparkException, OSError) as error:
        cause = describe_failure(error)  # the text is in the JVM
        if gateway is not None:
            gateway.proc.kill()
            gateway.proc.wait()
            SparkContext._active_spark_context = SparkContext._gateway = SparkContext._jvm = None
        raise ClusterError(
            f"[spark] master = {settings.master}: Spark did not start: {cause}"
            f"{'' if gateway else _read_tail(output)}. For Spark's own log, set [spark] log = INFO."
        ) from None


def _read_tail(output: IO[bytes] | None) -> str:
    if output is None:
        return ""
    output.seek(0)
    lines = [line for line in output.read().decode(errors="replace").splitlines() if line.strip()]
    text = " ".join(lines)[-_SHOWN_CHARACTERS:]
    return f" ({text})" if text else ""


def describe_failure(error: BaseException) -> str:
    """Returns the cause of an error of Spark, on one line."""
    lines = [line.strip() for line in read_message(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:_SHOWN_CHARACTERS]


def read_message(error: BaseException) -> str:
    """Returns the text of an error of Spark, with the traceback of an executor. The JVM has it, and may have ended."""
    from py4j.protocol import Py4JError, Py4JNetworkError

    java = getattr(error, "java_exception", None)
    if isinstance(error, Py4JNetworkError | ConnectionError):
        return _JVM_ENDED
    try:
        return str(error) if java is None else str(java.getMessage() or java.toString())
    except (Py4JError, OSError):
        return _JVM_ENDED
