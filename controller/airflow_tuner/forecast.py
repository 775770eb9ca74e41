"""How much memory the coming hours will take, from the peaks of past hours, and how wrong that may be. Pure.

Several rules foresee an hour from those before it. Each is tried on the last two weeks, as if they were yet to come;
from how far it fell short follows the margin that would be exceeded once in the time that the policy allows for an
out-of-memory kill. The rule that asks for the least memory with its margin is taken.

The method and its constants come from a comparison on simulated weeks of 15 kinds of load: a fixed margin instead had
thirty times as many kills, and one flat maximum instead of hours of the day took half as much memory again.
"""

import math
from calendar import monthrange
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, TypeVar

from airflow_tuner.history import History

DAY, WEEK = 24, 7 * 24
LEAST = DAY
"""Known hours from which there is a forecast: one daily peak."""

TRIED = 2 * WEEK
"""Hours that rules are tried on."""

LOOKED = 5 * WEEK
"""Hours that rules look back, those that they are tried on included."""

USUAL = 8
"""Hours in which the usual is exceeded once, by the fullest pod for a part of that hour: what is reserved need not hold
every peak, as not all pods have theirs at once."""

REFIT = 6
"""Hours that a choice of rule and margin lasts."""

THRESHOLD = 0.85
"""Share of the shortfalls that are ordinary; the tail is drawn through those beyond."""

ENOUGH = 10
"""Shortfalls beyond from which a tail is drawn; with fewer they count as they are."""

FURTHEST = 1.5
"""Times the most of five weeks beyond which nothing is foreseen where a tail is drawn, and beyond `LEAST_MARGIN` where
none is: one kill must not ask for many times its limit."""

HEAVIEST = 0.3
"""Largest shape of the tail: moments of some fifty exceedances say no heavier one reliably."""

SMALLEST = 0.03
"""Least margin of what is reserved, as a share."""

LEAST_MARGIN = 0.15
"""Least margin of a limit, however regular the load: a limit reserves nothing, and is what kills."""

AHEAD = DAY
"""Hours that are foreseen."""

YOUNG = 1.15
"""On the margined forecast of a target that is known for less than a week: its weekly peak has not been seen."""

USUAL_QUANTILE = 0.8
"""Share of past days whose peak at that hour is not above the usual."""

UNUSUAL = 1.1
"""Times the most of the week before a day, from which a peak of that day may be one of every month."""

NEVER: float = -math.inf


@dataclass(frozen=True, slots=True)
class Forecast:
    """What an hour will take, in MiB."""

    usual: float
    """What it exceeds once in `USUAL` hours."""
    safe: float
    """What it exceeds once in the time allowed."""
    rule: str
    """What `safe` is foreseen from, as a noun, where no month-end is."""
    days: float
    """Days that are known."""


class _Choice(NamedTuple):
    """A rule, and the margin it needs: `share` of what it foresees, and `fixed` MiB."""

    name: str
    share: float
    fixed: float
    least: float
    """As a share."""
    furthest: float
    """Times the most of the past beyond which it foresees nothing."""

    def margined(self, foreseen: float) -> float:
        low, high = foreseen * (1 + self.least), foreseen * (1 + self.share) + self.fixed
        return high if high > low else low  # noqa: FURB136 - max would take most of the time


Rule = Callable[[list[float], int], list[float]]
"""From the peaks of past hours (`NEVER`: not known) what was foreseen for each from a first one on, and is for the one
after the last."""

KEPT = 8192
"""Forecasts that are kept, which last until their hour is over: a thousand Airflows with eight targets each."""


def forecast(history: History, hour: int, days_per_kill: int) -> tuple[Forecast, ...]:
    """What each of the next `AHEAD` hours will take, of a target that may run out of memory once in so many days.

    Foreseen from the hours before `hour` alone. Empty where too little is known.
    """
    past = History(history.first, history.peaks[: max(0, hour - history.first)])
    # A hash of 64 bits stands for the hours: kept themselves, those of many Airflows would take more than all else.
    key = (hash(past), len(past.peaks), hour, days_per_kill)
    if key not in _kept:
        _keep(_kept, key, tuple(_forecast(past, hour, days_per_kill)))
    return _kept[key]


Key = tuple[int, ...]
Made = TypeVar("Made")
_kept: dict[Key, tuple[Forecast, ...]] = {}
_kept_choices: dict[Key, tuple[_Choice, _Choice]] = {}


