"""A Celery worker in the model of weeks: how many slots are busy, and what they hold. Memory is in MiB."""

import math
from dataclasses import dataclass, field

from airflow_tuner.fleet.laws import Laws
from airflow_tuner.fleet.loads import Load


@dataclass(slots=True, eq=False)
class Task:
    """One task with its tries."""

    load: Load
    seconds: float
    mebibytes: float
    scheduled_at: float
    worker: "Worker | None" = None
    tries: int = 0
    started_at: float = 0.0
    number: int = 0
    """Of the event that is to come: an older one of it counts no more."""


@dataclass(slots=True, eq=False)
class Worker:
    """A worker's container, up or between two lives."""

    number: int
    laws: Laws
    slots: int
    limit: float
    """In force; infinity: none."""
    request: float
    up: bool = False
    stopping: bool = False
    gone: bool = False
    """It is scaled away."""
    tasks: dict[Task, None] = field(default_factory=dict)
    """In the order in which they began."""
    cold: int = 0
    warm: int = 0
    """Idle slots that have run no task yet, and those that have."""
    added: int = 0
    """Slots that were added while it runs."""
    held: float = 0.0
    """Anonymous memory without the leak and the probe."""
    leaked: float = 0.0
    cache: float = 0.0
    high: float = 0.0
    """Most of `held` since the last minute began."""
    peak: float = 0.0
    """The kernel's high-water mark, page cache included."""
    started_at: float = 0.0
    deaths: int = 0
    died_at: float = -math.inf
    in_a_row: int = 0
    """Deaths of which each came soon after the one before it."""
    process_kills: int = 0
    """Of its container."""
    life: int = 0
    """Of its containers: how many there have been."""
    wanted: float | None = None
    """A limit that is asked for and does not fit what is in use."""
    reborn_with: float | None = None
    """The limit of its next container, where that is another."""
    cpu: float = 0.0
    """Cores its tasks would use now."""

    @property
    def busy(self) -> int:
        """Slots with a task in them."""
        return len(self.tasks)

    @property
    def anonymous(self) -> float:
        """What the kernel cannot take back."""
        return self.held + self.leaked

    def born(self, at: float) -> None:
        """Its container works: nothing of an earlier one is left."""
        laws = self.laws
        self.up, self.stopping, self.started_at = True, False, at
        self.cold, self.warm, self.added = self.slots, 0, 0
        self.held = self.high = laws.worker_base + self.slots * laws.cold_slot
        self.leaked, self.cache, self.peak = 0.0, laws.file_pages, self.held + laws.file_pages
        self.process_kills, self.cpu = 0, 0.0
        self.life += 1

    def lost(self) -> list[Task]:
        """Its container is gone; the tasks that were in it."""
        tasks, self.tasks = [*self.tasks], {}
        self.up = self.stopping = False
        self.held = self.leaked = self.cache = self.high = self.cpu = 0.0
        self.cold = self.warm = self.added = 0
        return tasks

    def take(self, task: Task) -> None:
        """A task begins in a slot that is free, a warm one where there is."""
        if self.warm:
            self.warm -= 1
            self.held -= self.laws.warm_slot
        else:
            self.cold -= 1
            self.held -= self.laws.cold_slot
        self.held += self.laws.busy_slot + task.mebibytes
        self.high = max(self.high, self.held)
        self.cache += task.load.reads
        self.cpu += task.load.cpu
        self.tasks[task] = None
        task.worker = self

    def release(self, task: Task) -> None:
        """A task has ended; a slot too many goes with it."""
        del self.tasks[task]
        task.worker = None
        self.held -= self.laws.busy_slot + task.mebibytes
        self.cpu -= task.load.cpu
        self.warm += 1
        self.held += self.laws.warm_slot
        if self.busy + self.warm + self.cold > self.slots:
            self._trim()

    @property
    def free(self) -> int:
        """Tasks it would take."""
        return self.slots - len(self.tasks) if self.up and not self.stopping else 0

    def set_slots(self, slots: int) -> None:
        """More are there at once; surplus ones go as they are idle."""
        self.slots = slots
        if not self.up:
            return
        more = slots - self.busy - self.warm - self.cold
        if more > 0:
            self.cold, self.added = self.cold + more, self.added + more
            self.held += more * (self.laws.cold_slot + self.laws.added_slot)
            self.high = max(self.high, self.held)
        else:
            self._trim()

    def _trim(self) -> None:
        laws = self.laws
        for _ in range(self.busy + self.warm + self.cold - self.slots):
            if self.cold:
                self.cold -= 1
                self.held -= laws.cold_slot
            elif self.warm:
                self.warm -= 1
                self.held -= laws.warm_slot
            else:
                return
            if self.added:
                self.added -= 1
                self.held -= laws.added_slot
