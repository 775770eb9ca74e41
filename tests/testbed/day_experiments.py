"""A day's load in an hour on a real Airflow: lag, slots and memory are put right together, while it runs."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from airflow_tuner import quantity
from airflow_tuner.model import Memory
from testbed import day_page, demo
from testbed.airflow_client import TaskTry
from testbed.real_airflow import RealAirflow
from testbed.slot_experiments import apply_policy, settle, slots_of, tuned
from testbed.telling import say

DAG = "short_tasks_again"
HOUR = float(os.environ.get("HOUR", "150"))
"""Seconds that stand for an hour; HOUR says others."""
OBJECTIVE = 30
LIMIT = 640
"""MiB of the worker at the beginning, with two slots: somebody guessed."""
LOOK = 10.0
LONGEST = 900.0
"""Seconds that what is left at the end of the day may take."""

HOURS = (
    *[(4, 5, 20)] * 3,
    (60, 5, 20),
    (30, 8, 120),
    *[(4, 5, 20)] * 2,
    (8, 5, 20),
    (16, 5, 20),
    *[(24, 6, 40)] * 3,
    (40, 6, 40),
    *[(24, 6, 40)] * 3,
    (16, 5, 20),
    *[(8, 5, 20)] * 2,
    *[(4, 5, 20)] * 2,
    (60, 5, 20),
    (30, 8, 120),
    (4, 5, 20),
)
"""Tasks of each hour, seconds and MiB of each: two batches at night, one of many tasks, one of large ones."""


@dataclass
class Hour:
    """What came of one hour's tasks."""

    run: str
    slots: int = 0
    limit: str = ""
    tries: list[TaskTry] = field(default_factory=list)

    @property
    def waits(self) -> list[float]:
        """Seconds that each task waited from when it could have run until its first try began."""
        (could,) = [one.end for one in self.tries if one.task_id == "numbers"]
        began = [one.start for one in self.tries if one.task_id == "work" and one.try_number == 1]
        return [(at - could).total_seconds() for at in began if at is not None and could is not None]

    @property
    def failed(self) -> int:
        """Tries that failed."""
        return sum(one.state in {"failed", "up_for_retry"} for one in self.tries)


@dataclass
class Seen:
    """What was looked at."""

    looks: list[day_page.Look] = field(default_factory=list)
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By the decision's identity."""


def day() -> str:
    """A day's load in an hour on real Airflow: lag, slots and memory put right together, hour by hour."""
    worker = {"name": "*", "memory": {"min": "256Mi", "max": "3Gi"}, "concurrency": {"min": 2, "max": 16}}
    seen = Seen()
    hours: list[Hour] = []
    with tuned(values=demo.values(LIMIT)) as (real, operator):
        _look(real, {}, seen)
        apply_policy(real, workers=[worker], objectives={"queueLagSeconds": OBJECTIVE})
        settle(real)
        real.airflow.wait_for_dag(DAG)
        began = time.monotonic()
        for number, (count, seconds, size) in enumerate(HOURS):
            params = {"count": count, "seconds": seconds, "mebibytes": size}
            hours.append(Hour(real.airflow.trigger(DAG, params)))
            while time.monotonic() - began < (number + 1) * HOUR:
                _look(real, real.policy_status(), seen)
                time.sleep(LOOK)
            last = seen.looks[-1]
            hours[-1].slots, hours[-1].limit = last.slots, quantity.readable(last.memory.limit or 0)
            say(f"  hour {number}: {last.slots} slots, {hours[-1].limit}, {len(seen.changes)} changes so far")
        real.airflow.wait_until(lambda: not _open(real, hours), "what is left", LONGEST)
        _look(real, real.policy_status(), seen)
        for hour in hours:
            hour.tries = real.airflow.task_tries(DAG, hour.run)
        restarts = sum(pod["status"]["containerStatuses"][0]["restartCount"] for pod in real.airflow.pods("worker"))
        errors = operator.log().count("Traceback")
        day_page.write(real, seen.looks, [*seen.changes.values()])
    return _page(hours, seen.changes, restarts, errors)


def _look(real: RealAirflow, status: Mapping[str, Any], seen: Seen) -> None:
    """Keep what is in force, what is found, and the history, which holds the last ten changes."""
    seen.changes |= {change["decision"]: change for change in status.get("history", [])}
    (pod,), slots = real.airflow.pods("worker"), [*slots_of(real).values()]
    sizes = pod["status"]["containerStatuses"][0].get("resources")
    # Between two containers nothing is in force.
    if sizes and slots:
        memory = Memory(*(quantity.parse(sizes[part]["memory"]) for part in ("requests", "limits")))
        seen.looks.append(day_page.Look(datetime.now(UTC), memory, slots[0].processes, status.get("findings", [])))


def _open(real: RealAirflow, hours: list[Hour]) -> bool:
    return any(real.airflow.run_state(DAG, hour.run) not in {"success", "failed"} for hour in hours)


def _page(hours: list[Hour], seen: dict[str, dict[str, Any]], restarts: int, errors: int) -> str:
    rows = ["| hour | tasks | s | MiB | longest wait (s) | late | failed tries | slots | limit |", "|---" * 9 + "|"]
    for number, (hour, (count, seconds, size)) in enumerate(zip(hours, HOURS, strict=True)):
        waits = hour.waits
        late = sum(wait > OBJECTIVE for wait in waits)
        told = (count, seconds, size, f"{max(waits):.0f}", late, hour.failed, hour.slots, hour.limit)
        rows.append(f"| {number} | {' | '.join(map(str, told))} |")
    tasks = [one for hour in hours for one in _last(hour.tries)]
    done = sum(one.state == "success" for one in tasks)
    changes = sorted(seen.values(), key=lambda change: change["time"])
    return (
        f"An hour is {HOUR:.0f} s. The worker begins with {demo.SLOTS} slots and a limit of {LIMIT} MiB; the policy\n"
        "allows 2 to 16 slots and up to 3 GiB. A task waits from when it could have run until its first try began,\n"
        f"Airflow's own seconds included; late: more than {OBJECTIVE} s. Slots and limit: in force at the hour's end.\n"
        f"{done} of {len(tasks)} tasks succeeded in the end; restarts of the worker: {restarts}; errors in the\n"
        f"operator's log: {errors}. The same as [a report](day.html), made from the Prometheus of that hour:\n\n"
        "![Memory, slots and lag of the day](day.png)\n\n"
        + "\n".join(rows)
        + "\n\nThe changes, oldest first:\n\n"
        + "\n".join(f"* {change['time'][11:19]} {change['reason']}: {change['message']}" for change in changes)
    )


def _last(tries: list[TaskTry]) -> list[TaskTry]:
    """The last try of each task."""
    return list({(one.task_id, one.map_index): one for one in tries}.values())
