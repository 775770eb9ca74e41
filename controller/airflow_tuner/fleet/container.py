"""A container: its processes, and what the kernel does to them over memory and CPU. Memory is in MiB inside."""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from airflow_tuner.fleet.cores import PERIODS, factor, rate, throttled
from airflow_tuner.fleet.laws import Laws

MEBIBYTE = 2**20
PROBED = frozenset({"worker", "scheduler", "triggerer", "dag-processor"})
"""Components whose probe starts a Python process in the container."""

UNLIKE = 0.01
"""Relative change of its load that a container takes notice of."""

_NOTHING = 1e-6
"""Seconds: less is left of nothing."""


@dataclass(frozen=True, slots=True)
class Kill:
    """The kernel has killed for memory."""

    name: str
    whole: bool
    """The container has died; else one of its processes."""
    at: float


@dataclass(frozen=True, slots=True)
class Reading:
    """What cAdvisor shows of one container: bytes, seconds, and counts since its start."""

    rss: int
    cache: int
    working_set: int
    usage: int
    peak: int
    cpu_seconds: float
    cfs_periods: int
    cfs_throttled_periods: int
    process_kills: int


@dataclass(frozen=True, slots=True)
class Birth:
    """How a container is started."""

    name: str
    component: str
    at: float
    environment: Mapping[str, str]
    limit: int | None
    """Bytes."""
    cores: float | None
    queues: tuple[str, ...] = ("default",)


