"""Tasks that run in the scheduler's own container: how long they wait, and what its memory carries. Pure.

LocalExecutor, and SequentialExecutor on Airflow 2. Its slots are `core.parallelism`, of each scheduler. Airflow 3.3.2
says that all of them are open, whatever runs (`airflow_executor_open_slots`), and queues without end: what runs and
waits is known from the pools.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from airflow_tuner import lag, runaway
from airflow_tuner.executor import SEQUENTIAL
from airflow_tuner.footprint import Footprint, in_scheduler
from airflow_tuner.lag import Flow
from airflow_tuner.model import Observation, Pod, Workload
from airflow_tuner.quantity import readable
from airflow_tuner.sentence import counted, short
from airflow_tuner.steps import Past
from airflow_tuner.telemetry import Tasks


@dataclass(frozen=True, slots=True)
class Lag:
    """Tasks that wait longer than the objective allows, and why."""

    flow: Flow
    cause: str
    """One CamelCase word."""
    told: str
    """The cause as a sentence."""


def slots_of(seen: Observation) -> int | None:
    """Tasks that each scheduler runs at once; `None`: not known, or it runs none."""
    if not seen.executors.local or seen.airflow.tasks is None:
        return None
    # A core.parallelism of 0 means without end on Airflow 2.
    return 1 if SEQUENTIAL in seen.executors.kinds else seen.airflow.tasks.parallelism or None


def late(workload: Workload, seen: Observation, past: Past, objective: int) -> Lag | None:
    """Whether tasks wait too long for a slot of the scheduler; `None` also where other executors run tasks, too."""
    slots, tasks = slots_of(seen), seen.airflow.tasks
    pods = [pod for pod in workload.living if pod.running is not None]
    if slots is None or tasks is None or seen.executors.several or not pods:
        return None
    used_up = tasks.open_slots is not None and tasks.open_slots <= 0
    back = tasks.startable if used_up else 0
    waiting, running, passing = tasks.waiting_in(None) + back, tasks.running_in(None), not tasks.waiting_least
    found = Flow(waiting, running, slots * len(pods), len(pods), tasks.duration, objective, passing and not back)
    if not waiting or not found.late or not _full(found, slots, tasks):
        return None
    if (wild := runaway.found(tasks)) is not None:
        return Lag(found, "RunawayTasks", f"{wild.told} More slots would only run it faster.")
    short_of, slow = lag.cpu_short(workload, pods), lag.database_wait(tasks, [workload])
    if short_of is not None:
        told = f"CPU holds tasks back: {short_of}. Tasks run in that container: more at once would only share it."
        return Lag(found, "SchedulerUnderResourced", told)
    if slow is not None:
        return Lag(found, "DatabaseSlow", f"{slow}: the metadata database holds tasks back.")
    return Lag(found, "ParallelismCapped", _capped(pods, slots, seen, past))


def _full(found: Flow, slots: int, tasks: Tasks) -> bool:
    """One scheduler is full, at least: each has a queue of its own, and another may not be.

    Each task is a process that takes seconds to start, and holds its slot meanwhile (measured on 3.3.2: two of four
    ran). What waits for two minutes waits for more than that.
    """
    starting = bool(tasks.waiting_least) and found.running >= lag.BUSY_SHARE * slots
    return found.running >= slots or starting


def footprint(pods: Sequence[Pod], slots: int, seen: Observation, past: Past) -> Footprint | None:
    """What tasks take in a scheduler; `None` where it was not measured on this Airflow line."""
    tasks = seen.airflow.tasks
    running = tasks.running_in(None) if tasks is not None and not seen.executors.several else 0
    return in_scheduler(pods, slots, running, past, seen.line, seen.at)


def _capped(pods: Sequence[Pod], slots: int, seen: Observation, past: Past) -> str:
    if SEQUENTIAL in seen.executors.kinds:
        return (
            "The SequentialExecutor runs one task at a time, in the scheduler's own container. Set executor: "
            "LocalExecutor in the chart's values, or CeleryExecutor."
        )
    taken = (
        f"All {counted(slots, 'slot', 'slots')} of core.parallelism are taken, by tasks that run or start, and that in "
        f"the scheduler's own container ({seen.executors.told})."
    )
    law, limits = footprint(pods, slots, seen, past), [pod.running.limit for pod in pods if pod.running is not None]
    known = [limit for limit in limits if limit is not None]
    if len(known) < len(limits):
        return f"{taken} Raise config.core.parallelism of the chart, and give that container a memory limit first."
    if law is None:
        return f"{taken} Raise config.core.parallelism of the chart, as far as the memory of that container goes."
    limit = min(known)
    if (most := law.most(limit, slots)) > slots:
        return (
            f"{taken} Raise config.core.parallelism of the chart: its memory limit of {readable(limit)} carries {most}."
        )
    return (
        f"{taken} Its memory limit of {readable(limit)} carries no more ({law}): raise that together with "
        "config.core.parallelism of the chart, or use Celery workers."
    )


def exceeded(pods: Sequence[Pod], slots: int, law: Footprint) -> list[Pod]:
    """Schedulers whose limit does not carry all slots."""
    limits = [(pod, pod.running.limit) for pod in pods if pod.running is not None]
    return [pod for pod, limit in limits if limit is not None and law.need(slots) > limit]


def killed(workload: Workload, seen: Observation, *, whole: bool) -> str:
    """What a kill in the scheduler has to do with tasks, as a sentence; empty where they run elsewhere.

    `whole`: its container died, and not a process of it alone.
    """
    if workload.component != "scheduler" or not seen.executors.local:
        return ""
    slots = slots_of(seen)
    most = "" if slots is None else f", up to {slots} at once (core.parallelism)"
    with_it = ": they died with it" if whole else ""
    return f" Tasks run in this container{most}, as the executor is {short(seen.executors.told)}{with_it}."
