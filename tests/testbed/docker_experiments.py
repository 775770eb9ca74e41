"""What `make prove CASE=docker` measures: a real Airflow in a compose project, and the tuner beside it."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_tuner.broker import Broker
from airflow_tuner.history import History, hour_of, of_tasks, packed
from airflow_tuner.store import Store
from testbed import cgroups, docker_remains
from testbed.docker_airflow import DAG_PROCESSOR, PROJECT, WORKER, RealProject, docker_airflow
from testbed.docker_tuner import DockerTuner
from testbed.telling import say

MI = 2**20
LIMIT, SLOTS = 900, 4
SERVICES: dict[str, dict[str, Any]] = {
    "airflow-apiserver": {},
    "airflow-scheduler": {},
    DAG_PROCESSOR: {},
    WORKER: {
        "mem_limit": f"{LIMIT}m",
        "stop_grace_period": "60s",
        "environment": {
            "AIRFLOW__CELERY__WORKER_CONCURRENCY": f"{SLOTS}",
            "AIRFLOW__CELERY__WORKER_AUTOSCALE": f"{SLOTS},{SLOTS}",
        },
    },
}
HOLDS, TASKS, TASK_SECONDS = 560, 60, 8
"""MiB of the task that does not fit; how many short tasks wait, and how long each takes."""
DAYS, QUIET = 8, 4
"""Days that the tuner is given to remember, and tasks at once in each of their hours."""
SETTLED = 75.0
"""Seconds after which the worker's CPU is known."""
PATIENCE = 400.0


@dataclass
class Line:
    """A time line as a table."""

    began: float = field(default_factory=time.monotonic)
    rows: list[str] = field(default_factory=list)

    def note(self, what: str) -> None:
        """Something has come about."""
        at = time.monotonic() - self.began
        say(f"  {at:6.1f} s  {what}")
        self.rows.append(f"| {at:.1f} | {what} |")

    def text(self, title: str) -> str:
        """The table."""
        return "\n".join([f"## {title}", "", "| s | what |", "|---|---|", *self.rows, ""])


def docker() -> str:
    """Airflow 3 under docker-compose: a task that does not fit, tasks that wait, quiet hours, slots that do not fit.

    No Prometheus: kills come from the engine, queues and slots from the broker.
    """
    with docker_airflow(SERVICES) as real:
        airflow, engine = real.airflow, real.airflow.engine
        for dag in ("load_everything", "short_tasks", "short_tasks_again"):
            airflow.wait_for_dag(dag)
        broker = engine.home / "broker-url"
        broker.write_text(airflow.services.redis.url)
        options = ("--broker-url-file", str(broker))
        with DockerTuner(real.area, engine.home, engine.address, PROJECT, policy(4096), *options) as tuner:
            born = airflow.container(WORKER)
            tables = [_heal(real, tuner)]
            time.sleep(SETTLED)
            tables += [_hurry(real, tuner), _calm(real, tuner), _fit(real, tuner)]
            last = airflow.container(WORKER)
            lived = (last["Id"], last["State"]["StartedAt"]) == (born["Id"], born["State"]["StartedAt"])
    told = "The worker's container was the same, and not restarted, from the first line to the last."
    return "\n".join([*tables, told if lived else "The worker's container was started anew."])


def policy(most: int) -> dict[str, Any]:
    """Bounds of the worker; `most` in MiB."""
    entry = {"name": "*", "memory": {"min": "256Mi", "max": f"{most}Mi"}, "concurrency": {"min": 1, "max": 16}}
    return {"mode": "Enforce", "workers": [entry]}


def _heal(real: RealProject, tuner: DockerTuner) -> str:
    airflow, line = real.airflow, Line()
    run = airflow.trigger("load_everything", {"mebibytes": HOLDS, "hold_seconds": 3})
    line.note(f"a task that loads {HOLDS} MiB is started, the worker's limit is {LIMIT} MiB")
    _wait(real, lambda: bool(tuner.events("Tuned")), "the limit to rise")
    tuned = tuner.events("Tuned")[0]
    line.note(f"decided: {tuned['message']}")
    _wait(real, lambda: airflow.run_state("load_everything", run) == "success", "the retry")
    tries = airflow.task_tries("load_everything", run)
    line.note(f"tries: {', '.join(one.state for one in tries)}; the kernel has killed {_killed(real)}")
    ended = tries[0].end
    if ended is not None:
        after = (datetime.fromisoformat(tuned["time"]) - ended).total_seconds()
        line.note(
            f"Airflow had noticed the death {-after:.1f} s after the limit was decided"
            if after < 0
            else f"the limit was decided {after:.1f} s after Airflow had noticed the death"
        )
    return line.text("A task that does not fit")


