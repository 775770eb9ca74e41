"""A Celery worker: its slots, what it has prefetched, and the tasks that run in it."""

from collections import deque
from dataclasses import dataclass

from airflow_tuner.fleet import settings
from airflow_tuner.fleet.broker import Broker
from airflow_tuner.fleet.container import Birth, Container, Process, Surroundings
from airflow_tuner.fleet.exporter import Exporter
from airflow_tuner.fleet.tasks import Ledger, Task


@dataclass(slots=True, eq=False)
class Slot:
    """One process of the pool."""

    added: bool = False
    """While the worker ran."""
    warm: bool = False
    process: Process | None = None


@dataclass(frozen=True, slots=True)
class Airflow:
    """The parts of Airflow that a worker talks to."""

    ledger: Ledger
    broker: Broker
    exporter: Exporter


class Worker(Container):
    """A worker's container."""

    def __init__(self, birth: Birth, around: Surroundings, airflow: Airflow) -> None:
        self.slots: list[Slot] = []
        super().__init__(birth, around)
        self.queues = frozenset(birth.queues)
        self.target, self.autoscaled = settings.slots(birth.environment)
        """Slots it should have, and whether that can be changed while it runs."""
        self.reserved: deque[Task] = deque()
        """Prefetched."""
        self._airflow = airflow

    @property
    def room(self) -> int:
        """Messages that it would take: as many as run may wait besides."""
        if not self.ready or self.stopping or self.dead:
            return 0
        return 2 * self.target - self.busy - len(self.reserved)

    @property
    def busy(self) -> int:
        """Slots with a task in them."""
        return sum(slot.process is not None for slot in self.slots)

    @property
    def tasks(self) -> list[Task]:
        """What runs in it."""
        return [_task(slot.process) for slot in self.slots if slot.process is not None]

    @property
    def idle(self) -> bool:
        """No task runs in it."""
        return not self.busy

    def take(self, task: Task, at: float) -> None:
        """A message arrives."""
        self.settle(at)
        self.reserved.append(task)
        self._fill(at)

    def set_slots(self, slots: int, at: float) -> bool:
        """Change the slots; whether it did. Intake follows at once, and no task is broken off."""
        if not self.autoscaled or not self.ready or self.stopping or self.dead or slots < 1:
            return False
        self.settle(at)
        self.target = slots
        self._trim()
        self.slots += [Slot(added=True) for _ in range(self.target - len(self.slots))]
        self._fill(at)
        self.changed(at)
        self._airflow.broker.stirred = True
        return True

    def stop(self, at: float) -> None:
        """Warm shutdown: nothing new, and what was not begun goes back."""
        super().stop(at)
        self._airflow.broker.give_back(reversed(self.reserved))
        self.reserved.clear()

    def own(self) -> float:
        """Memory of the slots, without their tasks."""
        laws = self.laws
        return sum(
            (laws.warm_slot if slot.warm else laws.cold_slot) + (laws.added_slot if slot.added else 0.0)
            for slot in self.slots
        )

    def begun(self, at: float) -> None:
        """The pool is there, and the worker listens."""
        del at
        self.slots = [Slot() for _ in range(self.target)]
        self._airflow.broker.stirred = True

    def ended(self, process: Process, at: float) -> None:
        """A task comes from one stage to the next."""
        if not isinstance(process.subject, Task):
            return
        task = process.subject
        if process.what == "begin":
            process.what, process.left, process.share = "work", task.seconds, min(task.job.cpu, 1.0)
            process.mebibytes += task.mebibytes
            self.processes.append(process)
            self.reads(task.job.reads)
            return
        self._free(process)
        failed = task.job.fails > 0 and self.around.rng.random() < task.job.fails
        self._close(task, "failed" if failed else "success", at)
        self._fill(at)

    def killed(self, process: Process, at: float) -> None:
        """A task's process is killed: that try has failed, and the worker lives on."""
        if isinstance(process.subject, Task):
            self._free(process)
            self._close(process.subject, "failed", at)
            self._fill(at)

    def lost(self, at: float) -> None:
        """Its messages are stranded."""
        self._airflow.broker.strand([*self.tasks, *self.reserved], at)
        self.slots.clear()
        self.reserved.clear()

    def _fill(self, at: float) -> None:
        """Start what waits, where there is a slot."""
        free = [slot for slot in self.slots if slot.process is None][: max(0, self.target - self.busy)]
        for slot, _ in zip(free, range(len(self.reserved)), strict=False):
            task = self.reserved.popleft()
            slot.warm = True
            extra = self.laws.busy_slot - self.laws.warm_slot
            slot.process = Process("begin", self.laws.overhead, self.laws.overhead_cpu, extra, task)
            self.processes.append(slot.process)
            task.worker, task.started_at = self.name, at
            task.tries += 1
            self._airflow.ledger.move(task, "running")
            self._airflow.exporter.started(task, at)
            self._airflow.broker.stirred = True

    def _free(self, process: Process) -> None:
        for slot in self.slots:
            if slot.process is process:
                slot.process = None
        self._trim()
        self._airflow.broker.stirred = True

    def _trim(self) -> None:
        """Surplus slots go as they become idle."""
        surplus = len(self.slots) - self.target
        for slot in [slot for slot in reversed(self.slots) if slot.process is None][: max(0, surplus)]:
            self.slots.remove(slot)

    def _close(self, task: Task, outcome: str, at: float) -> None:
        if outcome == "success":
            self._airflow.ledger.finish(task, "success")
        else:
            self._airflow.ledger.retry_or_fail(task, at)
        self._airflow.exporter.ended(task, at)


def _task(process: Process) -> Task:
    if not isinstance(process.subject, Task):
        raise TypeError("A slot holds something else than a task.")
    return process.subject
