"""How the dates of messages are read: formats, time zones, and texts that must not be taken for another date."""

from __future__ import annotations

import datetime
import zoneinfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.settings.inputs import MessagesSettings
from tasks.sources.dates import OtherDates, make_date_reader, select_date
from tasks.sources.rows import SourceRow

DATE = datetime.date(2026, 1, 31)
UTC, BERLIN = datetime.UTC, zoneinfo.ZoneInfo("Europe/Berlin")
SECONDS, MILLISECONDS = "epoch_seconds", "epoch_milliseconds"


def read(text: str | None, date_format: str, zone: datetime.tzinfo | None = UTC) -> str:
    """Returns the date of a text, or the fault."""
    try:
        return str(make_date_reader(date_format, zone)(text))
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("2026-01-31", "2026-01-31"),
        ("20260131", "2026-01-31"),
        ("20260131T120000", "2026-01-31"),
        (" 2026-01-31T10:00:00Z ", "2026-01-31"),
        ("2026-01-31t10:00z", "2026-01-31"),
        ("2026-01-31 23:59:59.123456789-11:00", "2026-01-31"),
        ("2026-01-31 23:59:59 +0530", "2026-01-31"),
        ("2026-01-31 23:59+01", "2026-01-31"),
        ("2026-W05-6", "2026-01-31"),
        ("2026W056", "2026-01-31"),
        ("17690412", "1769-04-12"),
    ],
)
def test_iso_8601_is_read_with_the_date_as_it_is_written(text: str, date: str) -> None:
    assert read(text, "iso", BERLIN) == date


@pytest.mark.parametrize(
    "text",
    [
        "2026-02-30", "31.01.2026", "2026-01", "2026-W05", "2026W05", "2026W0561200", "2026031", "202601",
        "17690412.05",
        "20260131120000", "2026-01-31x10", "20260131-1200", "2026-01-31T24:00", "0000-00-00", "-2026-01-31", "infinity",
        "٢٠٢٦-٠١-٣١", "<value out of range: 1>", "2026-01-31 and more",
    ],
)  # fmt: skip
def test_a_text_that_is_no_iso_date_is_refused(text: str) -> None:
    expected = "expected ISO 8601 such as 2026-01-31; set [messages] date_format if dates are written differently"
    assert read(text, "iso") == f"unreadable date: received {text!r}, {expected}"


@pytest.mark.parametrize("text", [None, "", "  "])
@pytest.mark.parametrize("date_format", ["iso", SECONDS, MILLISECONDS, "%d/%m/%Y"])
def test_a_missing_date_is_refused(text: str | None, date_format: str) -> None:
    assert read(text, date_format) == "unreadable date: there is none"


@pytest.mark.parametrize(
    ("text", "date_format", "date", "readable_as"),
    [
        ("1769041200000", "iso", "2026-01-22", MILLISECONDS),  # Python reads it as 1769-04-12
        ("1769041200000.0", "iso", "2026-01-22", MILLISECONDS),
        ("1.7690412e12", "iso", "2026-01-22", MILLISECONDS),
        ("1769041200", "iso", "2026-01-22", SECONDS),
        ("1769041200000", SECONDS, "2026-01-22", MILLISECONDS),
        ("1769041200", MILLISECONDS, "2026-01-22", SECONDS),  # as milliseconds it would be in 1970
        ("20260131", SECONDS, "2026-01-31", "iso"),
        ("2026-01-31T10:00", MILLISECONDS, "2026-01-31", "iso"),
        ("2026-01-31", "%d/%m/%Y", "2026-01-31", "iso"),
        ("1769041200", "%d/%m/%Y", "2026-01-22", SECONDS),
    ],
)
def test_a_date_in_another_format_is_refused_with_the_format_that_reads_it(
    text: str, date_format: str, date: str, readable_as: str
) -> None:
    fault = read(text, date_format)
    assert fault.startswith(f"unreadable date: received {text!r}, expected ")
    assert fault.endswith(f"; as {readable_as} it is {date}: set [messages] date_format = {readable_as}")
    assert read(text, readable_as) == date


@pytest.mark.parametrize(
    ("text", "unit"), [("1769041200000000", "microseconds"), ("1769041200000000000", "nanoseconds")]
)
def test_a_unit_that_no_format_reads_is_named(text: str, unit: str) -> None:
    assert f"as epoch {unit} it is 2026-01-22: divide the column" in read(text, "iso")


@pytest.mark.parametrize(
    ("text", "date_format", "date"),
    [
        ("1769817600", SECONDS, "2026-01-31"),
        ("1769817599", SECONDS, "2026-01-30"),
        ("1769817599.9999999", SECONDS, "2026-01-30"),
        ("1769817600.", SECONDS, "2026-01-31"),
        ("+1769817600", SECONDS, "2026-01-31"),
        ("0", SECONDS, "1970-01-01"),
        ("-1", SECONDS, "1969-12-31"),
        ("-0.5", SECONDS, "1969-12-31"),
        ("1769817600000", MILLISECONDS, "2026-01-31"),
        ("1769817599999.9", MILLISECONDS, "2026-01-30"),
        ("1769817600000.0", MILLISECONDS, "2026-01-31"),
        ("0", MILLISECONDS, "1970-01-01"),
        ("1.7690412e12", MILLISECONDS, "2026-01-22"),
        ("1.7690412E+12", MILLISECONDS, "2026-01-22"),
        ("1.7690412e9", SECONDS, "2026-01-22"),
    ],
)
def test_epoch_times_are_read(text: str, date_format: str, date: str) -> None:
    assert read(text, date_format) == date


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.76904E+12", "all digits of the number: rounded, it may belong to another date"),
        ("yesterday", "a number"), ("nan", "a number"), ("inf", "a number"), ("1_0", "a number"), ("0x10", "a number"),
        ("1,769,041,200,000", "a number"), ("1 769", "a number"), ("١٢", "a number"),
        ("1e99", "a time of the years 1 to 9999"), ("-1e30", "a time of the years 1 to 9999"),
    ],
)  # fmt: skip
def test_a_text_that_is_no_epoch_time_is_refused(text: str, expected: str) -> None:
    assert read(text, MILLISECONDS) == f"unreadable date: received {text!r}, expected {expected}"