def _hurry(real: RealProject, tuner: DockerTuner) -> str:
    airflow, line, found = real.airflow, Line(), len(tuner.events("Tuned"))
    run = airflow.trigger("short_tasks", {"count": TASKS, "seconds": TASK_SECONDS})
    line.note(f"{TASKS} tasks of {TASK_SECONDS} s, and {SLOTS} slots")
    seen, shown, most = found, "", 0
    while airflow.run_state("short_tasks", run) != "success":
        for event in tuner.events("Tuned")[seen:]:
            line.note(f"decided: {event['message']}")
            seen += 1
        lag = [item["message"] for item in tuner.status().get("findings", []) if item["reason"] == "QueueLagHigh"]
        if (now := lag[0] if lag else "") != shown and (bool(now) != bool(shown)):
            line.note(f"QueueLagHigh: {now}" if now else "QueueLagHigh is over")
            shown = now
        running = sum(one.state == "running" for one in airflow.task_states("short_tasks", run))
        if running > most:
            most = running
            line.note(f"{running} tasks run at once")
        time.sleep(1)
    line.note("all tasks have succeeded")
    return line.text("Tasks that wait")


def _calm(real: RealProject, tuner: DockerTuner) -> str:
    """Slots go down: the state file is as after eight days of quiet hours, with the last change an hour ago."""
    line, now, before = Line(), datetime.now(UTC), _slots(real)
    line.note(f"the worker has {before} slots; the tuner is stopped, and given a past of eight quiet days")
    tuner.stop()
    past, name = History(hour_of(now) - DAYS * 24, (QUIET,) * DAYS * 24), of_tasks("worker/default")
    with Store(tuner.state) as store:
        memory, status = store.document("memory"), store.document("status")
        peaks = [one for one in memory.get("peaks", []) if one["target"] != name]
        for target in status["targets"]:
            target.get("changed", {}).update(slots=(now - timedelta(hours=1)).isoformat())
        store.write(
            memory={**memory, "peaks": [*peaks, {"target": name, "packed": packed(past)}]},
            status=status,
        )
    tuner.start()
    line.note("it runs again")
    _wait(real, lambda: bool(tuner.events("Tuned")), "fewer slots")
    line.note(f"decided: {tuner.events('Tuned')[0]['message']}")
    _wait(real, lambda: _slots(real) < before, "the worker to have them")
    line.note(f"the worker has {_slots(real)} slots")
    return line.text("Quiet hours")


def _slots(real: RealProject) -> int:
    """What the worker says itself."""
    broker = Broker(real.airflow.services.redis.url)
    try:
        (told,) = asyncio.run(broker.workers([WORKER])).values()
    finally:
        broker.close()
    return told.processes


def _fit(real: RealProject, tuner: DockerTuner) -> str:
    airflow, line, killed = real.airflow, Line(), _killed(real)
    most = int(airflow.container(WORKER)["HostConfig"]["Memory"]) // MI
    tuner.write(policy(most))
    size = most // 3
    run = airflow.trigger("short_tasks_again", {"count": 12, "seconds": 5, "mebibytes": size})
    line.note(f"memory.max is now the present limit of {most} MiB; 12 tasks hold {size} MiB each")
    seen = len(tuner.events("Tuned"))
    while airflow.run_state("short_tasks_again", run) not in {"success", "failed"}:
        for event in tuner.events("Tuned")[seen:]:
            line.note(f"decided: {event['message']}")
            seen += 1
        time.sleep(1)
    tries = airflow.task_tries("short_tasks_again", run)
    failed = sum(one.state != "success" for one in tries)
    state = airflow.run_state("short_tasks_again", run)
    told = f"{failed} failed tries of {len(tries)}; the kernel has killed {_killed(real) - killed}"
    line.note(f"the run has ended: {state}, with {told}")
    return line.text("Slots that do not fit the largest limit")


def _killed(real: RealProject) -> int:
    """Processes of the worker that were killed for memory, by the kernel's own count."""
    parent = docker_remains.cgroup(real.airflow.engine.home)
    return cgroups.oom_kills(str(real.airflow.container(WORKER)["Id"]), parent)


def _wait(real: RealProject, check: Callable[[], bool], what: str) -> None:
    real.airflow.wait_until(check, what, PATIENCE)
