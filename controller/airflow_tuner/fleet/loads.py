"""What an Airflow has to do over weeks: sorts of tasks, when they come, and how much they take."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0

OFFICE = (1, 1, 1, 1, 2, 3, 5, 8, 10, 10, 9, 9, 8, 9, 9, 9, 8, 6, 4, 3, 2, 2, 1, 1)
"""Weights of the hours where people and their upstream systems work by day."""

FLAT = (1,) * 24

_MANY = 30
"""From so many a minute the normal distribution does for Poisson's."""

_TAIL = 1.8
"""Exponent of the Pareto tail of the tasks' memory: its mean is finite, its variance is not."""


class On(StrEnum):
    """The days of a burst."""

    EVERY_DAY = "every day"
    MONDAYS = "Mondays"
    MONTH_ENDS = "month ends"
    HOURLY = "every hour"

    def holds(self, day: date) -> bool:
        """Whether it is such a day."""
        if self is On.MONDAYS:
            return day.weekday() == 0
        if self is On.MONTH_ENDS:
            return (day + timedelta(days=1)).day == 1
        return True


@dataclass(frozen=True, slots=True)
class Burst:
    """So many tasks at once, as a DAG run of mapped tasks brings them."""

    count: int
    hour: float = 0.0
    """Of the day; the part after the point counts for bursts of every hour, too."""
    on: On = On.EVERY_DAY
    first: float = 0.0
    """Day from which it comes."""
    last: float = math.inf


@dataclass(frozen=True, slots=True)
class Load:
    """One sort of task. Seconds and MiB are medians, their spreads those of the logarithm."""

    dag: str
    seconds: float
    mebibytes: float
    daily: float = 0.0
    """Tasks in a day that come by themselves, one by one."""
    hours: tuple[float, ...] = FLAT
    """Weights of the hours for these."""
    bursts: tuple[Burst, ...] = ()
    seconds_spread: float = 0.5
    memory_spread: float = 0.5
    tail: float = 0.0
    """Share of the tasks whose memory has a Pareto tail."""
    most: float = 3000.0
    """MiB that no task exceeds."""
    cpu: float = 0.2
    """Cores of a task while it runs."""
    reads: float = 0.5
    """MiB of files each task reads: page cache."""
    retries: int = 3
    first: float = 0.0
    """Day from which it comes."""
    last: float = math.inf


@dataclass(frozen=True, slots=True)
class Arrival:
    """A task that could run from `at` on, in seconds since the beginning."""

    at: float
    load: Load
    seconds: float
    mebibytes: float


class Arrivals:
    """All tasks of a seed, minute by minute: the same whatever becomes of them."""

    def __init__(
        self, loads: tuple[Load, ...], seed: int, begin: date, growth: tuple[tuple[float, float], ...] = ()
    ) -> None:
        self._rng = random.Random(seed)  # noqa: S311 - a model, not a secret
        self._loads, self._begin, self._growth = loads, begin, growth
        self._rates = [
            (load, [load.daily * weight / sum(load.hours) / 60 for weight in load.hours])
            for load in loads
            if load.daily
        ]

    def of(self, minute: int) -> list[Arrival]:
        """The tasks of a minute, in order. Ask for each minute once, one after the other."""
        at, day = minute * MINUTE, minute * MINUTE / DAY
        hour, factor = int(at % DAY // HOUR), self._factor(day)
        found = [
            self._drawn(load, at + MINUTE * self._rng.random())
            for load, rates in self._rates
            if load.first <= day < load.last
            for _ in range(self._poisson(rates[hour] * factor))
        ]
        for load, count in self._bursts(minute, day, factor):
            found += [self._drawn(load, at) for _ in range(count)]
        found.sort(key=lambda one: one.at)
        return found

    def _bursts(self, minute: int, day: float, factor: float) -> Iterator[tuple[Load, int]]:
        of_day = minute % 1440
        today = self._begin + timedelta(days=minute // 1440)
        for load in self._loads:
            if not load.first <= day < load.last:
                continue
            for burst in load.bursts:
                begins = round(burst.hour * 60)
                due = of_day % 60 == begins % 60 if burst.on is On.HOURLY else of_day == begins
                if due and burst.first <= day < burst.last and burst.on.holds(today):
                    yield load, round(burst.count * factor)

    def _factor(self, day: float) -> float:
        return next((factor for first, factor in reversed(self._growth) if day >= first), 1.0)

    def _drawn(self, load: Load, at: float) -> Arrival:
        rng = self._rng
        seconds = load.seconds * math.exp(rng.gauss(0.0, load.seconds_spread))
        mebibytes = load.mebibytes * math.exp(rng.gauss(0.0, load.memory_spread))
        if load.tail and rng.random() < load.tail:
            mebibytes *= rng.paretovariate(_TAIL)
        return Arrival(at, load, max(1.0, seconds), min(mebibytes, load.most))

    def _poisson(self, mean: float) -> int:
        if mean > _MANY:
            return max(0, round(self._rng.gauss(mean, math.sqrt(mean))))
        count, product, least = 0, self._rng.random(), math.exp(-mean)
        while product > least:
            count += 1
            product *= self._rng.random()
        return count
