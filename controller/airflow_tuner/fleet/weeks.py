"""A coarse model of an Airflow deployment for weeks: tasks from event to event, everything else by the minute.

It has the memory law of the fine model (`deployment`), its two kinds of kill, stranded tasks and retries. What it
leaves out: CPU limits, several queues, and what a worker has prefetched, but for what is stranded with it. Memory is in
MiB.
"""

import heapq
import math
import random
from collections import deque
from collections.abc import Iterable

from airflow_tuner.fleet.laws import Laws
from airflow_tuner.fleet.loads import DAY, MINUTE, Arrival, Arrivals
from airflow_tuner.fleet.scenarios import Scenario
from airflow_tuner.fleet.tally import Parser, Tally
from airflow_tuner.fleet.weekworker import Task, Worker

RETRY = 300.0
"""Seconds between a try that failed and the next, Airflow's default."""

GRACE = 600.0
"""Seconds that a worker is given to end, as the official chart does."""

BORN = 60.0
"""Seconds from the order for a pod until its container begins to start."""

SEEN = 2.0
"""Scrapes in a minute."""

SLOWED = 1.5
"""Times that a task takes longer while the database is slow: it tells its state there."""

_BACKOFF = (0.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0)
"""Seconds that the kubelet waits before it starts a container that died in a row again."""

_CALM = 600.0
"""Seconds after which it forgets that."""

_ARRIVES, _HANDED_OUT, _READY, _ENDS, _RETURNS, _STARTS, _DRAINED = range(7)

Event = tuple[float, int, int, Arrival | Task | Worker]

CRITICAL = 0.012
"""Seconds of the scheduler's critical query and section, before anything slows them (measured: 3 and 6 ms; what else
a loop does is in it)."""


