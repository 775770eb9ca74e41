"""How long tasks wait for a worker, how many slots the objective asks for, and what holds the tasks back. Pure."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from airflow_tuner.model import Pod, Workload
from airflow_tuner.sentence import counted, short
from airflow_tuner.telemetry import Tasks

DEMAND_MARGIN = 1.1
"""On the slots that Little's law asks for: durations and arrivals are means."""

BUSY_SHARE = 0.5
"""Below this share of busy slots the workers are not what tasks wait for: they would have taken them."""

CPU_FULL = 0.9
"""Share of the CPU limit, or of the node's cores, from which more slots would only share the same CPU."""

THROTTLED = 0.25
"""Share of throttled scheduling periods from which the CPU limit is what holds tasks back."""

HELD_LONGER = 1.0
"""Seconds that a task holds its slot beyond its duration (measured: 1.3 on Airflow 3.3.2, 0.6 on 2.11.2)."""

DATABASE_SLOW = 1.0
"""Seconds of the scheduler's critical query, usually milliseconds, from which the database holds tasks back."""

WAITING = 0.5
"""Cores of a scheduler below which it waits rather than computes: one that computes takes a core (measured with the
database locked: 0.014)."""

WORKERS_IDLE = "WorkersIdle"
"""The word for that workers would have taken what waits."""
PODS_PENDING = "PodsPending"
"""The word for that no node takes the pods of tasks."""

CPU_BOUND = "WorkersCpuBound"
"""The word for that CPU is what the workers lack."""


@dataclass(frozen=True, slots=True)
class Flow:
    """The tasks of one group of workers."""

    waiting: int
    running: int
    slots: int
    """In force in all its workers."""
    workers: int
    duration: float | None
    """Mean seconds of a task; `None`: none has ended within the window."""
    objective: int
    """Seconds that a task may wait."""
    passing: bool = False
    """It is not known that some waited all through two minutes: so it looks where tasks are few, and after a start."""

    @property
    def wait(self) -> float | None:
        """Seconds that the last one in the queue waits at the present pace; `None`: not known."""
        if not self.waiting:
            return 0.0
        if self.duration is None or not self.slots:
            return None
        return self.waiting * (self.duration + HELD_LONGER) / self.slots

    @property
    def late(self) -> bool:
        """The objective is missed, or nothing says that it is not."""
        return not self.passing if self.wait is None else self.wait > self.objective

    @property
    def asked(self) -> int:
        """Slots of all workers together that work the queue off within the objective, by Little's law.

        The running tasks go on; of the waiting ones those run at once that are not done in time by turns.
        """
        return min(math.ceil(DEMAND_MARGIN * self.at_once), self.running + self.waiting)

    @property
    def demand(self) -> int:
        """The same of each worker."""
        return math.ceil(self.asked / self.workers)

    @property
    def at_once(self) -> float:
        """Tasks that must run at once for that."""
        share = 1.0 if self.duration is None else min(1.0, (self.duration + HELD_LONGER) / self.objective)
        return self.running + self.waiting * share

    @property
    def told(self) -> str:
        """The lag against the objective."""
        if not self.waiting:
            return f"No task waits; the objective is {self.objective} s."
        wait = "an unknown time" if self.wait is None else f"about {self.wait:.0f} s"
        slots = counted(self.slots, "slot", "slots")
        return (
            f"{counted(self.waiting, 'task waits', 'tasks wait')} for {slots}, {wait} at the present pace; "
            f"the objective is {self.objective} s."
        )

    @property
    def lasting(self) -> str:
        """How long its tasks take."""
        return "of unknown duration" if self.duration is None else f"of {self.duration:.1f} s each"


