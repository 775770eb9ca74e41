"""Memory for tasks that have pods of their own (KubernetesExecutor), as a recommendation: nothing sets it. Pure.

The request is what nine of ten runs of the task stayed below, the limit what no run exceeded with a margin on that; a
kill asks for more than the limit that it happened under. What rests on few runs says so, and is lowered less or not.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from airflow_tuner import decide, quantity, signals, task_runs
from airflow_tuner.api import Spec
from airflow_tuner.model import Memory, Observation, TaskPod
from airflow_tuner.quantity import readable
from airflow_tuner.sentence import counted
from airflow_tuner.steps import OOM_FACTOR, Bounds
from airflow_tuner.task_runs import TaskName, TaskRuns

MI = quantity.MEBIBYTE

ENOUGH = 20
"""Runs from which values are lowered at once: of so many the next exceeds all of them once in 21 times."""

FEW = 5
"""Runs below which nothing is lowered."""

TAIL = 1.25
"""Limit as a factor on the largest run of `ENOUGH` or more; as for other containers."""

TAIL_FEW = 1.5
"""The same for fewer runs, the largest of which says less."""

SEEN = 4
"""Samples of a run below which its own peak may lie between them: then the kernel's counts, page cache included."""

WORTH = 0.15
"""Share by which a value must differ to be worth a change of a DAG."""

COARSE = 32 * MI
"""What is recommended is a multiple of that, so that it does not change with every run."""

COVERED = 0.9
"""Share of all runs whose tasks the values of the pod template should fit."""

TARGET = decide.TASK_PODS


@dataclass(frozen=True, slots=True)
class Size:
    """What one task should have."""

    name: TaskName
    runs: TaskRuns
    before: Memory | None
    """What its newest pod had; `None`: not known."""
    after: Memory
    reason: str
    """OutOfMemory, LimitTooSmall, LimitsMissing, RequestTooSmall, Overprovisioned or NotKnown; empty: it fits."""
    why: str

    @property
    def saved(self) -> int:
        """Bytes of request that each pod would reserve less; negative where it is more."""
        return 0 if self.before is None else (self.before.request or 0) - (self.after.request or 0)


@dataclass(frozen=True, slots=True)
class Advice:
    """What can be said of all tasks with pods of their own."""

    changes: tuple[Size, ...]
    """What should change, the worst first, then the largest savings."""
    fitting: int
    """Tasks whose values fit."""
    unknown: int
    """Tasks that nothing is said of: none of their pods was seen yet, or they are too many."""
    template: Memory | None
    """For the pod template: what fits the tasks of nine of ten runs; `None`: too few runs."""

    @property
    def told(self) -> str:
        """In one sentence."""
        tasks = counted(len(self.changes), "task should", "tasks should")
        unknown = f", and of {self.unknown} no pod was seen yet" if self.unknown else ""
        return f"{tasks} have other memory, {self.fitting} fit{unknown}."


@dataclass(frozen=True, slots=True)
class _Task:
    """A task with all that is known of its pods."""

    runs: TaskRuns
    now: Memory | None
    kills: int
    killed_at: int | None

    @property
    def largest(self) -> int:
        """The most that a run took, as far as that was seen."""
        runs = self.runs
        return max(runs.most, runs.peak or 0) if self.sparse else runs.most

    @property
    def sparse(self) -> bool:
        """Its runs are too short to be seen well."""
        return self.runs.looks < SEEN * self.runs.runs

    @property
    def lowering(self) -> float:
        """The share of the way down that its runs allow."""
        if self.runs.runs < FEW or self.kills or (self.sparse and self.runs.peak is None):
            return 0.0
        return 1.0 if self.runs.runs >= ENOUGH else 0.5


_ORDER = ("OutOfMemory", "LimitTooSmall", "LimitsMissing", "RequestTooSmall", "Overprovisioned", "NotKnown")


def advice(spec: Spec, seen: Observation) -> Advice | None:
    """What tasks should have; `None` where the policy names no `tasks`, or nothing is known of any."""
    bounds = decide.bounds_of(spec, TARGET, TARGET)
    if bounds is None or spec.tasks is None or not seen.task_runs:
        return None
    pods: dict[str, list[TaskPod]] = {}
    for pod in seen.task_pods:
        pods.setdefault(task_runs.stem(pod.name), []).append(pod)
    equal = spec.tasks.memory.limit_equals_request
    named = [(runs, name) for runs in seen.task_runs if (name := seen.task_names.get(runs.stem)) and name.dag]
    sizes = [_size(name, _joined(runs, pods.get(runs.stem, ())), bounds, equal=equal) for runs, name in named]
    changes = sorted((size for size in sizes if size.reason), key=_rank)
    unknown = max(len(seen.task_runs), seen.task_groups or 0) - len(sizes)
    return Advice(tuple(changes), len(sizes) - len(changes), unknown, _template(sizes))


def size_of(spec: Spec, seen: Observation, dag: str, task: str) -> Size | None:
    """What one task should have, where that is something else."""
    found = advice(spec, seen)
    changes = found.changes if found is not None else ()
    return next((size for size in changes if size.name == TaskName(dag, task)), None)


