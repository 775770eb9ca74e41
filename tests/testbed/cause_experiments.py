"""What `make prove` measures about findings: each cause is brought about in a real Airflow, and what is found noted."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from testbed import cgroups, demo, operator_process, slow_files
from testbed.airflow_lines import AIRFLOW_3
from testbed.commands import CommandFailed
from testbed.operator_process import MAY_READ_BROKER, Operator
from testbed.real_airflow import RealAirflow, real_airflow
from testbed.slot_experiments import LINES, PARSING, apply_policy, settle
from testbed.telling import say

DAG, SMALL = "short_tasks", "short_tasks_small_pool"
POLL = 1.0
APPEARS, ENDS = 300.0, 120.0
"""Seconds that a finding is waited for, and that all are given to end."""
HEALTHY_SECONDS = 150.0

# Airflow skips a file that names neither.
BROKEN = """\
# airflow, dag
import a_module_that_nobody_has
"""


@dataclass(frozen=True)
class Cause:
    """Something that makes an Airflow slow, or kills it."""

    name: str
    wanted: str
    """The finding that names it: reason, and after a slash a word of its message."""
    bring_about: Callable[[RealAirflow], Callable[[], None]]
    """Brings it about, and returns what takes it away."""

    def found(self, findings: list[dict[str, Any]]) -> bool:
        """Whether it was named."""
        reason, _, word = self.wanted.partition("/")
        return any(item["reason"] == reason and word in item["message"] for item in findings)


def few_slots(real: RealAirflow) -> Callable[[], None]:
    """60 tasks of 10 s for two slots."""
    run = real.airflow.trigger(DAG, {"count": 60, "seconds": 10})
    return lambda: real.airflow.end_run(DAG, run)


def small_pool(real: RealAirflow) -> Callable[[], None]:
    """20 tasks of 20 s in a pool of one slot."""
    real.airflow.set_pool("small", 1)
    run = real.airflow.trigger(SMALL, {"count": 20, "seconds": 20})
    return lambda: real.airflow.end_run(SMALL, run)


def broken_file(real: RealAirflow) -> Callable[[], None]:
    """A DAG file that cannot be imported."""
    real.airflow.write_dag("broken.py", BROKEN)
    return (real.airflow.dags / "broken.py").unlink


def slow_parsing(real: RealAirflow) -> Callable[[], None]:
    """40 DAG files with 0.3 s of CPU each."""
    slow_files.write(real.airflow, 40, 0.3)
    return lambda: slow_files.remove(real.airflow)


def stopped_scheduler(real: RealAirflow) -> Callable[[], None]:
    """SIGSTOP to the scheduler."""
    (pod,) = real.airflow.pods("scheduler")
    pids = cgroups.processes(pod["status"]["containerStatuses"][0]["containerID"])
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)

    def go_on() -> None:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)

    return go_on


def slow_database(real: RealAirflow) -> Callable[[], None]:
    """A lock on the pools, held for 8 of every 10 s: the scheduler's critical section waits for it."""
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
    run = real.airflow.trigger(DAG, {"count": 200, "seconds": 1})

    def leave() -> None:
        stop.set()
        thread.join()
        real.airflow.end_run(DAG, run)

    return leave


def big_task(real: RealAirflow) -> Callable[[], None]:
    """A task that loads more than the worker's limit."""
    real.airflow.wait_for_dag(demo.DAG)
    run = real.airflow.trigger(demo.DAG, {"mebibytes": 2000, "hold_seconds": 3})
    return lambda: real.airflow.end_run(demo.DAG, run)


CAUSES = (
    Cause("60 tasks of 10 s on two slots", "QueueLagHigh/SlotsExhausted", few_slots),
    Cause("a pool of one slot", "QueueLagHigh/PoolExhausted", small_pool),
    Cause("a DAG file that cannot be imported", "ImportErrors", broken_file),
    Cause("40 slow DAG files", "DagParsingOverloaded", slow_parsing),
    Cause("the scheduler stopped (SIGSTOP)", "SchedulerDown", stopped_scheduler),
    Cause("the database locked 8 s of every 10", "DatabaseSlow", slow_database),
    Cause("a task larger than the limit", "OutOfMemory", big_task),
)


