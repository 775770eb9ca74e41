"""How much memory the coming hours will take, from the peaks of past hours, and how wrong that may be. Pure.

Several rules foresee an hour from those before it. Each is tried on the last two weeks, as if they were yet to come;
from how far it fell short follows the margin that would be exceeded once in the time that the policy allows for an
out-of-memory kill. The rule that asks for the least memory with its margin is taken.

The method and its constants come from a comparison on simulated weeks of 15 kinds of load: a fixed margin instead had
thirty times as many kills, and one flat maximum instead of hours of the day took half as much memory again.
"""

import functools
import math
from calendar import monthrange
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from airflow_tuner.history import History

DAY, WEEK = 24, 7 * 24
LEAST = DAY
"""Known hours from which there is a forecast: one daily peak."""

TRIED = 2 * WEEK
"""Hours that rules are tried on."""

LOOKED = 5 * WEEK
"""Hours that rules look back, those that they are tried on included."""

USUAL = DAY
"""Hours in which the usual is exceeded once: what is reserved need not hold every peak, as not all pods have theirs at
once."""

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
        return max(foreseen * (1 + self.least), foreseen * (1 + self.share) + self.fixed)


Rule = Callable[[list[float]], list[float]]
"""From the peaks of past hours (`NEVER`: not known) what was foreseen for each, and is for the one after the last."""


def forecast(history: History, hour: int, days_per_kill: int) -> tuple[Forecast, ...]:
    """What each of the next `AHEAD` hours will take, of a target that may run out of memory once in so many days.

    Foreseen from the hours before `hour` alone. Empty where too little is known.
    """
    # From where the choice of the rule begins, which lasts for hours.
    begin = max(history.first, hour - hour % REFIT - LOOKED)
    past = history.peaks[begin - history.first : max(0, hour - history.first)]
    past += (None,) * (hour - begin - len(past))
    if len(past) - past.count(None) < LEAST:
        return ()
    known = len(past) - past.count(None)
    ahead = _foreseen(past, hour, days_per_kill, known < WEEK)
    months = [_month_before(history, hour + number) for number in range(AHEAD)]
    return tuple(
        Forecast(max(usual, month or 0), max(safe, (month or 0) * (1 + LEAST_MARGIN)), rule, known / DAY)
        for (usual, safe, rule), month in zip(ahead, months, strict=True)
    )


@functools.lru_cache(maxsize=1024)
def _foreseen(
    past: tuple[int | None, ...], hour: int, days_per_kill: int, young: bool
) -> tuple[tuple[float, float, str], ...]:
    """(the usual, the safe, from what) of the hours ahead."""
    fitted = past[: len(past) - hour % REFIT] or past
    values = [NEVER if peak is None else float(peak) for peak in past] + [NEVER] * (AHEAD - 1)
    factor = YOUNG if young else 1.0
    usual, safe = _chosen(fitted, float(USUAL), SMALLEST), _chosen(fitted, float(days_per_kill * DAY), LEAST_MARGIN)
    most = max(one for one in past if one is not None)
    levels = []
    for choice in (usual, safe):
        foreseen = RULES[choice.name](values)[-AHEAD:]
        # Where the hours that a rule looks at are not known, it is as if it were the largest of all.
        levels.append(
            [min(factor * choice.margined(most if one == NEVER else one), choice.furthest * most) for one in foreseen]
        )
    return tuple((low, max(low, high), safe.name) for low, high in zip(*levels, strict=True))


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
        before = [one for past in range(midnight - WEEK, midnight) if (one := history.at(past)) is not None]
        if len(before) >= WEEK // 2 and peak > UNUSUAL * max(before):
            found.append(float(peak))
    return max(found, default=None)


def _days_of(at: datetime) -> int:
    """Days of the month."""
    return monthrange(at.year, at.month)[1]