def _keep(kept: dict[Key, Made], key: Key, made: Made) -> None:
    """The oldest goes."""
    kept[key] = made
    if len(kept) > KEPT:
        del kept[next(iter(kept))]


def _forecast(history: History, hour: int, days_per_kill: int) -> Iterator[Forecast]:
    # From where the choice of the rule begins, which lasts for hours.
    begin = max(history.first, hour - hour % REFIT - LOOKED)
    past = history.peaks[begin - history.first :]
    past += (None,) * (hour - begin - len(past))
    known = len(past) - past.count(None)
    if known < LEAST:
        return
    usual, safe = _choices(past[: len(past) - hour % REFIT] or past, days_per_kill)
    values = [NEVER if peak is None else float(peak) for peak in past] + [NEVER] * (AHEAD - 1)
    most, factor = max(values), YOUNG if known < WEEK else 1.0
    # Where the hours that a rule looks at are not known, it is as if it were the largest of all.
    lows, highs = (
        [
            min(factor * choice.margined(most if one == NEVER else one), choice.furthest * most)
            for one in RULES[choice.name](values, len(past))
        ]
        for choice in (usual, safe)
    )
    for number, (low, high) in enumerate(zip(lows, highs, strict=True)):
        month = _month_before(history, hour + number) or 0
        yield Forecast(max(low, month), max(low, high, month * (1 + LEAST_MARGIN)), safe.name, known / DAY)


def _choices(past: tuple[int | None, ...], days_per_kill: int) -> tuple[_Choice, _Choice]:
    """The rules for the usual and for the safe, with their margins."""
    key = (hash(past), len(past), days_per_kill)
    if key not in _kept_choices:
        values = [NEVER if peak is None else float(peak) for peak in past]
        begin = max(1, len(values) - TRIED)
        tried = {name: _pairs(values, rule(values, begin), begin) for name, rule in RULES.items()}
        usual, safe = _chosen(tried, ((float(USUAL), SMALLEST), (float(days_per_kill * DAY), LEAST_MARGIN)))
        _keep(_kept_choices, key, (usual, safe))
    return _kept_choices[key]


def _pairs(values: list[float], foreseen: list[float], begin: int) -> list[tuple[float, float]]:
    """(what came, what was foreseen) of the hours from one on, where both are known."""
    return [
        (seen, before)
        for seen, before in zip(values[begin:], foreseen, strict=False)
        if seen > NEVER and before > NEVER
    ]


def _month_before(history: History, hour: int) -> float | None:
    """The peak of a month ago, where it was one that the week before that day did not show."""
    at = datetime.fromtimestamp(hour * 3600, UTC)
    last_month = at.replace(day=1) - timedelta(days=1)
    days = {min(at.day, last_month.day), last_month.day - (_days_of(at) - at.day)}
    found = []
    for day in days:
        if day < 1:
            continue
        then = int(last_month.replace(day=day, hour=at.hour).timestamp()) // 3600
        peak = max((history.at(one) or 0 for one in (then - 1, then, then + 1)), default=0)
        midnight = then - at.hour
        before = [one for one in history.between(midnight - WEEK, midnight) if one is not None]
        if len(before) >= WEEK // 2 and peak > UNUSUAL * max(before):
            found.append(float(peak))
    return max(found, default=None)


def _days_of(at: datetime) -> int:
    """Days of the month."""
    return monthrange(at.year, at.month)[1]


def _chosen(tried: Mapping[str, list[tuple[float, float]]], asked: Sequence[tuple[float, float]]) -> list[_Choice]:
    """The rule that asks for the least memory, for each of (hours in which it is exceeded once, its least margin)."""
    best = [(math.inf, _Choice("the most of two weeks", YOUNG - 1, 0.0, least, FURTHEST)) for _, least in asked]
    for name, pairs in tried.items():
        if len(pairs) < DAY // 2:
            continue
        mean = sum(before for _, before in pairs) / len(pairs)
        for weight in (1.0, 0.5, 0.0):
            # How far it fell short: as a share of what was foreseen, of the usual size, and of half each.
            rest = (1 - weight) * mean
            ordered = sorted((seen - before) / (weight * before + rest or 1) for seen, before in pairs)
            for number, (hours, least) in enumerate(asked):
                level, drawn = _tail(ordered, hours)
                furthest = FURTHEST if drawn else 1 + LEAST_MARGIN
                choice = _Choice(name, level * weight, level * rest, least, furthest)
                cost = sum([choice.margined(before) for _, before in pairs]) / len(pairs)
                if cost < best[number][0]:
                    best[number] = cost, choice
    return [choice for _, choice in best]


