"""What the coming hours are said to take: more than the peaks that come, and not much more."""

import math
import random
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_tuner.forecast import AHEAD, DAY, LEAST, RULES, USUAL, WEEK, Forecast, forecast
from airflow_tuner.history import History, hour_of

MONDAY = hour_of(datetime(2026, 3, 2, tzinfo=UTC))


def load(seed: int, days: int, *, weekly: float = 0, noise: float = 0.05, tail: float = 0.0) -> History:
    """Peaks of a worker that has most to do at two in the night, and more on Mondays at five."""
    chance = random.Random(seed)  # noqa: S311 - a load, not a secret
    peaks = []
    for hour in range(days * DAY):
        usual = 400 + 600 * math.exp(-((hour - 2) % DAY) / 3)
        usual += weekly if hour % WEEK == 5 else 0
        peaks.append(int(usual * (1 + chance.gauss(0, noise)) + tail * (chance.paretovariate(3) - 1)))
    return History(MONDAY, tuple(peaks))


def first(history: History, hour: int, days_per_kill: int = 365) -> Forecast:
    """What an hour is foreseen to take when it begins."""
    found = forecast(history, hour, days_per_kill)
    assert len(found) == AHEAD
    return found[0]


def past(history: History, hours: int) -> History:
    return History(history.first, history.peaks[:hours])


def foretold(history: History, begin: int, days_per_kill: int = 365) -> list[tuple[int, float, float]]:
    """(what came, the usual, the safe) of every hour from `begin` on, each foretold when it began."""
    told = []
    for hour in range(begin, len(history.peaks)):
        found = first(past(history, hour), history.first + hour, days_per_kill)
        told.append((history.peaks[hour] or 0, found.usual, found.safe))
    return told


def test_ten_days_of_a_daily_load_after_three_weeks_that_are_known_stay_below_what_is_safe() -> None:
    told = foretold(load(1, 31), 21 * DAY)
    assert all(seen <= safe for seen, _, safe in told)
    above = sum(seen > usual for seen, usual, _ in told)
    assert above <= 2.5 * len(told) / USUAL


def test_the_night_is_not_reserved_in_the_afternoon() -> None:
    history = load(2, 28)
    most = max(peak or 0 for peak in history.peaks)
    found = forecast(history, history.end, 365)[15]
    assert found.usual < 0.6 * most
    assert found.safe < 0.75 * most


def test_a_peak_of_one_hour_a_week_is_remembered() -> None:
    history = load(3, 37, weekly=1500)
    monday = 35 * DAY + 5
    found = first(past(history, monday), history.first + monday)
    assert found.safe >= (history.peaks[monday] or 0)
    calm = first(past(history, 36 * DAY + 12), history.first + 36 * DAY + 12)
    assert calm.safe < 0.6 * found.safe


def test_a_months_end_is_remembered() -> None:
    begin = hour_of(datetime(2026, 3, 20, tzinfo=UTC))
    peaks = [500 + hour * 7 % 13 for hour in range(42 * DAY)]
    end = hour_of(datetime(2026, 3, 31, 22, tzinfo=UTC))
    for hour in range(end, end + 3):
        peaks[hour - begin] = 3000
    again = hour_of(datetime(2026, 4, 30, 22, tzinfo=UTC))
    history = History(begin, tuple(peaks[: again - begin]))
    assert first(history, again).safe > 3000
    assert first(past(history, again - begin - 2 * DAY), again - 2 * DAY).safe < 1000


def test_with_less_than_a_day_there_is_no_forecast() -> None:
    history = load(4, 2)
    assert forecast(past(history, LEAST - 1), history.first + LEAST - 1, 365) == ()
    assert forecast(History(), MONDAY, 365) == ()


def test_a_young_target_is_given_more_room() -> None:
    history = load(5, 8, noise=0.0)
    young = first(past(history, 6 * DAY), history.first + 6 * DAY)
    known = first(past(history, 8 * DAY), history.first + 8 * DAY)
    assert young.safe > 1.1 * known.safe


def test_hours_that_are_not_known_take_nothing_away() -> None:
    history = load(6, 28)
    gaps = History(history.first, tuple(None if hour % 5 == 0 else peak for hour, peak in enumerate(history.peaks)))
    found = forecast(gaps, gaps.end, 365)[2]
    assert found.safe > 900


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_foresees_each_hour_from_those_before_it_alone(rule: str) -> None:
    values = [float(peak or 0) for peak in load(7, 16).peaks]
    whole = RULES[rule](values, 0)
    assert len(whole) == len(values) + 1
    for hour in (DAY, 100, WEEK + 1, len(values) - 1):
        assert RULES[rule](values[:hour], hour) == [whole[hour]]
        assert RULES[rule](values, hour) == whole[hour:]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 30), st.floats(0, 200))
def test_less_risk_asks_for_more_memory_over_a_day(seed: int, days: int, tail: float) -> None:
    history = load(seed, days, tail=tail)
    levels = [forecast(history, history.end, risk) for risk in (7, 60, 365, 3650)]
    safe = [sum(hour.safe for hour in level) for level in levels]
    assert all(more >= 0.97 * less for less, more in pairwise(safe)), safe
    assert all(hour.usual <= hour.safe for level in levels for hour in level)


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 1000))
def test_heavy_tails_are_exceeded_about_as_seldom_as_was_asked(seed: int) -> None:
    told = foretold(load(seed, 32, tail=60), 28 * DAY, days_per_kill=14)
    assert sum(seen > safe for seen, _, safe in told) <= 4
