"""What the engine's samples of a project's containers come to over time, as a metrics source would answer. Pure.

Samples come every few seconds. The most of each minute is kept for two days, and what follows from that is reckoned as
for the model of weeks (`scraped`).
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from airflow_tuner.model import Sample, Usage
from airflow_tuner.scraped import WINDOW, Container, Scrape

HOUR = timedelta(hours=1)
SECOND = 10**9
"""Nanoseconds; Docker's unit of time."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One sample of a container. Sizes are bytes, and counts begin with its start."""

    anonymous: float
    working_set: float
    peak: float | None
    """Most memory in use at once; cgroup v2 does not tell it here."""
    cpu: float
    """Seconds of CPU."""
    periods: int
    """Scheduling periods under a CPU limit."""
    throttled: int
    """Those in which the limit held it back."""


def reading(stats: Mapping[str, Any]) -> Reading | None:
    """A sample as the engine tells it, with cgroup v1 or v2; `None`: the container does not run."""
    memory, cpu = stats.get("memory_stats") or {}, stats.get("cpu_stats") or {}
    told = memory.get("stats") or {}
    if "usage" not in memory or not told:
        return None
    # The names of v1 count the whole tree of cgroups; v2 has one name for it.
    anonymous = told.get("total_rss", told.get("anon"))
    inactive = told.get("total_inactive_file", told.get("inactive_file"))
    if anonymous is None or inactive is None:
        return None
    throttling = cpu.get("throttling_data") or {}
    return Reading(
        anonymous=anonymous,
        working_set=max(0, memory["usage"] - inactive),
        peak=memory.get("max_usage") or None,
        cpu=(cpu.get("cpu_usage") or {}).get("total_usage", 0) / SECOND,
        periods=throttling.get("periods", 0),
        throttled=throttling.get("throttled_periods", 0),
    )


@dataclass(frozen=True, slots=True)
class Row:
    """What is kept of a minute."""

    container: str
    minute: int
    """Counted from 1970."""
    anonymous: float
    working_set: float
    cpu: float
    """Cores."""


@dataclass(slots=True)
class Gauge:
    """The samples of one container between two starts."""

    series: Container
    last: Reading | None = None
    at: datetime | None = None
    """When the last was taken."""
    _minute: int = -1
    _most: tuple[float, float] = (0.0, 0.0)
    """Anonymous memory and working set within the present minute."""
    _begun: tuple[datetime, Reading] | None = None
    """The first sample of the present minute."""
    _periods: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=WINDOW + 1))

    def add(self, found: Reading, at: datetime, node: float | None) -> Row | None:
        """One more sample; what is to be kept of the minute that ended with it. `node`: share of its cores in use."""
        minute, row = int(at.timestamp()) // 60, None
        if minute != self._minute:
            row = self._closed(found, at, node) if self._minute >= 0 else None
            self._minute, self._most, self._begun = minute, (0.0, 0.0), (at, found)
            self._periods.append((found.periods, found.throttled))
        self._most = (max(self._most[0], found.anonymous), max(self._most[1], found.working_set))
        self.last, self.at = found, at
        return row

    def _closed(self, found: Reading, at: datetime, node: float | None) -> Row | None:
        """The minute that is over."""
        if self._begun is None or at <= self._begun[0]:
            return None
        (begun, first), (anonymous, working_set) = self._begun, self._most
        cpu = max(0.0, found.cpu - first.cpu) / (at - begun).total_seconds()
        row = Row(self.series.name, self._minute, anonymous, working_set, cpu)
        self.keep(row, node)
        return row

    def keep(self, row: Row, node: float | None = None) -> None:
        """Take a minute up, also one of before the tuner's start."""
        scrape = Scrape(row.anonymous, row.working_set, 0.0, row.cpu, 0, node or 0.0)
        self.series.add(row.minute, scrape)

    def usage(self, now: datetime, kills: Iterable[datetime], stale: timedelta, node: float | None) -> Usage:
        """What is known of it; `kills`: when processes in it were killed for memory."""
        times = sorted(kills)
        killed = Usage(
            process_kills=Sample(len(times), times[-1] if times else now),
            process_kills_before=Sample(sum(at <= now - HOUR for at in times), now),
        )
        last = self.last
        if last is None or self.at is None or now - self.at > stale:
            return killed

        at = self.at

        def sample(value: float | None) -> Sample | None:
            return None if value is None else Sample(value, at)

        # After a pause of the tuner the last minutes are of before it, and say nothing of now.
        paused = int(at.timestamp()) // 60 - self.series.last_minute > WINDOW
        past = Usage() if paused else self.series.usage(self.series.last_minute, at)
        anonymous, working_set = self._most

        def most(known: Sample | None, present: float) -> Sample:
            return Sample(max(known.value if known else 0.0, present), at)

        return replace(
            past,
            process_kills=killed.process_kills,
            process_kills_before=killed.process_kills_before,
            peak=sample(last.peak),
            anonymous=most(past.anonymous, anonymous),
            anonymous_day=most(past.anonymous_day, anonymous),
            working_set=most(past.working_set, working_set),
            throttled=sample(self._held_back(last)),
            node_cpu=sample(node),
        )

    def _held_back(self, last: Reading) -> float | None:
        """Share of its scheduling periods within the window in which the CPU limit held it back."""
        periods, throttled = self._periods[0]
        passed = last.periods - periods
        return (last.throttled - throttled) / passed if passed > 0 else None


@dataclass(slots=True)
class Gauges:
    """The samples of all containers of a project."""

    known: dict[str, Gauge] = field(default_factory=dict)
    """By container and start."""
    cores: float | None = None
    """Share of the machine's cores that is in use; `None`: not known."""

    def of(self, name: str) -> Gauge:
        """The samples of a container between two starts."""
        return self.known.setdefault(name, Gauge(Container(name)))

    def forget(self, living: Iterable[str]) -> None:
        """Keep only these."""
        kept = set(living)
        self.known = {name: gauge for name, gauge in self.known.items() if name in kept}
