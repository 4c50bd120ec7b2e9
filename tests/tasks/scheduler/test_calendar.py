"""When a date begins and ends in a time zone, which date is today, and which dates can be scored."""

from __future__ import annotations

import datetime
import zoneinfo
from collections.abc import Callable

import pytest

from models.errors import DateNotOverError
from tasks.extract_messages import ExtractMessages
from tasks.scheduler import calendar
from tasks.scheduler.parameters import DatesParameter, YesterdayParameter
from tasks.score_batch import ScoreBatch

DATE = datetime.date(2026, 1, 31)
DAY = datetime.timedelta(days=1)
Configure = Callable[..., None]


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch, set_settings: Configure) -> Callable[..., None]:
    """Sets the clock, in UTC, and settings of [messages]: `at("2026-01-31 23:30", timezone="UTC")`."""

    def set_clock(moment: str, **settings: str) -> None:
        now = datetime.datetime.fromisoformat(moment).replace(tzinfo=datetime.UTC)
        monkeypatch.setattr(calendar, "current_time", lambda: now)
        set_settings("messages", **settings)

    return set_clock


@pytest.mark.parametrize(
    ("zone", "date", "start", "hours"),
    [
        ("UTC", "2026-01-31", "2026-01-31 00:00+00:00", 24),
        ("Europe/Berlin", "2026-03-29", "2026-03-28 23:00+00:00", 23),  # clocks go forward
        ("Europe/Berlin", "2026-10-25", "2026-10-24 22:00+00:00", 25),  # clocks go back
        ("Europe/Berlin", "2026-12-31", "2026-12-30 23:00+00:00", 24),
        ("Pacific/Kiritimati", "2027-01-01", "2026-12-31 10:00+00:00", 24),
        ("Africa/Cairo", "2026-04-24", "2026-04-23 22:00+00:00", 23),  # clocks skip the first hour of the day
        ("Atlantic/Azores", "2026-10-25", "2026-10-25 00:00+00:00", 25),  # midnight comes twice
        ("Pacific/Apia", "2011-12-30", "2011-12-30 10:00+00:00", 0),  # the whole day was skipped
    ],
)
def test_a_day_begins_and_ends_as_its_time_zone_says(zone: str, date: str, start: str, hours: int) -> None:
    day = datetime.date.fromisoformat(date)
    begin, end = (
        calendar.start_of_day(day + number * DAY, zoneinfo.ZoneInfo(zone)).astimezone(datetime.UTC) for number in (0, 1)
    )
    assert (begin, end - begin) == (datetime.datetime.fromisoformat(start), datetime.timedelta(hours=hours))


@pytest.mark.usefixtures("machine_in_tokyo")
def test_local_is_the_time_zone_of_the_machine(at: Callable[..., None]) -> None:
    at("2026-01-31 15:00", timezone="local")
    assert calendar.current_date() == datetime.date(2026, 2, 1)
    assert calendar.describe_end(DATE) == "2026-02-01 00:00 JST"
    at("2026-01-31 15:00", timezone="UTC")
    assert calendar.current_date() == DATE


@pytest.mark.parametrize(
    ("now", "zone", "yesterday"),
    [
        ("2026-01-31 22:59", "Europe/Berlin", "2026-01-30"),
        ("2026-01-31 23:00", "Europe/Berlin", "2026-01-31"),
        ("2026-12-31 23:30", "UTC", "2026-12-30"),
        ("2026-12-31 23:30", "Europe/Berlin", "2026-12-31"),
        ("2027-01-01 04:30", "America/New_York", "2026-12-30"),
    ],
)
def test_the_default_date_of_a_task_is_yesterday_in_the_time_zone(
    at: Callable[..., None], now: str, zone: str, yesterday: str
) -> None:
    at(now, timezone=zone)
    assert str(YesterdayParameter("").normalize(None)) == str(DatesParameter("").normalize(None)) == yesterday
    assert calendar.is_over(datetime.date.fromisoformat(yesterday))
    assert not calendar.is_over(datetime.date.fromisoformat(yesterday) + DAY)


def test_a_bad_time_zone_is_left_to_the_check_of_all_settings(set_settings: Configure) -> None:
    set_settings("messages", timezone="Nowhere")
    assert isinstance(YesterdayParameter("").normalize(None), datetime.date)


@pytest.mark.parametrize(
    ("now", "provisional", "refusal"),
    [
        ("2026-02-01 00:00", "false", None),
        ("2026-02-01 00:00", "true", None),
        ("2026-01-31 23:59", "false", "2026-01-31 is not over: it ends at 2026-02-01 00:00 UTC"),
        ("2026-01-31 00:00", "false", "--messages-provisional true"),
        ("2026-01-31 00:00", "true", None),
        ("2026-01-30 23:59", "false", "2026-01-31 has not begun: it begins at 2026-01-31 00:00 UTC"),
        ("2026-01-30 23:59", "true", "2026-01-31 has not begun"),
    ],
)
def test_a_date_is_refused_until_it_is_over_or_has_begun_and_is_provisional(
    at: Callable[..., None], now: str, provisional: str, refusal: str | None
) -> None:
    at(now, timezone="UTC", provisional=provisional)
    assert calendar.is_scorable(DATE) is (refusal is None)
    for task in (ExtractMessages(date=DATE), ScoreBatch(date=DATE)):
        if refusal is None:
            task.deps()
        else:
            with pytest.raises(DateNotOverError) as error:
                task.deps()
            assert refusal in str(error.value)


def test_only_a_date_that_is_not_over_has_another_fingerprint_when_provisional_is_set(at: Callable[..., None]) -> None:
    at("2026-02-01 00:00", timezone="UTC", provisional="false")
    final = [ExtractMessages(date=DATE).fingerprint(), ScoreBatch(date=DATE).fingerprint()]
    at("2026-02-01 00:00", provisional="true")
    assert [ExtractMessages(date=DATE).fingerprint(), ScoreBatch(date=DATE).fingerprint()] == final
    at("2026-01-31 23:59")
    early = [ExtractMessages(date=DATE).fingerprint(), ScoreBatch(date=DATE).fingerprint()]
    assert not set(early) & set(final)


def test_a_range_is_refused_before_its_run_only_if_none_of_its_dates_is_over(at: Callable[..., None]) -> None:
    at("2026-01-31 12:00", timezone="UTC")
    dates = tuple(DATE + number * DAY for number in (-2, -1, 0, 1))
    assert ScoreBatch(date=dates).deps()
    with pytest.raises(DateNotOverError, match="2026-01-31 is not over"):
        ScoreBatch(date=dates[2:]).deps()


def test_the_clock_of_a_run_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    before = datetime.datetime.now(datetime.UTC)
    assert calendar.current_time() >= before
    monkeypatch.setattr(calendar, "_run_start", None)
    calendar.start_run()
    assert calendar.current_time() == calendar.current_time()