@pytest.mark.parametrize(
    ("seconds", "zone", "date"),
    [
        (1774738799, "Europe/Berlin", "2026-03-28"),  # 2026-03-28 23:59:59 CET, before clocks go forward
        (1774738800, "Europe/Berlin", "2026-03-29"),
        (1774821599, "Europe/Berlin", "2026-03-29"),  # 23:59:59 CEST, 23 hours later
        (1774821600, "Europe/Berlin", "2026-03-30"),
        (1792965599, "Europe/Berlin", "2026-10-25"),  # an hour more than UTC+1, as clocks went back
        (1798757999, "Europe/Berlin", "2026-12-31"),
        (1798758000, "Europe/Berlin", "2027-01-01"),
        (1798758000, "America/New_York", "2026-12-31"),
        (1798758000, "UTC", "2026-12-31"),
    ],
)
def test_epoch_times_are_converted_to_the_time_zone(seconds: int, zone: str, date: str) -> None:
    assert read(str(seconds), SECONDS, zoneinfo.ZoneInfo(zone)) == date
    assert read(f"{seconds}000", MILLISECONDS, zoneinfo.ZoneInfo(zone)) == date


@pytest.mark.usefixtures("machine_in_tokyo")
def test_without_a_time_zone_epoch_times_are_converted_to_that_of_the_machine() -> None:
    assert [read(text, SECONDS, None) for text in ("1769871599", "1769871600")] == ["2026-01-31", "2026-02-01"]


@pytest.mark.parametrize(
    ("text", "date_format", "date"),
    [
        ("31/01/2026", "%d/%m/%Y", "2026-01-31"),
        ("01/31/26 11:59 PM", "%m/%d/%y %I:%M %p", "2026-01-31"),
        ("31. Jan  2026", "%d. %b %Y", "2026-01-31"),
        ("Sat Jan 31 23:59:59 -0800 2026", "%a %b %d %H:%M:%S %z %Y", "2026-01-31"),
        ("20260131120000", "%Y%m%d%H%M%S", "2026-01-31"),
    ],
)
def test_a_format_of_strptime_is_read_without_conversion(text: str, date_format: str, date: str) -> None:
    assert read(text, date_format, BERLIN) == date


@pytest.mark.parametrize("text", ["31/13/2026", "31/01/2026 10:00", "31/01/26"])
def test_a_text_in_another_format_is_refused_with_the_format(text: str) -> None:
    assert read(text, "%d/%m/%Y") == f"unreadable date: received {text!r}, expected %d/%m/%Y"


def test_a_long_text_is_cut_in_the_fault() -> None:
    assert f"received '{'x' * 40}…'," in read("x" * 41, "iso")


@given(st.text(alphabet="0123456789", min_size=1, max_size=20))
def test_digits_are_a_date_only_if_there_are_eight(digits: str) -> None:
    date = read(digits, "iso")
    if len(digits) == 8 and not date.startswith("unreadable"):
        assert date == f"{digits[:4]}-{digits[4:6]}-{digits[6:]}"
    else:
        assert date.startswith("unreadable date: ")


@given(st.datetimes(datetime.datetime(1950, 1, 1), datetime.datetime(2150, 1, 1)), st.sampled_from([UTC, BERLIN]))
def test_an_epoch_time_has_the_date_of_the_time_or_is_refused(moment: datetime.datetime, zone: datetime.tzinfo) -> None:
    aware = moment.replace(microsecond=0, tzinfo=UTC)
    for date_format, factor in ((SECONDS, 1), (MILLISECONDS, 1000)):
        date = read(str(int(aware.timestamp()) * factor), date_format, zone)
        assert date == str(aware.astimezone(zone).date()) or date.startswith("unreadable date: ")
        assert not 2000 <= aware.year < 2100 or not date.startswith("unreadable")


@given(st.lists(st.one_of(st.none(), st.text(max_size=12), st.dates().map(str), st.just("2026-01-31"))))
def test_every_row_is_selected_or_counted(values: list[str | None]) -> None:
    other_dates = OtherDates()
    rows = [SourceRow(number, {"sent": value}, None) for number, value in enumerate(values, 1)]
    selected = list(select_date(rows, MessagesSettings(date_column="sent"), DATE, other_dates))
    assert len(selected) + other_dates.rows == len(rows)
    assert all((read(row.values["sent"], "iso") == str(DATE)) is (row.fault is None) for row in selected)


def test_the_fault_that_a_row_already_has_is_kept() -> None:
    rows = [SourceRow(1, {"sent": None}, "wrong number of fields: expected 3, received 2 (line 2)")]
    assert list(select_date(rows, MessagesSettings(date_column="sent"), DATE, OtherDates())) == rows