@dataclass(slots=True)
class Surroundings:
    """What all containers of a deployment share."""

    laws: Laws
    line: str
    rng: random.Random
    group_kills: bool
    kills: list[Kill] = field(default_factory=list)
    leaks: dict[str, float] = field(default_factory=dict)
    """MiB per hour, by component."""
    caches: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Active share of the page cache, and MiB per hour by which it grows, by component, where not as usual."""


@dataclass(slots=True, eq=False)
class Process:
    """A child process that ends by itself after `left` seconds at full speed."""

    what: str
    left: float
    share: float
    """Cores it would use at full speed, up to 1."""
    mebibytes: float = 0.0
    subject: object = None
    rate: float = 1.0


class Container:
    """A running container of any component; it goes from event to event."""

    def __init__(self, birth: Birth, around: Surroundings) -> None:
        self.name, self.component = birth.name, birth.component
        self.around, self.laws = around, around.laws
        self.limit, self.cores = _mebibytes(birth.limit), _cores(birth.cores)
        self.at = birth.at
        self.ready = self.stopping = self.dead = self.frozen = False
        self.processes = [Process("start", self.laws.start_seconds, self.laws.start_cpu)]
        self.due = math.inf
        self.alarm = math.inf
        """When the component itself wants to be woken."""
        self.factor = 1.0
        """Of full speed, for what only computes."""
        self._probe_at = math.inf
        self._held = self._leaked = self._peak = 0.0
        self._cache = self.laws.file_pages
        self._cpu_seconds = self._used = self._periods = self._throttled = self._throttled_share = 0.0
        self._kills = 0
        self._idle_cpu = self.laws.idle_cpu

    # What components are made of.

    def own(self) -> float:
        """Memory of the component beyond its base, without its processes."""
        return 0.0

    def begun(self, at: float) -> None:
        """It is ready for its work."""

    def ended(self, process: Process, at: float) -> None:
        """A process has ended by itself."""

    def killed(self, process: Process, at: float) -> None:
        """A process has been killed for memory."""

    def lost(self, at: float) -> None:
        """The container is gone."""

    def woken(self, at: float) -> None:
        """The alarm rings. It must be set anew, later."""
        del at
        self.alarm = math.inf

    # What happens from outside.

    def happen(self, now: float) -> None:
        """Let everything happen that is due until now."""
        while self.due <= now:
            at = max(self.due, self.at)
            self.settle(at)
            for process in [process for process in self.processes if process.left <= _NOTHING]:
                self.processes.remove(process)
                if process.what == "start":
                    self._start(at)
                else:
                    self.ended(process, at)
            if self._probe_at <= at:
                self._probe_at += self.laws.probe_interval
                self.processes.append(Process("probe", self.laws.probe_seconds, self.laws.probe_cpu, self.laws.probe))
            if self.alarm <= at:
                self.woken(at)
            self.changed(at)

    def settle(self, at: float) -> None:
        """Let the time pass in which nothing happens."""
        seconds = at - self.at
        if seconds <= 0 or self.dead:
            return
        self.at = at
        if self.frozen:
            return
        for process in self.processes:
            process.left -= process.rate * seconds
        self._cpu_seconds += self._used * seconds
        if self.cores is not None:
            self._periods += PERIODS * seconds
            self._throttled += PERIODS * seconds * self._throttled_share
        self._leaked += self._leak * seconds
        self._fill_cache(self._cached[1] * seconds / 3600)

    def changed(self, at: float) -> None:
        """Something is different: the kernel looks at the memory, and the next event is another."""
        if self.dead:
            return
        self._relieve(at)
        if not self.dead:
            self._fill_cache(0.0)
            self._plan()

    def resize(self, limit: int | None, cores: float | None, at: float) -> None:
        """Put other resources in force. The kernel kills at once what no longer fits."""
        self.settle(at)
        self.limit, self.cores = _mebibytes(limit), _cores(cores)
        self.changed(at)

    def work(self, load: float, at: float) -> None:
        """Its own upkeep takes so many cores more than an idle component's."""
        if abs(self.laws.idle_cpu + load - self._idle_cpu) > UNLIKE * load:
            self.settle(at)
            self._idle_cpu = self.laws.idle_cpu + load
            self.changed(at)

    def freeze(self, at: float, *, frozen: bool) -> None:
        """Stop all its processes, or let them go on."""
        self.settle(at)
        self.frozen = frozen
        self._plan()

    def stop(self, at: float) -> None:
        """SIGTERM."""
        self.settle(at)
        self.stopping = True

    def die(self, at: float) -> None:
        """It is gone, with all that ran in it."""
        if self.dead:
            return
        self.settle(at)
        self.dead, self.ready, self.due = True, False, math.inf
        self.lost(at)
        self.processes.clear()
        self._held = self._leaked = self._cache = 0.0

    def reads(self, mebibytes: float) -> None:
        """Files are read: they stay in the page cache."""
        self._fill_cache(mebibytes)

    @property
    def idle(self) -> bool:
        """Nothing runs in it that should not be broken off."""
        return True

    @property
    def anonymous(self) -> float:
        """MiB that the kernel cannot take back."""
        return self._held + self._leaked

    def reading(self) -> Reading:
        """Its figures as they stand."""
        cap = math.inf if self.limit is None else self.limit
        rss, usage = min(self.anonymous, cap), min(self.anonymous + self._cache, cap)
        cache = usage - rss
        return Reading(
            int(rss * MEBIBYTE),
            int(cache * MEBIBYTE),
            int((rss + cache * self._cached[0]) * MEBIBYTE),
            int(usage * MEBIBYTE),
            int(self._peak * MEBIBYTE),
            self._cpu_seconds,
            int(self._periods),
            int(self._throttled),
            self._kills,
        )

    # What the kernel does.

    def _start(self, at: float) -> None:
        self.ready = True
        if self.component in PROBED:
            self._probe_at = at + self.around.rng.uniform(0, self.laws.probe_interval)
        self.begun(at)

    @property
    def _cached(self) -> tuple[float, float]:
        return self.around.caches.get(self.component, (self.laws.active_cache, self.laws.cache_growth))

    @property
    def _leak(self) -> float:
        return self.around.leaks.get(self.component, 0.0) / 3600

    def _resting(self) -> float:
        base = self.laws.base(self.component)
        return self.own() + base * (1.0 if self.ready else self.laws.newborn_share)

    def _relieve(self, at: float) -> None:
        """Kill until what is held fits."""
        while True:
            resting = self._resting()
            self._held = resting + sum(process.mebibytes for process in self.processes)
            if self.limit is None or self.anonymous <= self.limit:
                return
            self._peak = max(self._peak, self.limit)
            if self.around.group_kills or resting + self._leaked > self.limit:
                self.around.kills.append(Kill(self.name, whole=True, at=at))
                self.die(at)
                return
            victim = max(self.processes, key=lambda process: process.mebibytes)
            self.processes.remove(victim)
            self._kills += 1
            self.around.kills.append(Kill(self.name, whole=False, at=at))
            self.killed(victim, at)

    def _fill_cache(self, mebibytes: float) -> None:
        """Page cache grows into what is free, and gives way to everything else."""
        free = math.inf if self.limit is None else max(0.0, self.limit - self.anonymous)
        self._cache = min(self._cache + mebibytes, free)
        peak = self.anonymous + self._cache
        self._peak = max(self._peak, peak if self.limit is None else min(peak, self.limit))

    def _plan(self) -> None:
        """How fast everything runs, and when the next thing happens."""
        shares = [process.share for process in self.processes]
        demand = self._idle_cpu + sum(shares)
        self.factor = factor(self._idle_cpu, shares, self.cores)
        self._used = demand if self.cores is None else min(demand, self.cores)
        self._throttled_share = throttled(demand, self.cores, self.laws.throttled_from)
        due = min(self._probe_at, self.alarm)
        for process in self.processes:
            process.rate = 1.0 if self.factor == 1.0 else rate(process.share, self.factor)
            due = min(due, self.at + max(process.left, 0.0) / process.rate)
        if self.limit is not None and self._leak > 0:
            due = min(due, self.at + (self.limit - self.anonymous) / self._leak + _NOTHING)
        self.due = math.inf if self.frozen else due


def _mebibytes(limit: int | None) -> float | None:
    return None if limit is None else limit / MEBIBYTE


def _cores(cores: float | None) -> float | None:
    return cores or None
