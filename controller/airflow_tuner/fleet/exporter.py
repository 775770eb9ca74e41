"""What Airflow tells its statsd exporter, under the names of the official chart's mapping, true and untrue.

Known untruths: on Airflow 3 the executor's gauges come twice, and parse times are a thousandth; on Airflow 2 queue
times are, and there are no states of tasks. Series with a label have an unlabelled twin in which the last one wins.
"""

import re
from collections.abc import Mapping

from airflow_tuner.fleet.statsd import Sample, Statsd, Wanted
from airflow_tuner.fleet.tasks import Ledger, Task

COUNTER = ("type", "counter")
STATES = ("scheduled", "queued", "running", "deferred")
CAPACITY = 1000
"""Triggers of a triggerer."""

BUNDLE = "dags_folder_"
HEARTBEAT = 5.0


class Exporter:
    """Airflow's series."""

    def __init__(self, line: str) -> None:
        self.three = line == "3"
        self.now = 0.0
        self._statsd = Statsd()
        self._told: dict[str, tuple[object, ...]] = {}
        """What was told last of what is told in each loop."""

    def samples(self, wanted: Wanted | None = None) -> list[Sample]:
        """All series as they stand, or those with a name that is wanted."""
        return self._statsd.samples(self.now, wanted)

    def forget(self) -> None:
        """It begins again."""
        self._statsd = Statsd()
        self._told.clear()

    # Tasks.

    def queued(self, task: Task) -> None:
        """A task is handed out."""
        if self.three:
            waited = self.now - task.scheduled_at
            self._time("task_scheduled_duration", waited)
            self._time(f"dag_{_plain(task.job.dag)}_{_plain(task.job.task)}_scheduled_duration", waited)

    def started(self, task: Task, at: float) -> None:
        """A task starts in a worker."""
        dag, name, run = _plain(task.job.dag), _plain(task.job.task), task.run
        self._count("ti_start")
        self._count(f"ti_start_{dag}_{name}")
        if not self.three:
            waited = (at - task.queued_at) / 1000
            self._time("task_queued_duration", waited)
            self._time(f"dag_{dag}_{name}_queued_duration", waited)
        if run.first_start is None:
            run.first_start = at
            self._time("dagrun_first_task_scheduling_delay", task.queued_at - run.created)
            self._time(f"dagrun_{dag}_first_task_scheduling_delay", task.queued_at - run.created)
            if self.three:
                self._time("dagrun_first_task_start_delay", at - run.created)

    def ended(self, task: Task, at: float) -> None:
        """A try of a task has ended; its state says how."""
        job = task.job
        good = task.state == "success"
        self._count("ti_finish")
        self._count(f"ti_finish_{_plain(job.dag)}_{_plain(job.task)}_{task.state}")
        self._count("ti_successes" if good else "ti_failures")
        outcome = "operator_successes" if good else "operator_failures"
        self._count(outcome)
        self._count(outcome, 1, ("operator", job.operator))
        self._time("task_duration", at - task.started_at)
        self._time("task_duration", at - task.started_at, ("dag_id", job.dag), ("task_id", job.task))
        self._run_ended(task, at)

    def abandoned(self, task: Task, at: float) -> None:
        """The scheduler gives up a task whose worker is gone."""
        self._count("ti_failures")
        if self.three:
            self._count("task_instances_without_heartbeats_killed")
        self._run_ended(task, at)

    def created(self, dag: str, count: int) -> None:
        """A run begins."""
        self._count("task_instance_created", count)
        self._time("dagrun_schedule_delay", 0.0)
        self._time("dagrun_schedule_delay", 0.0, ("dag_id", dag))

    def _run_ended(self, task: Task, at: float) -> None:
        run = task.run
        if run.unfinished:
            return
        failed, took = run.states["failed"] > 0, at - run.created
        if failed:
            self._time("dagrun_failed", took, ("dag_id", run.job.dag))
        else:
            self._time("dagrun_duration", took, ("dag_id", run.job.dag))
        self._time(f"dagrun_duration_{'failed' if failed else 'success'}", took)

    # The scheduler, in each loop or less often.

    def beats(self, name: str, seconds: float = HEARTBEAT) -> None:
        """Heartbeats of a component over so many seconds."""
        if name == "triggerer":
            self._count("triggerer_heartbeat", seconds / HEARTBEAT)
        elif name == "scheduler" or self.three:
            self._count(f"{name}_heartbeat", seconds / HEARTBEAT, COUNTER)

    def loop(self, took: float, section: float, query: float) -> None:
        """Seconds of one loop of the scheduler, of its critical section, and of the query in that."""
        self._time("scheduler_scheduler_loop_duration", took)
        self._time("scheduler_critical_section_duration", section)
        self._time("scheduler_critical_section_query_duration", query)

    def executor(self, handed_out: int, parallelism: int) -> None:
        """Tasks that are with Celery: waiting there, running, or lost."""
        if not self._news("executor", handed_out, parallelism):
            return
        values = {"open_slots": parallelism - handed_out, "queued_tasks": 0, "running_tasks": handed_out}
        for name, value in values.items():
            self._gauge(f"executor_{name}", value)
            if self.three:
                self._gauge(f"executor_{name}", value, ("executor", "CeleryExecutor"))

    def critical(self, executable: int, starving: int) -> None:
        """Tasks handed out in one loop, and those for which a pool had no slot."""
        if not self._news("critical", executable, starving):
            return
        self._gauge("scheduler_tasks_executable", executable)
        self._gauge("scheduler_tasks_starving", starving)

    def pools(self, ledger: Ledger, sizes: Mapping[str, int]) -> None:
        """The pools' slots."""
        for pool, size in sizes.items():
            states: Mapping[str, int] = ledger.by_pool.get(pool, {})
            counts = {state: states.get(state, 0) for state in STATES}
            if not self._news(f"pool {pool}", size, *counts.values()):
                continue
            free = size - counts["running"] - counts["queued"]
            starving = counts["scheduled"] if free <= 0 else 0
            for name, value in (("open_slots", free), ("starving_tasks", starving)):
                self._gauge(f"pool_{name}", value)
                self._gauge(f"pool_{name}", value, ("pool", pool))
            for state, value in counts.items():
                self._gauge(f"pool_{state}_slots", value)
                self._gauge(f"pool_{state}_slots_{_plain(pool)}", value)

    def states(self, ledger: Ledger) -> None:
        """The states of tasks: on Airflow 3 only. An emptied one is told as zero."""
        if not self.three:
            return
        self._gauge("scheduler_dagruns_running", ledger.active)
        for state in STATES:
            for (queue, dag, task), number in ledger.by_kind.get(state, {}).items():
                self._gauge(f"ti_{state}", number)
                self._gauge(f"ti_{state}", number, ("queue", queue), ("dag_id", dag), ("task_id", task))

    def triggerer(self, host: str, triggers: int) -> None:
        """A triggerer, and how many triggers run in it."""
        self.beats("triggerer")
        names = {
            "triggers_running": triggers,
            **({"triggerer_capacity_left": CAPACITY - triggers} if self.three else {}),
        }
        for name, value in names.items():
            self._gauge(name, value)
            self._gauge(f"{name}_{_plain(host)}", value)

    # The dag-processor.

    def parsed(self, name: str, seconds: float) -> None:
        """A file was parsed."""
        told = seconds / 1000 if self.three else seconds
        self._count("dag_processing_processes")
        self._time("dag_processing_last_duration", told)
        self._time(f"dag_processing_last_duration_{BUNDLE if self.three else ''}{_plain(name)}", told)

    def parsed_ago(self, name: str, seconds: float) -> None:
        """How long ago a file was parsed. Nobody takes the gauge back when the file goes."""
        if self.three:
            self._gauge("dag_processing_last_run_seconds_ago", seconds)
        self._gauge("dag_processing_last_run_seconds_ago", seconds, ("dag_file", name))

    def parse_queue(self, size: int) -> None:
        """Files that are due."""
        if self._news("parse queue", size):
            self._gauge("dag_processing_file_path_queue_size", size)

    def parse_time(self, seconds: float) -> None:
        """Seconds of the last round."""
        self._gauge("dag_processing_total_parse_time", seconds)

    def dag_bag(self, size: int) -> None:
        """DAGs, one in each file."""
        self._gauge("dagbag_size", size)

    def import_errors(self, number: int) -> None:
        """Files that could not be imported."""
        self._gauge("dag_processing_import_errors", number)

    def _news(self, what: str, *values: object) -> bool:
        """Whether these are others than those told last: a gauge that stays need not be set again."""
        if self._told.get(what) == values:
            return False
        self._told[what] = values
        return True

    def _gauge(self, name: str, value: float, *labels: tuple[str, str]) -> None:
        self._statsd.gauge(f"airflow_{name}", float(value), *labels)

    def _count(self, name: str, number: float = 1, *labels: tuple[str, str]) -> None:
        self._statsd.count(f"airflow_{name}", number, *labels)

    def _time(self, name: str, seconds: float, *labels: tuple[str, str]) -> None:
        self._statsd.time(f"airflow_{name}", seconds, self.now, *labels)


def _plain(name: str) -> str:
    """As it stands in the name of a series."""
    return re.sub(r"[^A-Za-z0-9_]", "_", name)
