"""Causes that make a real Airflow slow, or kill it: how each is brought about, and which finding should name it."""

import json
import os
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from testbed import cgroups, demo, slow_files
from testbed.commands import CommandFailed
from testbed.real_airflow import RealAirflow
from testbed.telling import say

DAG, SMALL, TWO = "short_tasks", "short_tasks_small_pool", "short_tasks_two_at_once"
WAITS, FILES, TABLES = "long_waits", "large_files", "tables"
LIMIT = 1000
"""MiB of the usual worker's limit."""
MEBIBYTE = 2**20
FOUR = 4
"""A core.parallelism that one worker can use up."""
A_TASK = 40
"""MiB that a task takes which holds nothing, in a worker that has run some."""
LONG = frozenset({"GracePeriodTooShort"})
"""Follows from every task that lasts longer than the 30 s which this testbed's workers are given to end."""
TRIGGERS = 4
"""Capacity of the usual triggerer: half of what `long_waits` takes."""

# Airflow skips a file that names neither.
BROKEN = """\
# airflow, dag
import a_module_that_nobody_has
"""

TakesAway = Callable[[], None]


@dataclass(frozen=True)
class Cause:
    """Something that makes an Airflow slow, or kills it."""

    name: str
    wanted: str
    """The finding that names it: reason, and after a slash a word of its message; empty: nothing is to be found."""
    bring_about: Callable[[RealAirflow], TakesAway]
    """Brings it about, and returns what takes it away."""
    follows: frozenset[str] = frozenset()
    """Findings that truly follow from it, decided before any run: beside the right one they are no false ones."""
    within: float = 300.0
    """Seconds in which it should be found."""
    only: str = ""
    """The major version of Airflow that alone shows it; empty: both do."""

    @property
    def reason(self) -> str:
        """The reason of the finding that names it."""
        return self.wanted.partition("/")[0]

    def found(self, findings: list[dict[str, Any]]) -> bool:
        """Whether it was named."""
        reason, _, word = self.wanted.partition("/")
        return bool(reason) and any(item["reason"] == reason and word in item["message"] for item in findings)


def values(slots: int = demo.SLOTS, limit: int = LIMIT, **core: object) -> dict[str, Any]:
    """Values of the Airflow chart."""
    config = {"celery": {"worker_concurrency": slots}, "core": core, "triggerer": {"capacity": TRIGGERS}}
    return {**demo.values(limit), "config": {section: keys for section, keys in config.items() if keys}}


def local(parallelism: int) -> dict[str, Any]:
    """The same of an Airflow whose scheduler runs the tasks."""
    resources = {"requests": {"memory": "512Mi"}, "limits": {"memory": "1200Mi"}}
    plain = values(executor="LocalExecutor", parallelism=parallelism)
    return {**plain, "workers": {"celery": {"enableDefault": False}}, "scheduler": {"resources": resources}}


def few_slots(real: RealAirflow) -> TakesAway:
    """60 tasks of 10 s for two slots."""
    return _run(real, DAG, count=60, seconds=10)


def small_pool(real: RealAirflow) -> TakesAway:
    """20 tasks of 20 s in a pool of one slot."""
    real.airflow.set_pool("small", 1)
    return _run(real, SMALL, count=20, seconds=20)


def burning_tasks(real: RealAirflow) -> TakesAway:
    """Tasks that burn CPU in a worker that may use 0.3 cores."""
    resize(real, "worker", cpu="300m")
    end = _run(real, DAG, count=40, seconds=10, burn=True)

    def leave() -> None:
        end()
        resize(real, "worker", cpu="2")

    return leave


def broken_file(real: RealAirflow) -> TakesAway:
    """A DAG file that cannot be imported."""
    real.airflow.write_dag("broken.py", BROKEN)
    return (real.airflow.dags / "broken.py").unlink


def slow_parsing(real: RealAirflow) -> TakesAway:
    """40 DAG files with 0.3 s of CPU each."""
    slow_files.write(real.airflow, 40, 0.3)
    return lambda: slow_files.remove(real.airflow)


def starved_scheduler(real: RealAirflow) -> TakesAway:
    """A scheduler that may use 0.01 cores."""
    resize(real, "scheduler", cpu="10m")
    end = _run(real, DAG, count=30, seconds=1)

    def leave() -> None:
        resize(real, "scheduler", cpu="2")
        end()

    return leave


