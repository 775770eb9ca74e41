"""What a Prometheus would answer about the containers and tasks of the model of weeks, from one scrape a minute.

Only what cAdvisor and Airflow's exporter show goes in: nothing of the model's inner state is known here. Sizes are
bytes.
"""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from airflow_tuner import signals
from airflow_tuner.model import Sample, Usage
from airflow_tuner.telemetry import DAY_SAMPLES, Pace

WINDOW = 5
"""Minutes that rates are averaged over, as the policy's metrics.windowSeconds has it by default."""

DAY = 1440
"""Minutes."""

HOUR = 60


@dataclass(frozen=True, slots=True)
class Scrape:
    """What a scrape of a container finds."""

    anonymous: float
    working_set: float
    peak: float
    cpu: float
    """Cores since the last scrape."""
    process_kills: int
    node_cpu: float
    """Share of its node's cores that is in use."""


class Highest:
    """The largest of the samples of a time."""

    def __init__(self, minutes: int) -> None:
        self._minutes = minutes
        self._kept: deque[tuple[int, float]] = deque()

    def add(self, minute: int, value: float) -> None:
        """One more sample."""
        kept = self._kept
        while kept and kept[-1][1] <= value:
            kept.pop()
        kept.append((minute, value))
        self._forget(minute)

    def at(self, minute: int) -> float | None:
        """The largest that is young enough."""
        self._forget(minute)
        return self._kept[0][1] if self._kept else None

    def _forget(self, minute: int) -> None:
        while self._kept and self._kept[0][0] <= minute - self._minutes:
            self._kept.popleft()


