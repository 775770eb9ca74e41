"""Which tasks ran in a worker shortly before something in it was killed for memory, and whose pods there were. Pure.

Who was killed cannot be asked afterwards: what a dead worker ran is gone with it. So what each worker ran at the last
looks is remembered, by the operator's process alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from airflow_tuner import lag, task_runs
from airflow_tuner.model import Observation, Pod, Ran, Workload
from airflow_tuner.task_runs import TaskName
from airflow_tuner.telemetry import Tasks

BEFORE = timedelta(seconds=120)
"""What was seen to run so long before is told: four looks, and as far as Airflow 3's own gauges are asked back. That a
process was killed shows up to 75 s late (`kills.LATE`)."""

SHOWN = timedelta(hours=1)
"""It is kept for as long as the kill is a finding."""

MOST = 20
"""Most tasks that are kept of a worker."""

MOST_TASKS = 2000
"""Most tasks with pods of their own whose names are kept."""


Look = Mapping[str, tuple[datetime, int]]
"""Tasks, when they were last seen to run, and how many at once then."""


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

    looks: Mapping[str, Look] = field(default_factory=dict)
    marks: Mapping[str, Mark] = field(default_factory=dict)
    ran: Mapping[str, Ran] = field(default_factory=dict)
    """What ran before the last kill."""
    tasks: Mapping[str, TaskName] = field(default_factory=dict)
    """Tasks with pods of their own, by what the names of those begin with."""


NOTHING = Memory()


def noted(memory: Memory, seen: Observation) -> Memory:
    """The memory after one more look."""
    looks, marks, ran = {}, {}, {}
    for workload in seen.workloads:
        for pod in workload.pods if workload.component == "worker" else ():
            looks[pod.uid] = _look(memory.looks.get(pod.uid, {}), pod, seen.at)
            marks[pod.uid] = _mark(memory.marks.get(pod.uid), pod)
            last = _ran(memory, workload, pod, seen)
            if last is not None and seen.at - last.at <= SHOWN:
                ran[pod.uid] = last
    return Memory(looks, marks, ran, _tasks(memory.tasks, seen))


def _tasks(known: Mapping[str, TaskName], seen: Observation) -> Mapping[str, TaskName]:
    """The tasks whose pods were seen, the last of them at the end."""
    found = dict(known)
    for pod in seen.task_pods:
        name, stem = TaskName(pod.dag, pod.task), task_runs.stem(pod.name)
        if stem and name.dag and name.task:
            # Of long names what tells two tasks apart may be cut off: then it is neither's.
            found[stem] = name if found.pop(stem, name) == name else TaskName()
    return dict([*found.items()][-MOST_TASKS:])


def _look(before: Look, pod: Pod, now: datetime) -> Look:
    """What it runs, and what it ran at the looks before; the newest first, as there is room for so many only."""
    found = {name: (now, count) for name, count in (pod.slots.tasks if pod.slots is not None else {}).items()}
    found |= {name: told for name, told in before.items() if name not in found and now - told[0] <= BEFORE}
    return dict([*found.items()][:MOST])


def _ran(memory: Memory, workload: Workload, pod: Pod, seen: Observation) -> Ran | None:
    """What ran before the last kill in it."""
    old = memory.marks.get(pod.uid)
    looks = memory.looks.get(pod.uid, {})
    before = {name: count for name, (at, count) in looks.items() if seen.at - at <= BEFORE}
    if _died(old, pod, seen.at):
        return _told(before, workload, seen)
    if _lost(old, _mark(old, pod)):
        # The worker lives on: what it runs now may have been there, too.
        now = dict(pod.slots.tasks) if pod.slots is not None else {}
        both = {name: max(now.get(name, 0), before.get(name, 0)) for name in [*now, *before]}
        return _told(both, workload, seen)
    return memory.ran.get(pod.uid)


def _mark(old: Mark | None, pod: Pod) -> Mark:
    """What has been killed in it by now; a count that cannot be read now is kept."""
    kills, same = pod.usage.process_kills, old is not None and old.container_id == pod.container_id
    known = old.processes if old is not None and same else None
    return Mark(pod.death.number if pod.death else 0, pod.container_id, known if kills is None else int(kills.value))


def _died(old: Mark | None, pod: Pod, now: datetime) -> bool:
    """Its container was killed just now, and no look has seen that."""
    return (
        pod.death is not None
        and (old is None or pod.death.number > old.deaths)
        # The node's clock may be ahead.
        and abs(now - pod.death.at) <= BEFORE
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
