"""What a store reports becomes one line with the way out, and shows no credential."""

from __future__ import annotations

import sys

import pytest
from fsspec.exceptions import FSTimeoutError

from models.errors import ArtifactError, InputError
from tasks.storage.addresses import describe_fault, is_address, open_filesystem, report_faults


@pytest.mark.parametrize(
    ("path", "expected"), [("s3://bucket/a.csv", True), ("in/a.csv", False), ("/mnt/s3:/a", False), ("C:/a.csv", False)]
)
def test_an_address_has_a_scheme(path: str, expected: bool) -> None:
    assert is_address(path) is expected


class NoCredentialsError(Exception):
    """As botocore names it."""


@pytest.mark.parametrize(
    ("error", "address", "expected"),
    [
        (FileNotFoundError("The specified bucket does not exist"), "s3://b/x", "no such bucket. "),
        (FileNotFoundError("b/x"), "s3://b/x", "no such object. "),
        (PermissionError("Access Denied"), "s3://b/x", "no permission (Access Denied). .*AWS_PROFILE"),
        (NoCredentialsError("Unable to locate credentials"), "s3a://b/x", "no permission .*AWS_ACCESS_KEY_ID"),
        (OSError("Forbidden: 403"), "gs://b/x", "no permission .*GOOGLE_APPLICATION_CREDENTIALS"),
        (ConnectionRefusedError("refused"), "s3://b/x", "the storage does not answer.*AWS_ENDPOINT_URL"),
        (FSTimeoutError("x"), "s3://b/x", "the storage does not answer"),
        (ImportError("Install s3fs"), "s3://b/x", "s3:// needs the package s3fs.*pip install 'spamscore[s3]'"),
        (ImportError("Install gcsfs"), "gs://b/x", "pip install 'spamscore[gs]'"),
        (ImportError("Install adlfs"), "abfss://c@a/x", "pip install 'spamscore[abfs]'"),
        (OSError("Unable to load libjvm"), "hdfs://h/x", "Unable to load libjvm. HDFS needs Java.*CLASSPATH"),
        (ValueError("odd\nlines"), "s3://b/x", "cannot be read or written: odd lines."),
    ],
)
def test_a_fault_is_one_line_with_the_way_out(error: Exception, address: str, expected: str) -> None:
    text = describe_fault(error, address)
    assert [text for part in expected.split(".*") if part not in text] == []
    assert "\n" not in text


def test_credentials_in_the_message_of_a_store_are_masked() -> None:
    error = ConnectionError('Could not connect to "http://user:hunter2@host:9000/b"')
    with pytest.raises(ArtifactError) as raised, report_faults("[artifacts] shared = s3://b", "s3://b", ArtifactError):
        raise error
    assert "hunter2" not in str(raised.value)
    assert str(raised.value).startswith("[artifacts] shared = s3://b: the storage does not answer")


def test_without_the_package_of_a_scheme_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "adlfs", None)
    with (
        pytest.raises(InputError, match=r"pip install 'spamscore\[abfs\]'"),
        report_faults("p", "abfs://c/x", InputError),
    ):
        open_filesystem("abfs://c/x")
