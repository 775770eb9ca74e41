"""Which tasks ran in a worker shortly before something in it was killed for memory. Pure.

Who was killed cannot be asked afterwards: what a dead worker ran is gone with it. So what each worker ran at the last
looks is remembered, by the operator's process alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from airflow_tuner import lag
from airflow_tuner.model import Observation, Pod, Ran, Workload
from airflow_tuner.telemetry import Tasks

BEFORE = timedelta(seconds=120)
"""What was seen to run so long before is told: four looks, and as far as Airflow 3's own gauges are asked back. That a
process was killed shows up to 75 s late (`kills.LATE`)."""

SHOWN = timedelta(hours=1)
"""It is kept for as long as the kill is a finding."""

MOST = 20
"""Most tasks that are kept of a worker."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What had been killed in a pod at the last look."""

    deaths: int
    container_id: str
    processes: int | None
    """`None`: the metrics do not say."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered from turn to turn, by UID of the pod."""

    looks: Mapping[str, Mapping[str, tuple[datetime, int]]] = field(default_factory=dict)
    """Tasks, when they were last seen to run, and how many at once."""
    marks: Mapping[str, Mark] = field(default_factory=dict)
    ran: Mapping[str, Ran] = field(default_factory=dict)
    """What ran before the last kill."""


NOTHING = Memory()


def noted(memory: Memory, seen: Observation) -> Memory:
    """The memory after one more look."""
    looks, marks, ran = {}, {}, {}
    for workload in seen.workloads:
        if workload.component != "worker":
            continue
        for pod in workload.pods:
            before = {
                name: (at, count)
                for name, (at, count) in memory.looks.get(pod.uid, {}).items()
                if seen.at - at <= BEFORE
            }
            now = dict(pod.slots.tasks) if pod.slots is not None else {}
            known = {name: count for name, (_, count) in before.items()}
            both = {name: max(known.get(name, 0), now.get(name, 0)) for name in [*now, *known]}
            old, mark = memory.marks.get(pod.uid), _mark(pod)
            if old is not None and mark.processes is None and old.container_id == mark.container_id:
                mark = replace(mark, processes=old.processes)
            last = memory.ran.get(pod.uid)
            if _died(old, pod, seen.at):
                last = _told(known, workload, seen) or last
            elif _lost(old, mark):
                last = _told(both, workload, seen) or last
            if last is not None and seen.at - last.at <= SHOWN:
                ran[pod.uid] = last
            # The newest first, as there is room for so many only.
            newest = {name: (seen.at, both[name]) if name in now else before[name] for name in both}
            looks[pod.uid] = dict([*newest.items()][:MOST])
            marks[pod.uid] = mark
    return Memory(looks, marks, ran)


def _mark(pod: Pod) -> Mark:
    kills = pod.usage.process_kills
    return Mark(pod.death.number if pod.death else 0, pod.container_id, None if kills is None else int(kills.value))


def _died(old: Mark | None, pod: Pod, now: datetime) -> bool:
    """Its container was killed just now, and no look has seen that."""
    return (
        pod.death is not None
        and (old is None or pod.death.number > old.deaths)
        and timedelta() <= now - pod.death.at <= BEFORE
    )


def _lost(old: Mark | None, mark: Mark) -> bool:
    """A process of the living container was killed since the last look."""
    return (
        old is not None
        and old.container_id == mark.container_id
        and old.processes is not None
        and mark.processes is not None
        and mark.processes > old.processes
    )


def _told(own: Mapping[str, int], workload: Workload, seen: Observation) -> Ran | None:
    tasks = seen.airflow.tasks
    killed = tasks.killed if tasks is not None else ()
    found = own or _of_queues(workload, tasks)
    return Ran(seen.at, found, here=bool(own), killed=killed) if found or killed else None


def _of_queues(workload: Workload, tasks: Tasks | None) -> Mapping[str, int]:
    """What ran in the queues of a group of workers, in whichever of them."""
    found: dict[str, int] = {}
    for queue in lag.queues(workload, workload.living):
        for name, count in (tasks.ran.get(queue, {}) if tasks is not None else {}).items():
            found[name] = found.get(name, 0) + count
    return dict(sorted(found.items(), key=lambda one: (-one[1], one[0]))[:MOST])