def flow(
    workload: Workload,
    pods: Sequence[Pod],
    slots: int,
    tasks: Tasks,
    objective: int,
    *,
    alone: bool,
    several: bool = False,
) -> Flow | None:
    """The flow of one group; `slots` are in force in all of it. `None`: Airflow does not say which queue waits.

    `alone`: it is the only group, and so serves all queues. `several`: Celery is one of several executors.
    """
    if several:
        return _of_celery(pods, slots, tasks, objective) if alone else None
    if not alone and not (tasks.queued or tasks.running):
        return None
    mine = None if alone else queues(workload, pods)
    waiting, running = tasks.waiting_in(mine), tasks.running_in(mine)
    if all(pod.slots is not None for pod in pods):
        # The workers themselves know it sooner.
        running = max(running, sum(pod.slots.busy for pod in pods if pod.slots is not None))
    # The executor may hold back what it would hand out if the queue moved.
    used_up = waiting and alone and tasks.open_slots is not None and tasks.open_slots <= 0
    back = tasks.startable if used_up else 0
    passing = not tasks.waiting_least and not back
    return Flow(waiting + back, running, slots, len(pods), tasks.duration, objective, passing)


def _of_celery(pods: Sequence[Pod], slots: int, tasks: Tasks, objective: int) -> Flow | None:
    """The flow of Celery's tasks alone: what was handed out to it and does not run in its workers waits."""
    told = [pod.slots.busy for pod in pods if pod.slots is not None]
    if tasks.handed_out is None or len(told) < len(pods):
        return None
    waiting, passing = max(0, tasks.handed_out - sum(told)), not tasks.waiting_least
    return Flow(waiting, sum(told), slots, len(pods), tasks.duration, objective, passing)


def own_queues(workload: Workload, seen: Sequence[Workload]) -> bool:
    """No other group of workers takes tasks from its queues."""
    others = [item for item in seen if item.component == "worker" and item.name != workload.name]
    mine = {*queues(workload, workload.living)}
    return not any(mine & {*queues(item, item.living)} for item in others)


def other_cause(
    workload: Workload, pods: Sequence[Pod], found: Flow, tasks: Tasks, schedulers: Sequence[Workload] = ()
) -> tuple[str, str] | None:
    """What but the slots holds tasks back, in the order a person would look: (a word, a sentence)."""
    slow = database_wait(tasks, schedulers)
    if slow is not None and cpu_short(workload, pods) is None:
        return _scheduling_slow(slow, scheduler_short(schedulers))
    most = (
        None if tasks.parallelism is None else tasks.parallelism * max(1, sum(len(item.living) for item in schedulers))
    )
    if most is not None and (tasks.open_slots or 0) <= 0 and most < BUSY_SHARE * found.slots:
        # Some wait for a moment on their way to a worker: that is not what holds the others back.
        return (
            "ParallelismCapped",
            f"core.parallelism is used up, and lets only {most} of {found.slots} slots be busy. More slots would not "
            "help: raise config.core.parallelism of the chart.",
        )
    if found.running < BUSY_SHARE * found.slots:
        return (
            WORKERS_IDLE,
            f"Only {found.running} of {found.slots} slots are busy: workers start, or messages are held by tasks that "
            "died with a worker. More slots would not help.",
        )
    return _cpu(workload, pods)


def scheduler_short(schedulers: Sequence[Workload]) -> str | None:
    """Which scheduler lacks CPU, as a clause; `None`: none does, as far as is known."""
    for item in schedulers:
        pods = [pod for pod in item.living if pod.running is not None]
        if (told := cpu_short(item, pods)) is not None:
            return told
    return None


def database_wait(tasks: Tasks, schedulers: Sequence[Workload]) -> str | None:
    """What of the scheduler waits for the database, as a clause; `None`: nothing does, as far as is known."""
    if tasks.critical is not None and tasks.critical > DATABASE_SLOW:
        return f"The scheduler's critical query takes {tasks.critical:.1f} s on average (usually milliseconds)"
    usages = [pod.usage for item in schedulers for pod in item.living if not pod.usage.momentary]
    cores = [usage.cpu.value for usage in usages if usage.cpu is not None]
    waits = bool(cores) and max(cores) < WAITING
    if waits and tasks.section is not None and tasks.section > DATABASE_SLOW:
        return (
            f"The scheduler's critical section takes {tasks.section:.1f} s on average (usually milliseconds) at "
            f"{max(cores):.2f} cores, so it waits, as for a lock"
        )
    return None