def _joined(runs: TaskRuns, pods: Sequence[TaskPod]) -> _Task:
    """With the pods that are there: they know request and limit, and the kills of whole containers."""
    newest = max(pods, key=lambda pod: (pod.created, pod.name), default=None)
    told = None
    if runs.limit is not None or runs.request is not None:
        limit = runs.limit or None
        told = Memory(limit if runs.request is None else runs.request, limit)
    dead = [pod for pod in pods if pod.death is not None]
    limits = [pod.memory.limit for pod in dead if pod.memory.limit is not None]
    under = max([*limits, runs.killed_at or 0]) or None
    return _Task(runs, newest.memory if newest is not None else told, max(runs.kills, len(dead)), under)


def _size(name: TaskName, task: _Task, bounds: Bounds, *, equal: bool) -> Size:
    runs, now = task.runs, task.now or Memory()
    factor = TAIL if runs.runs >= ENOUGH else TAIL_FEW
    asked = max(_coarse(factor * task.largest), _coarse(OOM_FACTOR * (task.killed_at or 0)))
    limit = _moved(now.limit, asked, task.lowering)
    usual = task.largest if task.sparse or runs.runs < ENOUGH else runs.usual
    request = _moved(now.request, min(_coarse(usual), asked), task.lowering)
    after = bounds.hold(Memory(limit if equal else min(request, limit), limit))
    if min(limit, now.limit or 0) > bounds.max:
        # What the user gave it beyond the bounds, and it may need, is the user's.
        after = now
    reason = _reason(task, after)
    return Size(name, runs, task.now, after, reason, _why(task, after, asked, bounds))


def _coarse(size: float) -> int:
    return -int(-size // COARSE) * COARSE


def _moved(now: int | None, asked: int, lowering: float) -> int:
    """`asked`, or on the way down as far as the runs allow."""
    if now is None or asked >= now:
        return asked
    return min(now, _coarse(now - lowering * (now - asked)))


def _reason(task: _Task, after: Memory) -> str:
    """What is wrong with what it has; empty where nothing is worth a change."""
    now, limit, request = task.now, after.limit or 0, after.request or 0
    if now is None:
        return "NotKnown"
    if now.limit is None:
        return "LimitsMissing"
    if task.killed_at is not None and task.killed_at >= now.limit:
        return "OutOfMemory"
    if limit > (1 + WORTH) * now.limit:
        return "LimitTooSmall"
    had = now.request or 0
    if request > (1 + WORTH) * had:
        return "RequestTooSmall"
    fewer = limit < (1 - WORTH) * now.limit or request < (1 - WORTH) * had
    return "Overprovisioned" if fewer else ""


def _why(task: _Task, after: Memory, asked: int, bounds: Bounds) -> str:
    runs, now = task.runs, task.now or Memory()
    parts = [
        f"{counted(runs.runs, 'run', 'runs')} within {signals.DAYS} days took at most {readable(runs.most)}, nine of "
        f"ten no more than {readable(runs.usual)}."
    ]
    if task.kills:
        under = f" under a limit of {readable(task.killed_at)}" if task.killed_at else ""
        parts.append(f"{counted(task.kills, 'pod was', 'pods were')} killed for memory{under}.")
    if task.sparse:
        kept = "" if runs.peak is None else f": the kernel's own {readable(runs.peak)} counts, page cache included"
        parts.append(f"They are short, with {counted(runs.looks, 'sample', 'samples')} in all{kept}.")
    parts.append(f"Now {'not known' if task.now is None else _told(now)} -> {_told(after)}.")
    if after == task.now and (now.limit or 0) > bounds.max:
        parts.append(f"It is above tasks.memory.max = {readable(bounds.max)}, and left as it is.")
    elif asked > bounds.max:
        parts.append(f"It asks for {readable(asked)}: tasks.memory.max = {readable(bounds.max)} ends it.")
    elif task.lowering < 1 and asked < (now.limit or 0):
        few = "It was killed" if task.kills else f"{runs.runs} of {ENOUGH} runs are known"
        parts.append(f"{few}: it is lowered {'half the way' if task.lowering else 'no further'}.")
    return " ".join(parts)


def _told(memory: Memory) -> str:
    request = "no request" if memory.request is None else f"request {readable(memory.request)}"
    return f"{request}, {'no limit' if memory.limit is None else f'limit {readable(memory.limit)}'}"


def _rank(size: Size) -> tuple[int, int, str, str]:
    """The worst first; of what only costs the largest saving over all its time."""
    return (_ORDER.index(size.reason), -size.saved * size.runs.looks, size.name.dag, size.name.task)


def _template(sizes: Iterable[Size]) -> Memory | None:
    found = [(size.after, size.runs.runs) for size in sizes]
    if sum(runs for _, runs in found) < ENOUGH:
        return None
    return Memory(
        _covering([(memory.request or 0, runs) for memory, runs in found]),
        _covering([(memory.limit or 0, runs) for memory, runs in found]),
    )


def _covering(found: list[tuple[int, int]]) -> int:
    """The least size that does for the share of all runs."""
    wanted, so_far = COVERED * sum(runs for _, runs in found), 0
    for size, runs in sorted(found):
        so_far += runs
        if so_far >= wanted:
            return size
    return 0