def _tail(ordered: Sequence[float], hours: float) -> tuple[float, bool]:
    """The level that is exceeded once in so many hours, by peaks over a threshold, and whether a tail was drawn for it.

    A generalised Pareto distribution by the method of moments (Hosking and Wallis 1987), from the shortfalls in order.
    """
    threshold = ordered[min(len(ordered) - 1, int(THRESHOLD * len(ordered)))]
    beyond = [one - threshold for one in ordered if one > threshold]
    rate = len(beyond) / len(ordered)
    if len(beyond) < ENOUGH:
        return max(ordered[min(len(ordered) - 1, int(len(ordered) * (1 - 1 / hours)))], 0.0), False
    if rate * hours <= 1:
        return max(threshold, 0.0), True
    mean = sum(beyond) / len(beyond)
    variance = sum((one - mean) ** 2 for one in beyond) / len(beyond)
    shape = 0.5 * (1 - mean**2 / variance) if variance > 0 else 0.0
    shape = min(max(shape, 0.0), HEAVIEST)
    scale = mean * (1 - shape)
    times = rate * hours
    reach = scale * math.log(times) if shape == 0 else scale / shape * (times**shape - 1)
    return max(threshold + reach, 0.0), True


def _most(hours: int) -> Rule:
    """The most of so many hours before."""

    def rule(values: list[float], begin: int) -> list[float]:
        found, waiting = [], deque[int]()
        for i in range(max(0, begin - hours), len(values) + 1):
            while waiting and waiting[0] < i - hours:
                waiting.popleft()
            if i >= begin:
                found.append(values[waiting[0]] if waiting else NEVER)
            if i < len(values):
                while waiting and values[waiting[-1]] <= values[i]:
                    waiting.pop()
                waiting.append(i)
        return found

    return rule


def _around(values: list[float]) -> list[float]:
    """The most of each hour and its neighbours."""
    return [*map(max, [NEVER, *values], values, [*values[1:], NEVER])]


def _same_hour(days: int, *, around: bool) -> Rule:
    """The most at the same hour of so many days before, or around it, and of the hour before."""
    return _most_of([day * DAY for day in range(1, days + 1)], around=around)


def _back(values: list[float], begin: int, hours: int) -> list[float]:
    """What lies so many hours back from each hour from one on, and from the one after the last."""
    start = begin - hours
    found = values[max(0, start) : max(0, len(values) + 1 - hours)]
    return found if start >= 0 else [NEVER] * (len(values) + 1 - begin - len(found)) + found


def _most_of(backs: Sequence[int], *, around: bool) -> Rule:
    """The most of the hours that lie so far back, or around them, and of the hour before."""

    def rule(values: list[float], begin: int) -> list[float]:
        looked = _around(values) if around else values
        return [*map(max, _back(values, begin, 1), *(_back(looked, begin, back) for back in backs))]

    return rule


def _usual_of_hour(days: int) -> Rule:
    """What is not exceeded at the same hour on four of five days."""
    backs = [day * DAY for day in range(1, days + 1)]

    def rule(values: list[float], begin: int) -> list[float]:
        found = []
        for hours in zip(*(_back(values, begin, back) for back in backs), strict=True):
            past = sorted(hours)
            unknown = past.count(NEVER)
            index = unknown + min(days - unknown - 1, int(USUAL_QUANTILE * (days - unknown)))
            found.append(past[index] if unknown < days else NEVER)
        return found

    return rule


RULES: dict[str, Rule] = {
    "the most of two days": _most(2 * DAY),
    "the most of a week": _most(WEEK),
    "the most of two weeks": _most(2 * WEEK),
    "the most around this hour on three days": _same_hour(3, around=True),
    "the most around this hour on seven days": _same_hour(7, around=True),
    "the most around this hour on fourteen days": _same_hour(14, around=True),
    "the most at this hour on seven days": _same_hour(7, around=False),
    "the most around this hour of the week": _most_of((DAY, WEEK, 2 * WEEK, 3 * WEEK, 4 * WEEK), around=True),
    "the usual at this hour of a week": _usual_of_hour(7),
    "the usual at this hour of two weeks": _usual_of_hour(14),
}
"""What an hour can be foreseen from, by what it is called."""
