"""Opens the file system of an address such as s3://bucket/in/messages.csv, and describes what it reports.

Credentials come from the environment or the files of each cloud's own tools, never from an address or luigi.cfg. fsspec
is imported when an address is used: a run on local files does not pay for it.
"""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator
from typing import Any

from models.errors import SpamscoreError
from tasks.settings.input_checks import ADDRESS
from tasks.settings.masking import mask_credentials

CONNECT_SECONDS = 5  # for each attempt to connect
READ_SECONDS = 10  # an attempt that receives no byte for this long has failed

# An endpoint that does not answer is reported within a minute: botocore repeats a request, s3fs repeats a cut answer.
_S3_OPTIONS = {
    "config_kwargs": {
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": READ_SECONDS,
        "retries": {"mode": "standard", "total_max_attempts": 2},
    }
}
_RETRIES = 2
OPTIONS: dict[str, dict[str, Any]] = {
    "s3": _S3_OPTIONS,
    "s3a": _S3_OPTIONS,
    "gs": {"timeout": READ_SECONDS},
    "file": {"auto_mkdir": True},
}

# The package and the extra of each scheme, and where its credentials come from.
_PACKAGES = {
    "s3": ("s3fs", "s3"),
    "s3a": ("s3fs", "s3"),
    "gs": ("gcsfs", "gs"),
    "abfs": ("adlfs", "abfs"),
    "abfss": ("adlfs", "abfs"),
}
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE with ~/.aws/credentials, or a role",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or gcloud auth application-default login",
    "abfs": "AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY, or AZURE_CLIENT_ID with its secret and tenant",
    "hdfs": "HADOOP_USER_NAME, or a ticket of kinit",
}
_HDFS = "HDFS needs Java and Hadoop: set JAVA_HOME, HADOOP_HOME and CLASSPATH=$(hadoop classpath --glob)"
# Errors by the names of their classes: each store has its own, and their packages are optional.
_UNREACHABLE = re.compile(r"Connect|Timeout|Payload|IncompleteRead|ResponseStreaming|ServiceRequest|gaierror")
_NO_CREDENTIALS = re.compile(r"Credential|TokenRetrieval|RefreshError|ClientAuthentication|Forbidden|Permission")
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_DENIED = re.compile(r"\b40[13]\b|denied|forbidden", re.IGNORECASE)


def is_address(path: object) -> bool:
    """Returns whether a path is an address, such as s3://bucket/messages.csv."""
    return ADDRESS.match(str(path)) is not None


def open_filesystem(address: str) -> tuple[Any, str]:
    """Returns fsspec's file system of an address, and the path of the address in it.

    A process that Luigi forks must ask again: connections belong to the process that opened them.
    """
    from fsspec.core import url_to_fs

    scheme = address.partition("://")[0]
    filesystem, path = url_to_fs(address, use_listings_cache=False, **OPTIONS.get(scheme, {}))
    if hasattr(filesystem, "retries"):
        filesystem.retries = _RETRIES
    return filesystem, path


@contextlib.contextmanager
def report_faults(where: str, address: str, error_type: type[SpamscoreError]) -> Iterator[None]:
    """Turns what a store reports into an error of one line, with the way out.

    Args:
        where: the setting and its value, for the error message.
        address: the address that is read or written.
        error_type: type of the error.
    """
    try:
        yield
    except SpamscoreError:
        raise
    except Exception as error:  # each store has errors of its own
        if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
            raise  # of this machine: `tasks.scheduler.failures` describes it
        raise error_type(f"{where}: {describe_fault(error, address)}") from None


def describe_fault(error: BaseException, address: str) -> str:
    """Says what is wrong with an address, and the way out. Credentials in the message of a store are masked."""
    scheme = address.partition("://")[0]
    chain = list(_causes(error))
    names = " ".join(type(cause).__name__ for cause in chain)
    text = mask_credentials(" ".join(f"{error}".split())[:300]) or type(error).__name__
    if isinstance(error, ImportError) and scheme in _PACKAGES:
        package, extra = _PACKAGES[scheme]
        return f"{scheme}:// needs the package {package}, which cannot be imported. pip install 'spamscore[{extra}]'"
    if scheme == "hdfs" and re.search("libjvm|libhdfs|CLASSPATH|JAVA_HOME|HADOOP_HOME", text):
        return f"{text}. {_HDFS}."
    if is_missing_bucket(error):
        return "no such bucket. Correct the setting, or create the bucket."
    if isinstance(error, FileNotFoundError) and "FileExpired" not in names:
        return "no such object. Provide it or correct the setting, and run again."
    if "FileExpired" in names:
        return CHANGED
    if isinstance(error, PermissionError) or _NO_CREDENTIALS.search(names) or _DENIED.search(text):
        return f"no permission ({text}). {_advise_on_permission(scheme)}"
    if isinstance(error, TimeoutError | ConnectionError) or _UNREACHABLE.search(names):
        return (
            f"the storage does not answer, or the connection broke ({text}). Check the network and, for a server of "
            "your own, AWS_ENDPOINT_URL; and run again."
        )
    return f"cannot be read or written: {text}."


def _advise_on_permission(scheme: str) -> str:
    credentials = _CREDENTIALS.get({"s3a": "s3", "abfss": "abfs"}.get(scheme, scheme))
    if credentials is None:
        return "Check the permissions of the folder."
    return (
        f"Credentials come from {credentials}. A user who may not list the bucket gets this answer for an object that "
        "does not exist too."
    )


CHANGED = "the object changed while it was read. Upload each version under a name of its own, and run again."


def is_missing_bucket(error: BaseException) -> bool:
    """Returns whether a store says that the bucket or container of an address does not exist."""
    is_missing = any(isinstance(cause, FileNotFoundError) for cause in _causes(error))
    text = " ".join(str(cause) for cause in _causes(error))
    return is_missing and re.search(r"NoSuchBucket|specified bucket|ContainerNotFound", text) is not None


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__