@dataclass(slots=True)
class Container:
    """The series of one container's life."""

    name: str
    """Its id."""
    last: Scrape | None = None
    last_minute: int = -1
    _anonymous: Highest = field(default_factory=lambda: Highest(WINDOW))
    _anonymous_day: Highest = field(default_factory=lambda: Highest(DAY))
    _working_set: Highest = field(default_factory=lambda: Highest(DAY))
    _history: deque[tuple[int, float, int]] = field(default_factory=lambda: deque(maxlen=DAY + 1))
    """Minute, anonymous memory, kills."""
    _cpu: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _floors: dict[int, float] = field(default_factory=dict)
    """Least anonymous memory, by hour."""
    _growth: tuple[int, dict[str, float]] = (-1, {})

    def add(self, minute: int, scrape: Scrape) -> None:
        """One more scrape."""
        self.last, self.last_minute = scrape, minute
        self._anonymous.add(minute, scrape.anonymous)
        self._anonymous_day.add(minute, scrape.anonymous)
        self._working_set.add(minute, scrape.working_set)
        self._history.append((minute, scrape.anonymous, scrape.process_kills))
        self._cpu.append(scrape.cpu)
        hour = minute // HOUR
        self._floors[hour] = min(self._floors.get(hour, math.inf), scrape.anonymous)

    def usage(self, minute: int, at: datetime) -> Usage:
        """The answers to the questions about containers, as of the last scrape."""
        last = self.last
        if last is None or self.last_minute != minute:
            return Usage()

        def sample(value: float | None) -> Sample | None:
            return None if value is None else Sample(value, at)

        before, earlier = self._ago(minute, DAY), self._ago(minute, HOUR)
        growth = self._growing(minute)
        return Usage(
            process_kills=sample(last.process_kills),
            process_kills_before=sample(None if earlier is None else earlier[2]),
            peak=sample(last.peak),
            working_set=sample(self._working_set.at(minute)),
            anonymous=sample(self._anonymous.at(minute)),
            anonymous_day=sample(self._anonymous_day.at(minute)),
            anonymous_before=sample(None if before is None else before[1]),
            growth_days=sample(growth.get("growth_days")),
            growth_by_day=sample(growth.get("growth_by_day")),
            growth_hours=sample(growth.get("growth_hours")),
            cpu=sample(sum(self._cpu) / len(self._cpu)),
            cpu_of_rounds=sample(sum(self._cpu) / len(self._cpu)),
            throttled=sample(0.0),
            node_cpu=sample(last.node_cpu),
        )

    def _ago(self, minute: int, minutes: int) -> tuple[int, float, int] | None:
        """What was scraped so long ago."""
        history = self._history
        wanted = minute - minutes
        if not history or history[0][0] > wanted:
            return None
        # Without a gap it lies as many places from the end.
        index = len(history) - 1 - (history[-1][0] - wanted)
        found = history[index] if index >= 0 else history[0]
        return found if found[0] == wanted else None

    def _growing(self, minute: int) -> Mapping[str, float]:
        """`signals.GROWTH`, anew each hour."""
        hour = minute // HOUR
        if self._growth[0] != hour:
            for old in [old for old in self._floors if old < hour - 4 * 24]:
                del self._floors[old]
            slopes = {name: self._slope(hour, *span) for name, span in signals.LEAK_SPANS.items()}
            slopes["growth_by_day"] = self._slope_by_day(hour)
            self._growth = (hour, {name: slope for name, slope in slopes.items() if slope})
        return self._growth[1]

    def _floors_of(self, hour: int, hours: int, count: int) -> list[float] | None:
        """The least of each of so many windows before this hour, the oldest first; `None`: not all are known."""
        known = [self._floors.get(one) for one in range(hour - count * hours, hour)]
        whole = [one for one in known if one is not None]
        if len(whole) < len(known):
            return None
        return [min(whole[first : first + hours]) for first in range(0, len(whole), hours)]

    def _slope_by_day(self, hour: int) -> float | None:
        """Bytes per second by which floors are above those of the same hours of the day before, where all are alike."""
        day = signals.LEAK_WINDOWS
        floors = self._floors_of(hour, 24 // day, day * (signals.LEAK_DAYS + 1))
        if floors is None:
            return None
        rises = [now - before for now, before in zip(floors[day:], floors, strict=False)]
        mean = sum(rises) / len(rises)
        return mean / (24 * signals.HOUR) if mean > 0 and min(rises) > signals.ALIKE * mean else None

    def _slope(self, hour: int, hours: int, count: int) -> float | None:
        """Bytes per second by which the floors of so many windows rise, where they do so evenly."""
        floors = self._floors_of(hour, hours, count)
        if floors is None:
            return None
        middle = (count - 1) / 2
        mean = sum(floors) / count
        slope = sum((place - middle) * floor for place, floor in enumerate(floors)) / sum(
            (place - middle) ** 2 for place in range(count)
        )
        deviation = math.sqrt(sum((floor - mean) ** 2 for floor in floors) / count)
        apart = math.sqrt((count**2 - 1) / 12)
        if slope <= 0 or slope * apart <= signals.EVEN * deviation:
            return None
        return slope / (hours * signals.HOUR)


class Dags:
    """How many tasks of each DAG ended: `signals.pace`."""

    STEP = 10
    """Minutes."""

    def __init__(self) -> None:
        self._counts: deque[dict[str, int]] = deque(maxlen=self.STEP + 1)
        self._most: dict[str, int] = {}
        self._blocks: dict[str, deque[tuple[int, int]]] = {}

    def add(self, minute: int, ended: Mapping[str, int]) -> None:
        """Counts since the beginning, by DAG."""
        self._counts.append(dict(ended))
        if minute % self.STEP:
            return
        for dag, now in self._now().items():
            blocks = self._blocks.setdefault(dag, deque())
            blocks.append((minute, now))
            while blocks[0][0] < minute - DAY - 6 * HOUR:
                blocks.popleft()
            past = [count for at, count in blocks if at <= minute - 6 * HOUR]
            # Only of a DAG that was there when that day began.
            if past and blocks[0][0] <= minute - DAY:
                self._most[dag] = max(past)

    def paces(self) -> tuple[tuple[Pace, ...], int]:
        """The three busiest, and how many tasks of all ended."""
        now = self._now()
        busiest = sorted(now, key=lambda dag: (-now[dag], dag))[:3]
        return tuple(Pace(dag, now[dag], self._most.get(dag)) for dag in busiest), sum(now.values())

    def _now(self) -> dict[str, int]:
        last = self._counts[-1] if self._counts else {}
        then = self._counts[-1 - self.STEP] if len(self._counts) > self.STEP else {}
        return {dag: count - then.get(dag, 0) for dag, count in last.items()}


class Busy:
    """Most slots busy at once within a day, looked at every minute."""

    def __init__(self) -> None:
        self._looks: deque[tuple[int, int]] = deque()
        self._count = 0

    def add(self, minute: int, busy: int) -> None:
        """A look."""
        while self._looks and self._looks[-1][1] <= busy:
            # Never the largest any more.
            self._looks.pop()
        self._looks.append((minute, busy))
        while self._looks[0][0] <= minute - DAY:
            self._looks.popleft()
        self._count = min(self._count + 1, DAY)

    @property
    def day(self) -> int | None:
        """`None`: a whole day is not known."""
        return self._looks[0][1] if self._count >= DAY_SAMPLES else None