def _scheduling_slow(query: str, short_of: str | None) -> tuple[str, str]:
    if short_of is not None:
        told = f"{query} and its CPU is short: {short_of}. More slots would give it more to do."
        return "SchedulerUnderResourced", told
    return (
        "DatabaseSlow",
        f"{query}: the metadata database holds tasks back, and more slots would load it more.",
    )


def before_workers(
    tasks: Tasks | None, *, stalled: bool = False, workers: bool = True, shared: bool = False
) -> tuple[tuple[str, str, str], ...]:
    """What holds tasks back before any worker is asked: (a word, what it is about, a sentence).

    `stalled`: what is handed out has died with a worker. `workers`: Celery workers run tasks. `shared`: other executors
    run tasks, too.
    """
    if tasks is None:
        return ()
    no_use = "More worker slots would not help: raise" if workers else "Raise"
    found = [
        (
            "PoolExhausted",
            f"pool/{pool.name}",
            f"The pool {short(pool.name)} is full ({pool.running} running, {pool.queued} queued), and "
            f"{counted(pool.scheduled, 'more slot is', 'more slots are')} asked for. {no_use} "
            "the pool's slots, or let its tasks wait.",
        )
        for pool in tasks.pools
        # One that is full of tasks that wait for a worker does not hold them back.
        if pool.full and pool.queued <= pool.running
    ]
    used_up = tasks.open_slots is not None and tasks.open_slots <= 0 and not stalled
    # What several executors together hand out is bounded by it, and what one of them has left says nothing of that.
    if used_up and tasks.startable and not tasks.waiting_in(None) and not shared:
        found.append(
            (
                "ParallelismCapped",
                "scheduler",
                f"core.parallelism is used up ({tasks.handed_out} tasks are handed out, and none of them waits"
                f"{' for a worker' if workers else ''}), and "
                f"{counted(tasks.startable, 'task waits', 'tasks wait')} for it. {no_use} config.core.parallelism of "
                "the chart.",
            )
        )
    return tuple(found)


def longest(tasks: Tasks | None, pods: Iterable[Pod]) -> float | None:
    """Seconds of the longest task known: 99 % of those lately ended were shorter, or one has run so long already."""
    known = [pod.slots.oldest for pod in pods if pod.slots is not None]
    known += [tasks.longest] if tasks is not None and tasks.longest is not None else []
    return max(known, default=None)


def queues(workload: Workload, pods: Sequence[Pod]) -> tuple[str, ...]:
    """Queues that a group serves: as its workers say, else as its template does."""
    told = sorted({queue for pod in pods if pod.slots is not None for queue in pod.slots.queues})
    return tuple(told) or workload.queues


def _cpu(workload: Workload, pods: Sequence[Pod]) -> tuple[str, str] | None:
    """Whether CPU is what the workers lack; also when that cannot be told."""
    if not all(pod.usage.cpu for pod in pods):
        return "CpuUnknown", "The workers' CPU use is not known, so their slots are not raised."
    told = cpu_short(workload, pods)
    if told is None and any(pod.usage.momentary for pod in pods):
        return "CpuUnknown", "The workers' CPU use is known of a moment only (metrics.k8s.io): slots are not raised."
    if told is None:
        return None
    return CPU_BOUND, f"CPU holds tasks back: {told}. More slots would only share it."


def cpu_short(workload: Workload, pods: Sequence[Pod]) -> str | None:
    """Which container lacks CPU, as a clause; `None`: none does, as far as is known."""
    for pod in pods:
        usage = pod.usage
        if usage.throttled is not None and usage.throttled.value >= THROTTLED:
            return f"the CPU limit held {short(pod.name)} back in {usage.throttled.value:.0%} of its time"
        limit = workload.cores_of(pod)
        if usage.cpu and limit and usage.cpu.value >= CPU_FULL * limit:
            return f"{short(pod.name)} uses {usage.cpu.value:.2f} of the {limit:g} cores of its limit"
        if usage.node_cpu is not None and usage.node_cpu.value >= CPU_FULL:
            return f"{usage.node_cpu.value:.0%} of the cores of the node of {short(pod.name)} are in use"
    return None
