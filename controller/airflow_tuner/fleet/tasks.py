"""Jobs, runs and tasks, and the ledger of their states: what Airflow keeps in its metadata database."""

import heapq
import random
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field

RUNS_KEPT = 2000
"""Runs that have ended and are still remembered."""

FINAL = ("success", "failed")


@dataclass(frozen=True, slots=True)
class Job:
    """One DAG with one mapped task of `count` instances."""

    dag: str
    count: int
    seconds: float
    mebibytes: float = 0.0
    """Anonymous memory of each task's own, beyond an empty one's."""
    memory_spread: float = 0.0
    """Largest relative distance of one task's memory from `mebibytes`; the same in all its tries."""
    seconds_spread: float = 0.0
    task: str = "task"
    queue: str = "default"
    pool: str = "default_pool"
    retries: int = 2
    retry_delay: float = 30.0
    cpu: float = 0.0
    """Share of its time that a task computes; the rest it waits for others."""
    reads: float = 0.0
    """MiB of files each task reads: page cache."""
    fails: float = 0.0
    """Chance that a try fails by itself."""
    operator: str = "_PythonDecoratedOperator"

    @property
    def kind(self) -> tuple[str, str, str]:
        """Queue, DAG and task."""
        return self.queue, self.dag, self.task


@dataclass(slots=True, eq=False)
class Run:
    """One run of a job."""

    id: str
    job: Job
    created: float
    tasks: list["Task"] = field(default_factory=list)
    unfinished: int = 0
    first_start: float | None = None

    @property
    def states(self) -> Counter[str]:
        """How many of its tasks are in which state."""
        return Counter(task.state for task in self.tasks)


@dataclass(slots=True, eq=False)
class Task:
    """One task instance."""

    run: Run
    index: int
    seconds: float
    mebibytes: float
    state: str = "scheduled"
    tries: int = 0
    """Tries that were started."""
    worker: str = ""
    """Whose slot it runs in."""
    scheduled_at: float = 0.0
    queued_at: float = 0.0
    started_at: float = 0.0

    @property
    def job(self) -> Job:
        """What it is an instance of."""
        return self.run.job


class Ledger:
    """All runs, the state of every task, and how many are in which."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.runs: OrderedDict[str, Run] = OrderedDict()
        self.active = 0
        self.by_kind: dict[str, Counter[tuple[str, str, str]]] = {}
        self.by_pool: dict[str, Counter[str]] = {}
        self.scheduled: dict[str, deque[Task]] = {}
        """Tasks ready to be handed out, of each pool, in order."""
        self._retries: list[tuple[float, int, Task]] = []
        self._ended: deque[str] = deque()
        self._count = 0

    def create(self, job: Job, now: float) -> Run:
        """Start a run: all its tasks are scheduled."""
        self._count += 1
        run = Run(f"{job.dag}-{self._count}", job, now, unfinished=job.count)
        self.runs[run.id] = run
        self.active += 1
        for index in range(job.count):
            seconds = job.seconds * self._around(job.seconds_spread)
            task = Task(run, index, seconds, job.mebibytes * self._around(job.memory_spread), state="")
            run.tasks.append(task)
            self.schedule(task, now)
        if not job.count:
            self._forget(run)
        return run

    def schedule(self, task: Task, now: float) -> None:
        """It may be handed out."""
        task.scheduled_at, task.worker = now, ""
        self.move(task, "scheduled")
        self.scheduled.setdefault(task.job.pool, deque()).append(task)

    def retry_or_fail(self, task: Task, now: float) -> None:
        """A try has failed."""
        task.worker = ""
        if task.tries <= task.job.retries:
            self.move(task, "up_for_retry")
            self._count += 1
            heapq.heappush(self._retries, (now + task.job.retry_delay, self._count, task))
        else:
            self.finish(task, "failed")

    def retry_due(self, now: float) -> None:
        """Schedule what has waited for its retry."""
        while self._retries and self._retries[0][0] <= now:
            self.schedule(heapq.heappop(self._retries)[2], now)

    def finish(self, task: Task, state: str) -> None:
        """It has ended for good."""
        self.move(task, state)
        task.worker = ""
        task.run.unfinished -= 1
        if not task.run.unfinished:
            self._forget(task.run)

    def move(self, task: Task, state: str) -> None:
        """Change its state, and the counts with it."""
        kind, pool = task.job.kind, self.by_pool.setdefault(task.job.pool, Counter())
        if task.state:
            self.by_kind[task.state][kind] -= 1
            pool[task.state] -= 1
        task.state = state
        self.by_kind.setdefault(state, Counter())[kind] += 1
        pool[state] += 1

    def _forget(self, run: Run) -> None:
        """Ended: after a while, nobody asks for it."""
        self.active -= 1
        self._ended.append(run.id)
        if len(self._ended) > RUNS_KEPT:
            del self.runs[self._ended.popleft()]

    def _around(self, spread: float) -> float:
        return self.rng.uniform(1 - spread, 1 + spread) if spread else 1.0