def stopped_scheduler(real: RealAirflow) -> TakesAway:
    """SIGSTOP to the scheduler."""
    pids = _processes(real, "scheduler")
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)

    def go_on() -> None:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)

    return go_on


def slow_database(real: RealAirflow) -> TakesAway:
    """A lock on the pools, held for 8 of every 10 s, while 200 tasks come: the critical section waits for it."""
    stop = threading.Event()

    def hold() -> None:
        while not stop.wait(2):
            sql = "begin; lock table slot_pool in access exclusive mode; select pg_sleep(8); commit;"
            try:
                real.services.postgresql.query(sql)
            except CommandFailed as error:
                say(f"  (the lock: {error})")

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    end = _run(real, DAG, count=200, seconds=1)

    def leave() -> None:
        stop.set()
        thread.join()
        end()

    return leave


def full_triggerer(real: RealAirflow) -> TakesAway:
    """Eight deferred tasks for a triggerer that takes four."""
    return _run(real, WAITS, seconds=900)


def tight_limit(real: RealAirflow) -> TakesAway:
    """A limit that does not carry both slots, before anybody has died of it."""
    resize(real, "worker", memory="540Mi")
    return lambda: resize(real, "worker", memory=f"{LIMIT}Mi")


def tight_scheduler(real: RealAirflow) -> TakesAway:
    """A limit that does not carry the tasks that the scheduler may run."""
    resize(real, "scheduler", memory="450Mi")
    return lambda: resize(real, "scheduler", memory="1200Mi")


def large_task(real: RealAirflow) -> TakesAway:
    """A task that takes the worker to nine tenths of its limit and more."""
    return in_a_worker_of_its_own(real, DAG, count=1, seconds=120, mebibytes=_up_to(0.95, real))


def cached_files(real: RealAirflow) -> TakesAway:
    """A task that reads a file again and again which just fits beside what the worker holds.

    One larger than the limit never becomes active page cache, as it is read from its beginning each time: with
    1500 MiB under 1000 the working set stayed where it was (measured).
    """
    return in_a_worker_of_its_own(real, FILES, mebibytes=_up_to(0.97, real))


def too_large_task(real: RealAirflow) -> TakesAway:
    """A task that loads more than the worker's limit."""
    return in_a_worker_of_its_own(real, demo.DAG, mebibytes=2000, hold_seconds=3)


def whole_table(real: RealAirflow) -> TakesAway:
    """A task that loads a table of 212 MiB with pandas, as a whole: some 1200 MiB, more than the worker's limit."""
    return in_a_worker_of_its_own(real, TABLES)


def table_in_chunks(real: RealAirflow) -> TakesAway:
    """The same table, 100 000 lines at a time: some 110 MiB."""
    return in_a_worker_of_its_own(real, TABLES, chunk=100_000)


def runaway(real: RealAirflow) -> TakesAway:
    """1000 tasks at once of a DAG that had 20 in ten minutes all the day before."""
    return _run(real, DAG, count=1000, seconds=0)


def usual_day(now: datetime) -> str:
    """30 hours in which the DAG's tasks ended at that pace, until `now`: in OpenMetrics."""
    first = now - timedelta(hours=30)
    samples = (
        f'airflow_task_duration_count{{dag_id="{DAG}",task_id="work"}} {2 * minute} {first.timestamp() + 60 * minute}'
        for minute in range(30 * 60)
    )
    return "\n".join([*samples, "# EOF\n"])


def killed_worker(real: RealAirflow) -> TakesAway:
    """SIGKILL to every process of a worker that all of core.parallelism was handed to, while more tasks come."""
    end = _run(real, DAG, count=80, seconds=30)
    real.airflow.wait_until(lambda: _running(real) >= FOUR, "the executor to be full", 90)
    for pid in _processes(real, "worker"):
        os.kill(pid, signal.SIGKILL)
    return end


def capped_dag(real: RealAirflow) -> TakesAway:
    """90 tasks of 10 s of a DAG that lets two run at once, for eight slots."""
    return _run(real, TWO, count=90, seconds=10)


def hog(real: RealAirflow) -> TakesAway:
    """A task that holds 600 MiB, where each slot has some 200."""
    return _run(real, DAG, count=1, seconds=100, mebibytes=600)


