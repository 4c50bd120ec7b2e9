"""The date formats, time zones and paths that [corpus] and [messages] accept, and what a refusal says."""

from __future__ import annotations

import datetime

import pytest

from models.errors import SettingsError
from tasks.settings.input_checks import check_date_format, check_path, check_time_zone, format_placeholder
from tasks.settings.inputs import CorpusSettings, MessagesSettings

DATE = datetime.date(2026, 1, 31)


@pytest.mark.parametrize(
    "date_format",
    [
        "iso", "epoch_seconds", "epoch_milliseconds", "%d/%m/%Y", "%m/%d/%y %I:%M %p", "%Y%j", "%G-%V-%u", "%x", "%c",
        "%a %b %d %H:%M:%S %z %Y", "%Y-%m-%dT%H:%M:%S.%f%z", "%%%Y%m%d",
    ],
)  # fmt: skip
def test_a_format_that_gives_a_whole_date_is_accepted(date_format: str) -> None:
    check_date_format(date_format)


@pytest.mark.parametrize(
    ("date_format", "reason"),
    [
        ("", r"such as %d/%m/%Y"),
        ("ISO", r"epoch_seconds, epoch_milliseconds, or a format of Python's strptime"),
        ("epoch", r"epoch_milliseconds"),
        ("DD/MM/YYYY", r"such as %d/%m/%Y"),
        ("%d/%m", r"A date needs year, month and day\."),
        ("%H:%M", r"A date needs year, month and day\."),
        ("%Y-%m", r"A date needs year, month and day\."),
        ("%s", r"'s' is a bad directive"),
        ("%Q", r"'Q' is a bad directive"),
        ("%d.%m.%Y %", r"stray %"),
        ("%d/%d/%m/%Y", r"redefinition of group name 'd'"),
    ],
)
def test_another_format_is_refused_with_the_formats_there_are(date_format: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=rf"(?s)^\[messages\] date_format = .*: expected iso, .*{reason}"):
        MessagesSettings(date_format=date_format)


@pytest.mark.parametrize("name", ["local", "UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires"])
def test_a_time_zone_of_the_database_is_accepted(name: str) -> None:
    check_time_zone(name)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("Europe/Berln", "did you mean Europe/Berlin or"), ("europe/berlin", "did you mean Europe/Berlin or"), ("", ""),
        ("Europe", ""), ("../etc/passwd", ""), ("+02:00", ""), ("a" * 300, ""),
    ],
)  # fmt: skip
def test_an_unknown_time_zone_is_refused_with_similar_names(name: str, suggestion: str) -> None:
    with pytest.raises(SettingsError) as error:
        MessagesSettings(timezone=name)
    assert f"[messages] timezone = {name}: expected local, or the name of a time zone" in str(error.value)
    assert suggestion in str(error.value)


@pytest.mark.parametrize("scheme", ["https", "file", "memory", "FTP", "S3"])
@pytest.mark.parametrize("settings", [MessagesSettings, CorpusSettings])
def test_an_address_is_refused_and_not_repeated(settings: type, scheme: str) -> None:
    with pytest.raises(
        SettingsError, match=rf"path = {scheme}://…: expected a path on this machine or .*s3://.*copy"
    ) as error:
        settings(source="file", path=f"{scheme}://user:hunter2@bucket/x.csv?signature=hunter2")
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    "address",
    [
        "s3://bucket/in/{date}.csv", "s3://my-bucket.eu/in/**/*.csv.gz", "s3a://bucket/a@b.csv", "s3://bucket/a?.csv",
        "gs://bucket/in/[ab].csv", "hdfs://namenode:8020/in/a.csv", "hdfs:///in/a.csv", "abfs://container/in/a.csv",
        "abfss://container@account.dfs.core.windows.net/in/a.parquet",
    ],
)  # fmt: skip
def test_an_address_on_object_storage_is_accepted(address: str) -> None:
    assert MessagesSettings(source="file", path=address).path == address


@pytest.mark.parametrize(
    "address",
    [
        "s3://user:hunter2@bucket/in.csv", "s3://hunter2@bucket/in.csv", "gs://user:hunter2/@bucket/in.csv",
        "hdfs://user:hunter2@namenode:8020/in.csv", "abfs://container:hunter2@account.dfs.core.windows.net/in.csv",
        "s3://bucket/in.csv?X-Amz-Signature=hunter2", "abfs://container/in.csv?sv=1&sig=hunter2",
        "gs://bucket/in.csv?access_token=hunter2",
    ],
)  # fmt: skip
@pytest.mark.parametrize("settings", [MessagesSettings, CorpusSettings])
def test_credentials_in_an_address_are_refused_and_not_repeated(settings: type, address: str) -> None:
    with pytest.raises(SettingsError, match=r"path = \w+://…: .*without a user, password or signature") as error:
        settings(source="file", path=address)
    assert "hunter2" not in str(error.value)


def test_the_path_of_another_source_is_not_checked() -> None:
    assert MessagesSettings(source="bundled", path="{x}").path == "{x}"


@pytest.mark.parametrize(
    ("placeholder", "text"),
    [("date", "2026-01-31"), ("date:%Y%m%d", "20260131"), ("date:%Y/%m/%d", "2026/01/31"), ("date:%j", "031")],
)
def test_a_placeholder_is_replaced_by_the_date(placeholder: str, text: str) -> None:
    assert format_placeholder(placeholder, DATE) == text
    check_path("messages", f"in/{{{placeholder}}}.csv")


@pytest.mark.parametrize(
    "placeholder", ["", "day", "Date", "date:", "date:YYYYMMDD", "date:%Q", "date:%Y%", "dates:%Y"]
)
def test_an_unknown_placeholder_is_refused_with_those_there_are(placeholder: str) -> None:
    with pytest.raises(SettingsError, match=r"expected \{date\} for 2026-01-31, .* \{date:%Y%m%d\} for 20260131"):
        MessagesSettings(source="file", path=f"in/{{{placeholder}}}.csv")


@pytest.mark.parametrize("path", ["{date}.csv", "in/{x}.csv"])
def test_a_corpus_path_has_no_placeholders(path: str) -> None:
    with pytest.raises(SettingsError, match=r"\[corpus\] path = .*: \{\w+\} is not known here"):
        CorpusSettings(source="file", path=path)
