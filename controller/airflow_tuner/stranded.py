"""Tasks that died with their worker while Airflow still counts them: the stall after a worker's death. Pure.

Celery's messages stay with a worker whose main process was killed. The executor counts them as running, so all
heartbeats are healthy, the workers idle, and tasks wait for minutes. The gauges of what runs count the dead tasks too,
until their own timeout: what workers do is known from the workers themselves, else from the starts of tasks since the
death.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from airflow_tuner import lag
from airflow_tuner.model import Observation, Pod, Workload
from airflow_tuner.sentence import counted, short
from airflow_tuner.steps import Past
from airflow_tuner.telemetry import LEAST, Tasks

LASTS = timedelta(seconds=LEAST)
"""A hand-over takes seconds. So long must tasks wait beside idle slots, and so long must a worker have run."""

SHOWS = timedelta(seconds=180)
"""After a worker's death, when it shows whether tasks are stranded: LASTS, the new container's start, and scrapes.
Until then its slots are not raised."""

LATELY = timedelta(hours=1)
"""A worker's death is named this long. The stall it causes is over before."""

FIRST_BACK = timedelta(seconds=300)
"""After a worker's death, when its first tasks come back by Airflow's defaults (task_instance_heartbeat_timeout;
measured on Airflow 3.3.2 and Redis: 307 s)."""

LAST_BACK = timedelta(seconds=600)
"""When its last ones do (scheduler.task_queued_timeout, looked at every 120 s; measured: nine to ten minutes)."""

SKEW = timedelta(seconds=15)
"""The kubelet's clock, the operator's, and how finely the last start of a task is known."""


@dataclass(frozen=True, slots=True)
class Loss:
    """A worker that died, and began again."""

    pod: str
    at: datetime
    of_memory: bool

    @property
    def told(self) -> str:
        """What happened."""
        if not self.of_memory:
            return f"The container of {short(self.pod)} died and began again at {self.at:%H:%M:%S}"
        return f"{short(self.pod)} was killed for memory at {self.at:%H:%M:%S}"


@dataclass(frozen=True, slots=True)
class Stranded:
    """Why it is taken that tasks of one group of workers are stranded."""

    handed_out: int
    waiting: int
    busy: int | None
    """Slots of the group, as its workers say; `None`: they were not asked."""
    slots: int | None
    loss: Loss | None

    @property
    def told(self) -> str:
        """What was seen."""
        if self.busy is None:
            workers = "hardly any starts since its workers lost theirs"
        else:
            workers = f"only {self.busy} of {self.slots} slots are busy, as the workers say"
        return (
            f"{counted(self.handed_out, 'task is', 'tasks are')} handed out to Celery, for {LASTS.total_seconds():.0f} "
            f"s at least, and {counted(self.waiting, 'task waits', 'tasks wait')}, but {workers}."
        )

    def why(self, now: datetime) -> str:
        """What did it, and when it is over."""
        if self.loss is None:
            return "They are held for a worker that is gone, or the workers do not take what waits: look at their logs."
        last = self.loss.at + LAST_BACK
        first = f"{FIRST_BACK.total_seconds() / 60:.0f} minutes after that"
        ends = f"Airflow takes the first back about {first}, the last by about {last:%H:%M}."
        if now >= last:
            ends = f"By {last:%H:%M} Airflow should have had the last back: its timeouts are longer, or it lost them."
        return f"{self.loss.told}, and its messages with it. {ends}"


