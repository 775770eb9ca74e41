"""What runs inside the pods of a virtual node, as the node sees it: a model that starts, resizes, ages and dies."""

from collections.abc import Mapping, Sequence
from typing import Protocol


class Kill(Protocol):
    """The kernel has killed for memory: a whole container, or one process in it."""

    @property
    def name(self) -> str:
        """The container's name in the model."""

    @property
    def whole(self) -> bool:
        """Whether the container died; else one of its processes, and it lives on."""


class Reading(Protocol):
    """What a look into one living container shows. Memory is in bytes."""

    @property
    def rss(self) -> float:
        """Anonymous memory."""

    @property
    def cache(self) -> float:
        """Page cache."""

    @property
    def working_set(self) -> float:
        """Usage without the page cache that the kernel could drop at once."""

    @property
    def usage(self) -> float:
        """All that counts against the limit."""

    @property
    def peak(self) -> float:
        """The most usage since the container started."""

    @property
    def cpu_seconds(self) -> float:
        """CPU used since the container started."""

    @property
    def cfs_periods(self) -> int:
        """Scheduling periods under a limit of CPU since the container started."""

    @property
    def cfs_throttled_periods(self) -> int:
        """Those in which it was held back."""

    @property
    def process_kills(self) -> int:
        """Processes killed for memory since the container started."""


class Containers(Protocol):
    """A model of containers. It knows no Kubernetes: the node tells it what a kubelet would do to a real one.

    The name of a container is that of its pod. `advance` alone lets time pass.
    """

    def start(
        self, name: str, component: str, environment: Mapping[str, str], limit: int | None, cores: float | None
    ) -> None:
        """A container starts, under a name that no living one has: `limit` in bytes of memory, `cores` of CPU."""

    def resize(self, name: str, limit: int | None, cores: float | None) -> None:
        """These limits are in force from now on."""

    def stop(self, name: str) -> None:
        """SIGTERM: it begins nothing new."""

    def idle(self, name: str) -> bool:
        """Whether it has ended by itself after `stop`."""

    def end(self, name: str) -> None:
        """SIGKILL: it is gone. Harmless for one that is gone already."""

    def advance(self, seconds: float) -> Sequence[Kill]:
        """Let time pass; the kills in it. A container that was killed whole is gone."""

    def reading(self, name: str) -> Reading:
        """What a look into it shows."""

    def samples(self) -> Sequence[tuple[str, Mapping[str, str], float]]:
        """Airflow's own series now: name, labels, value."""