class Weeks:
    """A deployment that goes on by the minute. The same scenario, seed and orders give the same everything.

    `limit` and `request` are those of each worker at the beginning (infinity: none). `whole`: the kernel kills whole
    containers; else the largest process. `laws` are drawn from the seed where none are given.
    """

    def __init__(
        self,
        scenario: Scenario,
        seed: int,
        limit: float = math.inf,
        request: float = math.inf,
        *,
        objective: float = 60.0,
        whole: bool = True,
        laws: Laws | None = None,
    ) -> None:
        self.scenario, self.objective, self.whole = scenario, objective, whole
        self.laws = laws or Laws.drawn(seed, "3")
        self.minute = 0
        self.tally = Tally()
        self.parser = Parser(scenario.interval, scenario.processes)
        self.stranded = 0
        """Tasks that were lost with a worker, and are taken to be running."""
        self.scheduled = 0
        """Tasks that could run and are not handed out yet."""
        self.queue: deque[Task] = deque()
        """Tasks that are handed out and wait for a slot."""
        self.workers: list[Worker] = []
        self.running = self.most_busy = 0
        """Tasks that run, and most of them at once in the last minute."""
        self.wait = 0.0
        """Seconds of the longest wait in the last minute: of a task that began, or still waits."""
        self._born = (limit, request, scenario.slots)
        self._arrivals = Arrivals(scenario.loads, seed, scenario.begin, scenario.growth)
        self._rng = random.Random(seed + 1)  # noqa: S311 - a model, not a secret
        # Of its own: who looks changes nothing.
        self._looks = random.Random(seed + 2)  # noqa: S311 - a model, not a secret
        self._events: list[Event] = []
        self._count = self._turn = 0
        self._handed_out = 0.0
        for _ in range(scenario.workers):
            self._join().born(0.0)
        self.free = sum(worker.free for worker in self.workers)
        """Free slots in all workers."""

    # What it is like.

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return self.minute * MINUTE

    @property
    def day(self) -> float:
        """Days since the beginning."""
        return self.now / DAY

    @property
    def living(self) -> list[Worker]:
        """The workers that are not scaled away."""
        return [worker for worker in self.workers if not worker.gone]

    @property
    def files(self) -> tuple[int, float]:
        """DAG files, and the seconds that each takes to parse."""
        return next((count, seconds) for day, count, seconds in reversed(self.scenario.files) if self.day >= day)

    def in_use(self, worker: Worker) -> float:
        """Most anonymous memory that a minute with a probe comes to."""
        return max(worker.high, worker.held + self.laws.probe) + worker.leaked if worker.up else 0.0

    def probe_seen(self) -> bool:
        """Whether the scrapes of this minute catch a probe: it runs for some seconds of it."""
        return self._looks.random() < SEEN * self.laws.probe_seconds / MINUTE

    # Orders.

    def resize(self, worker: Worker, limit: float, request: float) -> None:
        """Memory in place. A limit below what is in use waits until it fits, as the kubelet has it."""
        worker.request, worker.wanted = request, None
        if limit >= worker.limit:
            worker.limit = limit
        else:
            worker.wanted = limit
            self._lower(worker)

    def set_slots(self, worker: Worker, slots: int) -> None:
        """Slots while it runs, and of its next container."""
        free = worker.free
        worker.set_slots(slots)
        self.free += worker.free - free
        if worker.up and worker.anonymous > worker.limit:
            self._overrun(worker, self.now)
        self._fill(self.now)

    def set_parsing(self, interval: float, processes: int) -> None:
        """The dag-processor is started anew with other options."""
        self.parser = Parser(interval, processes, self.now + BORN)
        self.tally.restarts += 1

    def restart(self, worker: Worker, limit: float, request: float) -> None:
        """Drain a worker; its next container has this memory."""
        worker.reborn_with, worker.request = limit, request
        self._drain(worker)

    def scale(self, count: int) -> None:
        """So many workers: new ones begin, those with the highest numbers are drained."""
        while len(self.workers) < count:
            self._join()
            self._push(self.now + BORN + self.laws.start_seconds, _STARTS, self.workers[-1])
        for worker in self.workers[:count]:
            if worker.gone and not worker.up:
                worker.gone = False
                self._push(self.now + BORN + self.laws.start_seconds, _STARTS, worker)
        for worker in self.workers[count:]:
            if not worker.gone:
                worker.gone = True
                self._drain(worker)

    # Time.

    def step(self) -> None:
        """A minute passes."""
        for arrival in self._arrivals.of(self.minute):
            self._push(arrival.at, _ARRIVES, arrival)
        ends = self.now + MINUTE
        self.wait, self.tally.longest, self.most_busy = 0.0, 0.0, self.running
        for worker in self.workers:
            worker.high = worker.held
        events = self._events
        while events and events[0][0] < ends:
            at, number, kind, subject = heapq.heappop(events)
            self._happen(at, number, kind, subject)
        self.minute += 1
        leak, cache = self.scenario.leak / 60, self.laws.cache_growth / 60
        for worker in self.workers:
            if worker.up:
                worker.leaked += leak
                worker.cache += cache
                self._by_the_minute(worker, ends)
        if self.queue:
            self.wait = max(self.wait, ends - self.queue[0].scheduled_at)

    def _by_the_minute(self, worker: Worker, at: float) -> None:
        """The probe has run, the page cache has taken what was free, and a limit that waited may fit."""
        if max(worker.held + self.laws.probe, worker.high) + worker.leaked > worker.limit:
            self._overrun(worker, at, self.laws.probe)
            if not worker.up:
                return
        used = max(worker.high, worker.held + self.laws.probe) + worker.leaked
        worker.peak = max(worker.peak, min(worker.limit, used + worker.cache))
        worker.cache = min(worker.cache, max(0.0, worker.limit - worker.anonymous))
        if worker.wanted is not None:
            self._lower(worker)

    def _happen(self, at: float, number: int, kind: int, subject: Arrival | Task | Worker) -> None:
        if isinstance(subject, Arrival):
            self._schedule(Task(subject.load, subject.seconds, subject.mebibytes, at), at)
        elif isinstance(subject, Task):
            if kind in {_HANDED_OUT, _READY}:
                self.scheduled -= kind == _HANDED_OUT
                self.queue.append(subject)
                self._fill(at)
            elif kind == _RETURNS:
                self.stranded -= 1
                self._again(subject, at)
            elif subject.number == number:
                self._end(subject, at)
        elif kind == _STARTS:
            self._start(subject, at)
        elif subject.stopping and subject.up:
            self._drained(subject, at)

    # Tasks.

    def _schedule(self, task: Task, at: float) -> None:
        """The scheduler hands it out when it comes to it."""
        slow = self._slow(at)
        each = (self.laws.loop_interval + CRITICAL * slow) / self.laws.tasks_per_query
        self._handed_out = max(self._handed_out + each, at + self.laws.loop_interval / 2)
        self.scheduled += 1
        self._push(self._handed_out, _HANDED_OUT, task)

    def _fill(self, at: float) -> None:
        """Tasks begin where a slot is free: one worker after the other takes one."""
        queue, workers = self.queue, self.workers
        while queue and self.free > 0:
            self._turn = (self._turn + 1) % len(workers)
            worker = workers[self._turn]
            if worker.free > 0:
                self._begin(queue.popleft(), worker, at)

    def _begin(self, task: Task, worker: Worker, at: float) -> None:
        wait = at - task.scheduled_at
        self.wait = max(self.wait, wait)
        if not task.tries:
            self.tally.tasks += 1
            self.tally.late += wait > self.objective
        task.tries, task.started_at = task.tries + 1, at
        self.tally.started += 1
        self.free -= 1
        worker.take(task)
        self.running += 1
        self.most_busy = max(self.most_busy, self.running)
        stretched = task.seconds * self._stretch(at) + self.laws.overhead
        task.number = self._push(at + stretched, _ENDS, task)
        if worker.anonymous > worker.limit:
            self._overrun(worker, at)

    def _end(self, task: Task, at: float) -> None:
        seconds = at - task.started_at
        self.tally.ended += 1
        self.tally.ended_seconds += seconds
        self.tally.longest = max(self.tally.longest, seconds)
        self.tally.by_dag[task.load.dag] = self.tally.by_dag.get(task.load.dag, 0) + 1
        self._release(task, at)
        self._fill(at)

    def _release(self, task: Task, at: float) -> None:
        worker = task.worker
        if worker is None:
            return
        free = worker.free
        worker.release(task)
        self.running -= 1
        task.number = 0
        self.free += worker.free - free
        if worker.stopping and not worker.tasks:
            self._drained(worker, at)

    def _again(self, task: Task, at: float) -> None:
        """A try was lost: another, or it is given up."""
        if task.tries > task.load.retries:
            self.tally.failed_tasks += 1
        else:
            task.scheduled_at = at + RETRY
            self._push(task.scheduled_at, _READY, task)

    # Workers.

    def _join(self) -> Worker:
        limit, request, slots = self._born
        self.workers.append(Worker(len(self.workers), self.laws, slots, limit, request))
        return self.workers[-1]

    def _start(self, worker: Worker, at: float) -> None:
        if worker.up or worker.gone:
            return
        if worker.reborn_with is not None:
            worker.limit, worker.reborn_with = worker.reborn_with, None
        worker.wanted = None
        worker.born(at)
        self.free += worker.free
        self._fill(at)

    def _overrun(self, worker: Worker, at: float, probe: float = 0.0) -> None:
        """More is held than the limit allows: the kernel kills."""
        resting = worker.held + worker.leaked - sum(task.mebibytes for task in worker.tasks)
        if self.whole or resting > worker.limit:
            self._die(worker, at)
            return
        while worker.anonymous + probe > worker.limit:
            largest = max(worker.tasks, key=lambda task: task.mebibytes, default=None)
            self.tally.process_kills += 1
            worker.process_kills += 1
            if largest is None or largest.mebibytes < probe:
                return
            self.tally.failed_tries += 1
            self._release(largest, at)
            self._again(largest, at)

    def _die(self, worker: Worker, at: float) -> None:
        """The container is gone. Its tasks are lost, and messages that it has taken are stranded for some time."""
        self.tally.container_kills += 1
        self.free -= worker.free
        soon = at - worker.died_at < _CALM
        worker.deaths, worker.died_at = worker.deaths + 1, at
        worker.in_a_row = worker.in_a_row + 1 if soon else 0
        lost = worker.lost()
        self.tally.failed_tries += len(lost)
        self._strand(lost, at)
        taken = [self.queue.popleft() for _ in range(min(worker.slots, len(self.queue)))]
        for task in taken:
            self._push(at + self._unseen(), _READY, task)
        wait = _BACKOFF[min(worker.in_a_row, len(_BACKOFF) - 1)]
        self._push(at + wait + self.laws.start_seconds, _STARTS, worker)

    def _drain(self, worker: Worker) -> None:
        """SIGTERM: it takes nothing more, and ends when it is idle, or when its grace is over."""
        self.tally.restarts += 1
        if not worker.up or worker.stopping:
            return
        self.free -= worker.free
        worker.stopping = True
        if worker.tasks:
            self._push(self.now + GRACE, _DRAINED, worker)
        else:
            self._drained(worker, self.now)

    def _drained(self, worker: Worker, at: float) -> None:
        lost = worker.lost()
        self.tally.failed_tries += len(lost)
        self.tally.drained_tries += len(lost)
        self._strand(lost, at)
        if not worker.gone:
            self._push(at + BORN + self.laws.start_seconds, _STARTS, worker)

    def _strand(self, tasks: Iterable[Task], at: float) -> None:
        """It takes Airflow some time to see that they are lost."""
        for task in tasks:
            task.number, task.worker = 0, None
            self.running -= 1
            self.stranded += 1
            self._push(at + self._unseen(), _RETURNS, task)

    def _unseen(self) -> float:
        return self._rng.uniform(self.laws.stranded_first, self.laws.stranded_last)

    def _lower(self, worker: Worker) -> None:
        if worker.wanted is not None and self.in_use(worker) <= worker.wanted:
            worker.limit, worker.wanted = worker.wanted, None

    # The world around.

    def slow(self) -> float:
        """By how much the database is slowed down; 1: as usual."""
        return self._slow(self.now)

    def _slow(self, at: float) -> float:
        return next((span.factor for span in self.scenario.database if span.holds(at / DAY)), 1.0)

    def _stretch(self, at: float) -> float:
        """By how much tasks take longer: for a slow database somewhat, for a noisy neighbour as it takes the CPU."""
        noise = next((span.factor for span in self.scenario.neighbours if span.holds(at / DAY)), 1.0)
        return noise * (1.0 if self._slow(at) == 1.0 else SLOWED)

    def _push(self, at: float, kind: int, subject: Arrival | Task | Worker) -> int:
        self._count += 1
        heapq.heappush(self._events, (at, self._count, kind, subject))
        return self._count