def typing_error(real: RealAirflow) -> TakesAway:
    """A triggerer whose capacity is no number, as by a slip in a values file."""
    names = ("AIRFLOW__TRIGGERER__CAPACITY", "AIRFLOW__TRIGGERER__DEFAULT_CAPACITY")

    def set_(*words: str) -> None:
        where = (f"{_kind(real, 'triggerer')}/airflow-triggerer", f"--namespace={real.airflow.namespace}")
        real.control_plane.kubectl("set", "env", *where, *words)

    set_(*(f"{name}=many" for name in names))

    def leave() -> None:
        set_(*(f"{name}-" for name in names))
        # A StatefulSet does not replace a pod that never got ready.
        real.control_plane.kubectl(
            "delete", "pod", f"--namespace={real.airflow.namespace}", "--selector=component=triggerer", "--wait=true"
        )
        real.airflow.wait_until(real.airflow.healthy, "the new triggerer", 120)

    return leave


def unfit_slots(real: RealAirflow) -> TakesAway:
    """80 tasks for the default 16 slots under a limit that holds five."""
    return in_a_worker_of_its_own(real, DAG, count=80, seconds=10)


USUAL = (
    Cause("60 tasks of 10 s on two slots", "QueueLagHigh/SlotsExhausted", few_slots),
    Cause("a pool of one slot", "QueueLagHigh/PoolExhausted", small_pool),
    Cause(
        "tasks that burn CPU, 0.3 cores",
        "QueueLagHigh/WorkersCpuBound",
        burning_tasks,
        LONG | {"CpuLimitThrottling"},
    ),
    Cause("a DAG file that cannot be imported", "ImportErrors", broken_file),
    Cause("40 slow DAG files", "DagParsingOverloaded", slow_parsing, frozenset({"ParseOffenders"})),
    Cause("the database locked 8 s of every 10", "DatabaseSlow", slow_database, frozenset({"QueueLagHigh"})),
    # Airflow 2 does not say how full its triggerers are.
    Cause("eight deferred tasks, four places", "TriggererSaturated", full_triggerer, only="3"),
    Cause("a limit that does not carry the slots", "ConcurrencyExceedsMemory", tight_limit),
    Cause("a task that takes 95 % of the limit", "MemoryHeadroomLow", large_task, LONG | {"ConcurrencyExceedsMemory"}),
    Cause("a file that fits, read again and again", "PageCacheNotDemand", cached_files),
    Cause("a task larger than the limit", "OutOfMemory", too_large_task, frozenset({"ConcurrencyExceedsMemory"})),
    Cause("a table read whole with pandas", "OutOfMemory", whole_table, frozenset({"ConcurrencyExceedsMemory"})),
    Cause("the same table in chunks", "", table_in_chunks, within=120),
    Cause(
        "a scheduler with 0.01 cores",
        "SchedulerUnderResourced",
        starved_scheduler,
        frozenset({"CpuLimitThrottling", "QueueLagHigh", "SchedulerDown", "AirflowMetricsMissing"}),
    ),
    Cause("the scheduler stopped (SIGSTOP)", "SchedulerDown", stopped_scheduler, frozenset({"AirflowMetricsMissing"})),
)
"""Those of an Airflow with two slots."""

CAPPED = (
    Cause(
        "60 tasks of 10 s, core.parallelism 4, eight slots",
        "QueueLagHigh/ParallelismCapped",
        few_slots,
    ),
)
ROOM = (
    Cause(
        "90 tasks of 10 s of a DAG that lets two run at once", "DagConcurrencyCapped", capped_dag, within=480, only="3"
    ),
    Cause("a task of three times a slot's memory", "TaskMemoryHog", hog, LONG, only="2"),
    Cause("a triggerer whose capacity is no number", "CrashLooping", typing_error),
)
"""Those of an Airflow with eight slots and the memory for them."""
DIED = (
    Cause(
        "a worker killed, all of core.parallelism handed to it",
        "StrandedTasks",
        killed_worker,
        frozenset({"QueueLagHigh"}),
    ),
)
UNFIT = (
    Cause(
        "80 tasks on 16 slots, memory for five",
        "OutOfMemory",
        unfit_slots,
        frozenset({"ConcurrencyExceedsMemory", "StrandedTasks", "QueueLagHigh", "MemoryHeadroomLow"}),
    ),
)