@functools.lru_cache(maxsize=1024)
def _chosen(past: tuple[int | None, ...], hours: float, least: float) -> _Choice:
    """The rule that asks for the least memory, with its margin of `least` at least."""
    values = [NEVER if peak is None else float(peak) for peak in past]
    tried = range(max(1, len(values) - TRIED), len(values))
    best: tuple[float, _Choice] | None = None
    for name, rule in RULES.items():
        foreseen = rule(values)
        pairs = [(values[i], foreseen[i]) for i in tried if values[i] > NEVER and foreseen[i] > NEVER]
        if len(pairs) < DAY // 2:
            continue
        mean = sum(before for _, before in pairs) / len(pairs)
        for weight in (1.0, 0.5, 0.0):
            # How far it fell short: as a share of what was foreseen, of the usual size, and of half each.
            scaled = [((seen - before) / (weight * before + (1 - weight) * mean or 1)) for seen, before in pairs]
            level, drawn = _tail(scaled, hours)
            furthest = FURTHEST if drawn else 1 + LEAST_MARGIN
            choice = _Choice(name, level * weight, level * (1 - weight) * mean, least, furthest)
            cost = sum(choice.margined(before) for _, before in pairs) / len(pairs)
            if best is None or cost < best[0]:
                best = cost, choice
    if best is None:
        return _Choice("the most of two weeks", YOUNG - 1, 0.0, least, FURTHEST)
    return best[1]


def _tail(shortfalls: Sequence[float], hours: float) -> tuple[float, bool]:
    """The level that is exceeded once in so many hours, by peaks over a threshold, and whether a tail was drawn for it.

    A generalised Pareto distribution by the method of moments (Hosking and Wallis 1987).
    """
    ordered = sorted(shortfalls)
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

    def rule(values: list[float]) -> list[float]:
        found, waiting = [], deque[int]()
        for i in range(len(values) + 1):
            while waiting and waiting[0] < i - hours:
                waiting.popleft()
            found.append(values[waiting[0]] if waiting else NEVER)
            if i < len(values):
                while waiting and values[waiting[-1]] <= values[i]:
                    waiting.pop()
                waiting.append(i)
        return found

    return rule


def _around(values: list[float]) -> list[float]:
    """The most of each hour and its neighbours."""
    padded = [NEVER, *values, NEVER]
    return [max(padded[i : i + 3]) for i in range(len(values))]


def _before(values: list[float], i: int) -> float:
    """The hour before."""
    return values[i - 1] if i else NEVER


def _same_hour(days: int, *, around: bool) -> Rule:
    """The most at the same hour of so many days before, or around it, and of the hour before."""

    def rule(values: list[float]) -> list[float]:
        looked = _around(values) if around else values
        return [
            max([_before(values, i), *(looked[i - day * DAY] for day in range(1, days + 1) if i >= day * DAY)])
            for i in range(len(values) + 1)
        ]

    return rule


def _same_hour_of_week(values: list[float]) -> list[float]:
    """The most around the same hour of the week, of four weeks, and of the day before."""
    looked, backs = _around(values), (DAY, WEEK, 2 * WEEK, 3 * WEEK, 4 * WEEK)
    return [max([_before(values, i), *(looked[i - b] for b in backs if i >= b)]) for i in range(len(values) + 1)]


def _usual_of_hour(days: int) -> Rule:
    """What is not exceeded at the same hour on four of five days."""

    def rule(values: list[float]) -> list[float]:
        found = []
        for i in range(len(values) + 1):
            past = sorted(
                one for day in range(1, days + 1) if i >= day * DAY and (one := values[i - day * DAY]) > NEVER
            )
            found.append(past[min(len(past) - 1, int(USUAL_QUANTILE * len(past)))] if past else NEVER)
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
    "the most around this hour of the week": _same_hour_of_week,
    "the usual at this hour of a week": _usual_of_hour(7),
    "the usual at this hour of two weeks": _usual_of_hour(14),
}
"""What an hour can be foreseen from, by what it is called."""
