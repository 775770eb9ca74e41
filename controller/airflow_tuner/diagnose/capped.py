"""A DAG that its own limit holds back, while there is room for its tasks everywhere else. Airflow 3 alone shows it.

A task that is scheduled waits for one of five: its DAG's limit, its pool, core.parallelism, a slow scheduler, or a DAG
that is paused. No series names the limit, so all the others must be ruled out.
"""

from collections.abc import Iterator

from airflow_tuner import lag, runaway, workgroup
from airflow_tuner.diagnose.case import Case
from airflow_tuner.diagnose.waiting import stranded_tasks
from airflow_tuner.model import Finding, Severity
from airflow_tuner.sentence import counted, short
from airflow_tuner.singles import Held
from airflow_tuner.telemetry import Tasks

EVEN = 0.75
"""Least that runs or is queued, as a share of the most, for a limit to be what it stays at: Airflow fills the place of
a task that ends at its scheduler's next loop, and may be looked at in between."""

LOOP_QUICK = 1.0
"""Seconds of the scheduler's mean loop up to which it is not what holds tasks back (measured: 0.03 to 0.8 s)."""

FREE = 0.1
"""Least share of the workers' slots that must be free: with fewer, more tasks of this DAG would wait for workers."""

SPAN = 300.0
"""Seconds that the signals are over."""


def dag_concurrency_capped(case: Case) -> Iterator[Finding]:
    """Tasks of a DAG stay scheduled although pool, executor, workers and scheduler could take them."""
    tasks = case.seen.airflow.tasks
    if tasks is None or not tasks.held or not _room(case, tasks):
        return
    wild = runaway.found(tasks)
    for held in tasks.held:
        wait = held.scheduled * SPAN / held.ended if held.ended else None
        if wait is None or not _capped(held) or (wild is not None and wild.dag == held.dag):
            continue
        if wait > case.spec.objectives.queue_lag_seconds:
            at_once = f"{held.most}" if held.least == held.most else f"{held.least} to {held.most}"
            yield Finding(
                "DagConcurrencyCapped",
                Severity.INFO,
                f"dag/{short(held.dag)}",
                f"At least {counted(held.scheduled, 'task', 'tasks')} of the DAG {short(held.dag)} could have run at "
                f"any time within five minutes, and waited about {wait:.0f} s each: {at_once} of them ran or were "
                f"queued at once, and {held.ended} ended. Pools, core.parallelism ({tasks.open_least} left), workers "
                "and scheduler had room, so a limit of the DAG's own holds them back: most likely max_active_tasks (16 "
                "by default, for each run), or max_active_tis_per_dag of a task. More slots would not help. Not meant: "
                "raise it in the DAG, or config.core.max_active_tasks_per_dag of the Airflow chart for all.",
                case.seen.at,
            )


def _capped(held: Held) -> bool:
    """What ends is replaced at once, and never by more: a DAG that is paused would run out of tasks."""
    return held.least >= EVEN * held.most > 0 and held.ended >= 2 + held.most - held.least


def _room(case: Case, tasks: Tasks) -> bool:
    """Nothing but a DAG's own limit holds tasks back, as far as can be known; what is not known counts as no room."""
    schedulers = case.seen.of("scheduler")
    pools = [pool for pool in tasks.pools if pool.scheduled]
    unbounded = {pool.name for pool in pools if pool.open is None}
    return (
        bool(pools)
        and all(pool.name in unbounded or (pool.open_least or 0) > 0 for pool in pools)
        and tasks.starving == 0
        and (tasks.open_least or 0) > 0
        and case.seen.airflow.loop is not None
        and case.seen.airflow.loop <= LOOP_QUICK
        and lag.database_wait(tasks, schedulers) is None
        and lag.scheduler_short(schedulers) is None
        and _workers_free(case, tasks)
        and not any(True for _ in stranded_tasks(case))
    )


def _workers_free(case: Case, tasks: Tasks) -> bool:
    """Every group of workers has free slots, and more than wait for them. Without workers nothing waits."""
    workers = case.seen.of("worker")
    if not workers:
        # Each task has its own pod, or a slot of the scheduler's, and LocalExecutor says that all of those are open.
        return tasks.waiting_least == 0
    for workload in workers:
        pods = [pod for pod in workload.living if pod.running is not None]
        slots = [workgroup.in_force(pod, workload) for pod in pods]
        mine = None if len(workers) == 1 else lag.queues(workload, pods)
        total = sum(number or 0 for number in slots)
        free = total - tasks.running_in(mine)
        if not slots or None in slots or free < max(1, FREE * total) or free <= tasks.waiting_in(mine):
            return False
    return True