LOCAL = (
    Cause("60 tasks of 10 s, LocalExecutor of four", "QueueLagHigh/ParallelismCapped", few_slots),
    Cause(
        "a limit that does not carry the tasks, LocalExecutor",
        "ConcurrencyExceedsMemory",
        tight_scheduler,
        frozenset({"MemoryHeadroomLow"}),
    ),
)

RAN_AWAY = (
    Cause(
        "1000 tasks of a DAG that had 20 in ten minutes",
        "RunawayTasks",
        runaway,
        frozenset({"QueueLagHigh"}),
        within=900,
    ),
)


@dataclass(frozen=True)
class Rig:
    """An Airflow, and what is brought about there."""

    values: Mapping[str, Any]
    """Of the Airflow chart."""
    causes: tuple[Cause, ...]
    past: Callable[[datetime], str] | None = None
    """What its Prometheus remembers of the time before."""


RIGS: Mapping[str, Rig] = {
    "two slots": Rig(values(), USUAL),
    "eight slots": Rig(values(8, 2000), ROOM),
    "a day before": Rig(values(8, 2000), RAN_AWAY, usual_day),
    "parallelism 4, eight slots": Rig(values(8, 2000, parallelism=FOUR), CAPPED),
    "parallelism 4, four slots": Rig(values(FOUR, 1500, parallelism=FOUR), DIED),
    "16 slots, 900 MiB": Rig(values(16, 900), UNFIT),
    "LocalExecutor, parallelism 4": Rig(local(FOUR), LOCAL),
}


def resize(real: RealAirflow, component: str, **limits: str) -> None:
    """Give the running pod of a component these limits, in place."""
    (pod,) = (one for one in real.airflow.pods(component) if "deletionTimestamp" not in one["metadata"])
    container = {"name": pod["spec"]["containers"][0]["name"], "resources": {"limits": limits}}
    if "memory" in limits:
        container["resources"]["requests"] = {"memory": "256Mi"}
    patch = json.dumps({"spec": {"containers": [container]}})
    where = (pod["metadata"]["name"], f"--namespace={real.airflow.namespace}")
    real.control_plane.kubectl("patch", "pod", *where, "--subresource=resize", f"--patch={patch}")


def _run(real: RealAirflow, dag: str, **params: object) -> TakesAway:
    real.airflow.wait_for_dag(dag)
    run = real.airflow.trigger(dag, params)
    return lambda: real.airflow.end_run(dag, run)


def _up_to(share: float, real: RealAirflow) -> int:
    """MiB that take the worker to a share of its limit, beside what it holds itself."""
    (pod,) = real.airflow.pods("worker")
    series = f'container_memory_rss{{pod="{pod["metadata"]["name"]}",container="worker"}} > {100 * MEBIBYTE}'
    real.airflow.wait_until(lambda: bool(real.prometheus.query(series)), "the new worker's series", 60)
    (held,) = real.prometheus.query(series)
    return int(share * LIMIT - float(held["value"][1]) / MEBIBYTE - A_TASK)


def _kind(real: RealAirflow, component: str) -> str:
    """Kind of the workload of a component, as kubectl writes it."""
    where = (f"--namespace={real.airflow.namespace}", f"--selector=component={component}")
    name = real.control_plane.kubectl("get", "deployments,statefulsets", *where, "--output=name").split()[0]
    return name.partition(".")[0]


def _processes(real: RealAirflow, component: str) -> tuple[int, ...]:
    (pod,) = real.airflow.pods(component)
    return cgroups.processes(pod["status"]["containerStatuses"][0]["containerID"])


def _running(real: RealAirflow) -> int:
    rows = real.services.postgresql.query("select count(*) from task_instance where state = 'running'")
    return int(rows[0][0])


def in_a_worker_of_its_own(real: RealAirflow, dag: str, **params: object) -> TakesAway:
    """A run of this DAG; what takes it away replaces the worker as well.

    What a worker has held counts for a day, its kill for an hour: the next cause gets a new one.
    """
    end = _run(real, dag, **params)

    def leave() -> None:
        end()
        real.control_plane.kubectl(
            "delete", "pod", f"--namespace={real.airflow.namespace}", "--selector=component=worker", "--wait=true"
        )
        real.airflow.wait_until(real.airflow.healthy, "the new worker", 120)

    return leave