def causes() -> str:
    """Causes brought about in a real Airflow, one after another, and what was found: the right one, and what else."""
    rows: list[str] = []
    for line in LINES:
        with _looked_at(line) as real:
            rows.append(_healthy(real, line.version))
            chosen = os.environ.get("CAUSES", "").split(",")
            for cause in CAUSES:
                if any(word in cause.wanted for word in chosen):
                    rows.append(_row(real, line.version, cause))
                    say(rows[-1])
    head = "| Airflow | cause | right finding after (s) | also found meanwhile | over after (s) |"
    return (
        "The operator only looks (mode Recommend), every 30 s, with averages of 60 s. Right finding after: from the\n"
        "cause to the finding in the status. Also found: every other finding that came between the cause and its end;\n"
        "some follow from it. Over: from the end of the cause until all that came is gone; a kill stays a finding for\n"
        "an hour. One run each. RunawayTasks and MemoryLeakSuspected rest on a day of history, and are not here.\n\n"
        + "\n".join([head, "|---" * 5 + "|", *rows])
    )


@contextmanager
def _looked_at(line: Any = AIRFLOW_3) -> Iterator[RealAirflow]:  # noqa: ANN401 - a Line
    """A real Airflow, and an operator that looks at it and changes nothing."""
    with real_airflow(demo.values(1000), line=line) as real:
        operator_process.install_chart(real.control_plane, real.prometheus.url, *MAY_READ_BROKER)
        with Operator(real.area, real.control_plane, real.prometheus.url, [real.airflow.namespace]):
            memory = {"memory": {"min": "256Mi", "max": "2Gi"}}
            apply_policy(real, mode="Recommend", scheduler=memory, triggerer=memory, dagProcessor=PARSING)
            real.airflow.wait_for_dag(DAG)
            settle(real)
            yield real


def _findings(real: RealAirflow) -> list[dict[str, Any]]:
    return list(real.policy_status().get("findings", []))


def _told(findings: set[str]) -> str:
    return ", ".join(sorted(findings)) or "none"


def _names(findings: list[dict[str, Any]]) -> set[str]:
    return {f"{item['reason']} {item['target']}" for item in findings}


def _healthy(real: RealAirflow, version: str) -> str:
    """An ordinary load: two tasks of 2 s now and then."""
    seen: set[str] = set()
    until = time.monotonic() + HEALTHY_SECONDS
    while time.monotonic() < until:
        real.airflow.trigger(DAG, {"count": 2, "seconds": 2})
        for _ in range(15):
            seen |= _names(_findings(real))
            time.sleep(POLL)
    return f"| {version} | none: an ordinary load for {HEALTHY_SECONDS:.0f} s | | {_told(seen)} | |"


def _row(real: RealAirflow, version: str, cause: Cause) -> str:
    say(f"  cause: {cause.name}")
    before = _names(_findings(real))
    began, also, after = time.monotonic(), set[str](), ""
    take_away = cause.bring_about(real)
    try:
        while not after and time.monotonic() - began < APPEARS:
            present = _findings(real)
            if cause.found(present):
                after = f"{time.monotonic() - began:.0f}"
            reason = cause.wanted.partition("/")[0]
            also |= _names([item for item in present if item["reason"] != reason])
            time.sleep(POLL)
    finally:
        take_away()
    ended = time.monotonic()
    over = ""
    while not over and time.monotonic() - ended < ENDS:
        if _names(_findings(real)) <= before:
            over = f"{time.monotonic() - ended:.0f}"
        time.sleep(POLL)
    left = over or f"not within {ENDS:.0f}: {_told(_names(_findings(real)) - before)}"
    return f"| {version} | {cause.name} | {after or f'not within {APPEARS:.0f}'} | {_told(also - before)} | {left} |"
