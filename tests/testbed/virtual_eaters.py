"""The smallest containers for a virtual node: each eats as much memory as it is told to, itself or in a child."""

from collections.abc import Mapping
from dataclasses import dataclass, field

MEBIBYTE = 2**20
BASE = 10 * MEBIBYTE


@dataclass(frozen=True, slots=True)
class EaterKilled:
    """The kernel has killed one."""

    name: str
    whole: bool


@dataclass(slots=True)
class Eater:
    """One container, and what a look into it shows. Memory is in bytes."""

    component: str
    environment: Mapping[str, str]
    limit: int | None
    cores: float | None
    rss: float = BASE
    child: float = 0
    cache: float = 0
    peak: float = BASE
    cpu_seconds: float = 0
    cfs_periods: int = 0
    cfs_throttled_periods: int = 0
    process_kills: int = 0
    stopping: bool = False
    busy: bool = False
    """Whether it has work that keeps it alive after `stop`."""

    @property
    def usage(self) -> float:
        """What counts against the limit."""
        return self.rss + self.child + self.cache

    @property
    def working_set(self) -> float:
        """The same: none of its cache can be dropped."""
        return self.usage


@dataclass
class Eaters:
    """Containers that eat on demand."""

    living: dict[str, Eater] = field(default_factory=dict)

    def start(
        self, name: str, component: str, environment: Mapping[str, str], limit: int | None, cores: float | None
    ) -> None:
        """One starts, with nothing eaten."""
        self.living[name] = Eater(component, environment, limit, cores)

    def resize(self, name: str, limit: int | None, cores: float | None) -> None:
        """These limits are in force."""
        self.living[name].limit, self.living[name].cores = limit, cores

    def stop(self, name: str) -> None:
        """It ends as soon as it is not busy."""
        self.living[name].stopping = True

    def idle(self, name: str) -> bool:
        """Whether it has ended."""
        return name not in self.living or (self.living[name].stopping and not self.living[name].busy)

    def end(self, name: str) -> None:
        """It is gone."""
        self.living.pop(name, None)

    def eat(self, name: str, mebibytes: float) -> None:
        """The main process holds this much beside its base."""
        self.living[name].rss = BASE + mebibytes * MEBIBYTE

    def eat_in_child(self, name: str, mebibytes: float) -> None:
        """A child holds this much; where it is killed, the main process lives on."""
        self.living[name].child = mebibytes * MEBIBYTE

    def advance(self, seconds: float) -> tuple[EaterKilled, ...]:
        """Each takes a tenth of a core; where the limit is passed, the child dies, or else the whole."""
        kills = []
        for name, eater in list(self.living.items()):
            eater.cpu_seconds += 0.1 * seconds
            eater.peak = max(eater.peak, min(eater.usage, eater.limit or eater.usage))
            if eater.limit is None or eater.usage <= eater.limit:
                continue
            kills.append(EaterKilled(name, whole=not eater.child))
            if eater.child:
                eater.child = 0
                eater.process_kills += 1
            else:
                self.end(name)
        return tuple(kills)

    def reading(self, name: str) -> Eater:
        """The container itself."""
        return self.living[name]

    def samples(self) -> tuple[tuple[str, Mapping[str, str], float], ...]:
        """One series, so that there is something to ask for."""
        return (("airflow_eaters", {"kind": "living"}, len(self.living)),)