def found(workload: Workload, seen: Observation, past: Past) -> Stranded | None:
    """Whether tasks of one group of workers are stranded: what is handed out waits beside idle slots, nothing starts.

    `None` also where that is not known: of workers that have just begun, or got other slots, nothing is said. Once it
    was so, it is until nothing is stranded any more: tasks start again one by one.
    """
    tasks = seen.airflow.tasks
    pods = [pod for pod in workload.living if pod.running is not None]
    if not seen.executors.celery or (seen.executors.several and any(pod.slots is None for pod in pods)):
        # Of several executors' tasks it is not known whose wait.
        return None
    settled = [pod for pod in pods if pod.started is not None and seen.at - pod.started >= LASTS]
    if tasks is None or not tasks.handed_out_least or not settled:
        return None
    changed, loss = past.slots_changed, lost(pods, seen.at)
    waiting = _waiting(workload, pods, seen, tasks, loss)
    if not waiting or seen.within(changed, LASTS):
        return None
    if any(pod.slots is None for pod in pods):
        # The others may be full of long tasks. The one that lost its own has been free, and was given none.
        free = loss is not None and any(pod.name == loss.pod for pod in settled)
        quiet = free and _quiet_since(tasks, loss, seen.at) and lag.cpu_short(workload, pods) is None
        goes_on = past.stranded and loss is not None and seen.at < loss.at + LAST_BACK and _full(tasks)
        return Stranded(tasks.handed_out_least, waiting, None, None, loss) if quiet or goes_on else None
    busy = sum(pod.slots.busy for pod in settled if pod.slots is not None)
    slots = sum(pod.slots.processes for pod in settled if pod.slots is not None)
    held = _held(seen)
    if held is None or held >= tasks.handed_out_least:
        return None
    if past.stranded:
        idle = busy < slots
    else:
        # Of other groups' workers tasks may start: then a death must tell.
        died = loss is not None and seen.at < loss.at + LAST_BACK and not _alone(seen)
        idle = busy < lag.BUSY_SHARE * slots and (bool(tasks.quiet) or died)
    return Stranded(tasks.handed_out_least, waiting, busy, slots, loss) if idle else None


def lost(pods: Sequence[Pod], now: datetime) -> Loss | None:
    """The last death among the workers, within the hour."""
    found = []
    for pod in pods:
        if pod.death is not None:
            found.append(Loss(pod.name, pod.death.at, of_memory=True))
        elif pod.deaths and pod.started is not None:
            found.append(Loss(pod.name, pod.started, of_memory=False))
    return max((loss for loss in found if now - loss.at <= LATELY), key=lambda loss: loss.at, default=None)


def _waiting(workload: Workload, pods: Sequence[Pod], seen: Observation, tasks: Tasks, loss: Loss | None) -> int | None:
    """Tasks that wait for these workers and did so all the time. Tasks of a queue that nobody serves are not theirs."""
    waits: int | None = None
    if tasks.queued_least:
        waits = sum(tasks.queued_least.get(queue, 0) for queue in lag.queues(workload, pods))
    elif loss is not None and _alone(seen):
        # Airflow 2 does not say which queue waits: only a death tells that it is not one that nobody serves.
        waits = tasks.waiting_least
    if not waits and loss is not None and _full(tasks) and _alone(seen):
        # All that is handed out counts as running, and what is scheduled waits for the executor.
        return tasks.startable
    return waits


def _full(tasks: Tasks) -> bool:
    """The executor takes nothing more."""
    return tasks.open_slots is not None and tasks.open_slots <= 0


def _alone(seen: Observation) -> bool:
    return sum(item.component == "worker" for item in seen.workloads) == 1


def _quiet_since(tasks: Tasks, loss: Loss | None, now: datetime) -> bool:
    """No task has started since the death, for as long as that takes to tell."""
    if loss is None:
        return False
    since = now - loss.at
    return since >= LASTS and bool(tasks.quiet) and timedelta(seconds=tasks.quiet or 0) + SKEW >= since


def _held(seen: Observation) -> int | None:
    """Most tasks that the living workers can hold, by their own word; a full one holds as many messages again."""
    pods = [pod for item in seen.of("worker") for pod in item.living if pod.running is not None]
    told = [pod.slots for pod in pods if pod.slots is not None]
    if len(told) < len(pods):
        return None
    return sum(one.busy + (one.prefetch if one.busy >= one.processes else 0) for one in told)
