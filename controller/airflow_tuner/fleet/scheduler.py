"""The scheduler: it hands tasks out as pools and parallelism allow, and sees late what became of them."""

from collections.abc import Mapping

from airflow_tuner.fleet.broker import Broker
from airflow_tuner.fleet.exporter import HEARTBEAT, Exporter
from airflow_tuner.fleet.laws import Laws
from airflow_tuner.fleet.tasks import Ledger, Task

POOLS_TOLD = 5.0
STATES_TOLD = 30.0


class Scheduler:
    """Airflow's loop over the tasks. Where several schedulers run, they act as one."""

    def __init__(self, laws: Laws, ledger: Ledger, broker: Broker, exporter: Exporter, parallelism: int) -> None:
        self.laws, self.parallelism = laws, parallelism
        self.pools = {"default_pool": 128}
        self.query_seconds = laws.query_seconds
        """Of its critical query: a slow database raises it."""
        self.locked_seconds = 0.0
        """That its critical section waits for a lock."""
        self.loop_cpu = laws.loop_cpu
        """CPU seconds of one loop."""
        self.took = laws.loop_cpu
        """Seconds of the last loop."""
        self.handed_out: dict[Task, None] = {}
        """What the executor takes to be with Celery."""
        self._ledger, self._broker, self._exporter = ledger, broker, exporter
        self.due = self._beat_at = self._pools_at = self._states_at = 0.0

    def run(self, now: float, speed: float) -> None:
        """A loop, where one is due; `speed` is that of the scheduler's CPU."""
        if now < self.due:
            return
        took = self.took = self.loop_cpu / speed + self._section
        self.due = max(self.due + self.laws.loop_interval + took, now)
        self._see(now)
        self._ledger.retry_due(now)
        self._hand_out(now)
        self._tell(now, took)

    @property
    def load(self) -> float:
        """Share of its time in which the loop would compute with all the CPU it wants."""
        return self.loop_cpu / (self.laws.loop_interval + self.loop_cpu + self._section)

    @property
    def _section(self) -> float:
        usual = self.laws.section_seconds - self.laws.query_seconds
        return usual + self.query_seconds + self.locked_seconds

    def recover(self, now: float) -> int:
        """Give stranded messages back to their queues by hand; how many."""
        found = self._broker.recovered()
        for task in found:
            if task.state == "running":
                task.tries -= 1
            task.worker, task.queued_at = "", now
            self._ledger.move(task, "queued")
            self._broker.send(task)
        return len(found)

    def _see(self, now: float) -> None:
        """What has ended, and what was lost with its worker."""
        for task in self._broker.returned(now):
            self.handed_out.pop(task, None)
            if task.state == "running":
                self._ledger.retry_or_fail(task, now)
                self._exporter.abandoned(task, now)
            else:
                self._ledger.schedule(task, now)
        for task in [task for task in self.handed_out if task.state not in {"queued", "running"}]:
            del self.handed_out[task]

    def _hand_out(self, now: float) -> None:
        """The critical section: the oldest scheduled tasks for which everything has room."""
        room = min(self.parallelism - len(self.handed_out), self.laws.tasks_per_query)
        executable = 0
        while executable < room:
            fit = [tasks for pool, tasks in self._ledger.scheduled.items() if tasks and self._open(pool) > 0]
            if not fit:
                break
            task = min(fit, key=lambda tasks: tasks[0].scheduled_at).popleft()
            task.queued_at = now
            self._ledger.move(task, "queued")
            self.handed_out[task] = None
            self._exporter.queued(task)
            self._broker.send(task)
            executable += 1
        starving = sum(len(tasks) for pool, tasks in self._ledger.scheduled.items() if self._open(pool) <= 0)
        self._exporter.critical(executable, starving)

    def _open(self, pool: str) -> int:
        states: Mapping[str, int] = self._ledger.by_pool.get(pool, {})
        return self.pools.get(pool, 0) - states.get("queued", 0) - states.get("running", 0)

    def _tell(self, now: float, took: float) -> None:
        self._exporter.loop(took, self._section, self.query_seconds)
        self._exporter.executor(len(self.handed_out), self.parallelism)
        if now >= self._beat_at:
            self._beat_at = now + HEARTBEAT
            self._exporter.beats("scheduler")
        if now >= self._pools_at:
            self._pools_at = now + POOLS_TOLD
            self._exporter.pools(self._ledger, self.pools)
        if now >= self._states_at:
            self._states_at = now + STATES_TOLD
            self._exporter.states(self._ledger)
