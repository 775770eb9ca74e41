"""What `make prove` measures about slots and parsing; each experiment returns the text of its page."""

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from airflow_tuner.broker import Broker
from airflow_tuner.model import Slots
from testbed import demo, operator_process, slow_files
from testbed.airflow_lines import AIRFLOW_2, AIRFLOW_3, Line
from testbed.operator_process import MAY_READ_BROKER, Operator
from testbed.processes import ProgramFailed
from testbed.real_airflow import RealAirflow, real_airflow
from testbed.telling import say

DAG = "short_tasks"
LIMIT = 800
LONG = 120.0
FORTY = 40
LINES = tuple(line for line in (AIRFLOW_3, AIRFLOW_2) if os.environ.get("LINE", line.version) == line.version)
"""Both, or the one that LINE names."""

SPEC: dict[str, Any] = {
    "mode": "Enforce",
    "airflow": {"release": "airflow"},
    "metrics": {"windowSeconds": 60},
    "workers": [{"name": "*", "memory": {"min": "256Mi", "max": "6Gi"}, "concurrency": {"min": 2, "max": 16}}],
    "celery": {"brokerSecretRef": {"name": "airflow-broker-url"}},
    "changes": {"maxStep": {"concurrencyPercent": 400}, "cooldown": {"concurrencySeconds": 30}},
}
PARSING: dict[str, Any] = {
    "memory": {"min": "256Mi", "max": "2Gi"},
    "parsing": {"intervalSeconds": {"min": 10, "max": 600}, "processes": {"min": 1, "max": 4}},
}


def apply_policy(real: RealAirflow, **changes: Any) -> None:  # noqa: ANN401 - parts of a spec
    """Have the policy `airflow` with this in its spec."""
    policy = {
        "apiVersion": "airflow-tuner.dev/v1alpha1",
        "kind": "TuningPolicy",
        "metadata": {"name": "airflow", "namespace": real.airflow.namespace},
        "spec": {**SPEC, **changes},
    }
    real.control_plane.kubectl("apply", "-f", "-", input=json.dumps(policy))


@contextmanager
def tuned(line: Line = AIRFLOW_3, values: Mapping[str, Any] | None = None) -> Iterator[tuple[RealAirflow, Operator]]:
    """A real Airflow with two slots, and the operator with the chart's rights."""
    with real_airflow(values or demo.values(LIMIT), line=line) as real:
        url = real.prometheus.url
        operator_process.install_chart(real.control_plane, url, *MAY_READ_BROKER)
        with Operator(real.area, real.control_plane, url, [real.airflow.namespace]) as operator:
            yield real, operator


def slots_of(real: RealAirflow) -> dict[str, Slots]:
    """What the workers say of themselves."""
    names = [pod["metadata"]["name"] for pod in real.airflow.pods("worker")]
    broker = Broker(real.services.redis.url)
    try:
        return dict(asyncio.run(broker.workers(names)))
    finally:
        broker.close()


def finding(real: RealAirflow, reason: str) -> str:
    """The message of a finding; empty while it is not there."""
    found = [item for item in real.policy_status().get("findings", []) if item["reason"] == reason]
    return str(found[0]["message"]) if found else ""


def changes(real: RealAirflow, reason: str) -> list[dict[str, Any]]:
    """The changes of the history for this reason, newest first."""
    return [item for item in real.policy_status().get("history", []) if item["reason"] == reason]


def tasks_in(real: RealAirflow, run: str, *states: str, dag: str = DAG) -> int:
    """How many tasks of a run are in these states."""
    return sum(one.state in states for one in real.airflow.task_states(dag, run))


def settle(real: RealAirflow) -> None:
    """Wait until the operator knows Airflow's metrics and its workers."""

    def known() -> bool:
        told = {item["type"]: item["status"] for item in real.policy_status().get("conditions", [])}
        return told.get("AirflowMetricsAvailable") == "True" and told.get("BrokerAvailable", "True") == "True"

    real.airflow.wait_until(known, "the operator to know Airflow", 120)


def lag_met(real: RealAirflow, seconds: float = 5, count: int = 60) -> dict[str, Any]:
    """60 short tasks on the worker's slots: when what came about, in seconds since the first task waited."""
    airflow = real.airflow
    airflow.wait_for_dag(DAG)
    pod = airflow.pods("worker")[0]["metadata"]["name"]
    run = airflow.trigger(DAG, {"count": count, "seconds": seconds})
    line: dict[str, Any] = {}

    def until(name: str, check: Callable[[], bool], limit: float = LONG) -> None:
        airflow.wait_until(check, name, limit)
        line[name] = time.monotonic() - began

    began = time.monotonic()
    airflow.wait_until(lambda: tasks_in(real, run, "queued", "scheduled") > demo.SLOTS, "tasks to wait", LONG)
    began = time.monotonic()
    until("decided", lambda: bool(changes(real, "SlotsExhausted")))
    wanted = changes(real, "SlotsExhausted")[0]["to"]["concurrency"]
    until("in force", lambda: all(slots.processes == wanted for slots in slots_of(real).values()))
    until("objective met", lambda: not finding(real, "QueueLagHigh"))
    until("all done", lambda: airflow.run_state(DAG, run) in {"success", "failed"}, 300)
    newest = changes(real, "SlotsExhausted")
    line["slots"] = newest[-1]["from"].get("concurrency", 2), newest[0]["to"]["concurrency"]
    line["limit"] = newest[-1]["from"]["limit"], newest[0]["to"]["limit"]
    line["tries"] = {one.try_number for one in airflow.task_states(DAG, run)}
    line["state"] = airflow.run_state(DAG, run)
    after = airflow.pods("worker")[0]
    line["restarts"] = after["status"]["containerStatuses"][0]["restartCount"]
    line["same pod"] = after["metadata"]["name"] == pod
    line["why"] = newest[-1]["message"]
    return line


def slots() -> str:
    """60 tasks on 2 slots with free memory, on both lines: slots and limit rise live, the lag objective is met."""
    rows, whys = [], []
    for airflow_line in (AIRFLOW_3, AIRFLOW_2):
        with tuned(airflow_line) as (real, operator):
            apply_policy(real)
            settle(real)
            line = lag_met(real)
            if "Traceback" in operator.log():
                raise ProgramFailed(f"the operator logged an error:\n{operator.log()}")
        slots_, limits = (" -> ".join(map(str, line[key])) for key in ("slots", "limit"))
        times = " | ".join(f"{line[key]:.1f}" for key in ("decided", "in force", "objective met", "all done"))
        tries = ", ".join(map(str, sorted(line["tries"])))
        rows.append(
            f"| {airflow_line.version} | {slots_} | {limits} | {times} | {line['state']}, try {tries} "
            f"| {line['restarts']}{'' if line['same pod'] else ' and another pod'} |"
        )
        whys.append(f"{airflow_line.version}: {line['why']}")
        say(rows[-1])
    head = "| Airflow | slots | limit | decided | in force | objective met | all done | run | restarts |"
    table = [head, "|---" * 9 + "|", *rows]
    return (
        "Seconds since the first task waited. in force: the worker's processes as it says itself. objective met: the\n"
        "finding QueueLagHigh is over (objective 30 s; the operator looks every 30 s). 60 tasks of 5 s.\n\n"
        + "\n".join(table)
        + "\n\n"
        + "\n\n".join(whys)
    )


def held() -> str:
    """What holds tasks back and is not the slots: no change, and the right reason, on real Airflow."""
    rows = []
    with tuned() as (real, _):
        airflow = real.airflow
        worker = {"name": "*", "memory": {"min": "256Mi", "max": "950Mi"}, "concurrency": {"min": 2, "max": 16}}
        apply_policy(real, workers=[worker])
        settle(real)
        airflow.wait_for_dag(DAG)
        run = airflow.trigger(DAG, {"count": 60, "seconds": 10})
        airflow.wait_until(lambda: "MemoryBound" in finding(real, "QueueLagHigh"), "the bound", LONG)
        (worker_now,) = slots_of(real).values()
        rows.append(
            ("memory.max of 950 MiB", f"slots stop at {worker_now.processes} of 16", finding(real, "QueueLagHigh"))
        )
        airflow.end_run(DAG, run)
        apply_policy(real)
        airflow.wait_until(lambda: not finding(real, "QueueLagHigh"), "the lag to end", LONG)
        before = len(real.policy_status()["history"])
        small = f"{DAG}_small_pool"
        airflow.set_pool("small", 1)
        airflow.wait_for_dag(small)
        run = airflow.trigger(small, {"count": 20, "seconds": 5})
        airflow.wait_until(lambda: "PoolExhausted" in finding(real, "QueueLagHigh"), "the pool to be named", LONG)
        time.sleep(45)
        rows.append(("a pool of 1 slot", _unchanged(real, before), finding(real, "QueueLagHigh")))
        airflow.end_run(small, run)
    cpu = {"requests": {"memory": "512Mi", "cpu": "100m"}, "limits": {"memory": "1500Mi", "cpu": "500m"}}
    values = {**demo.values(LIMIT), "workers": {"resources": cpu}}
    with tuned(values=values) as (real, _):
        airflow = real.airflow
        apply_policy(real)
        settle(real)
        airflow.wait_for_dag(DAG)
        run = airflow.trigger(DAG, {"count": 2, "seconds": 200, "burn": True})
        airflow.wait_until(lambda: tasks_in(real, run, "running") > 1, "CPU to be burnt", LONG)
        time.sleep(75)
        before = len(real.policy_status().get("history", []))
        airflow.trigger(DAG, {"count": 40, "seconds": 5, "burn": True})
        airflow.wait_until(lambda: "WorkersCpuBound" in finding(real, "QueueLagHigh"), "the cause", LONG)
        time.sleep(45)
        rows.append(("a CPU limit of 500m, used up", _unchanged(real, before), finding(real, "QueueLagHigh")))
    table = ["| in the way | what happened | the sentence |", "|---|---|---|"]
    table += [f"| {what} | {then} | {told} |" for what, then, told in rows]
    return "60 tasks of 10 s, 20 of 5 s and 40 of 5 s wait on two slots.\n\n" + "\n".join(table)


def _unchanged(real: RealAirflow, before: int) -> str:
    after = len(real.policy_status().get("history", []))
    return "no change in 45 s" if after == before else f"{after - before} changes"


def slot_changes() -> str:
    """20 changes of slots, up and down, while long tasks run: none of the tasks is lost or killed."""
    rows = []
    with tuned(values=demo.values(3000)) as (real, operator):
        airflow = real.airflow
        apply_policy(real)
        settle(real)
        airflow.wait_for_dag(DAG)
        # A first decision, after which the bounds of the policy move the slots.
        first = airflow.trigger(DAG, {"count": 20, "seconds": 8})
        airflow.wait_until(lambda: bool(changes(real, "SlotsExhausted")), "the first decision", LONG)
        airflow.wait_until(lambda: airflow.run_state(DAG, first) == "success", "the first run", 300)
        before = airflow.pods("worker")[0]["metadata"]["name"]
        real.control_plane.kubectl("delete", "pod", before, f"--namespace={airflow.namespace}")
        airflow.wait_until(airflow.healthy, "a worker that was born tuned", LONG)
        pod = airflow.pods("worker")[0]["metadata"]["name"]
        born = next(iter(slots_of(real).values()))
        runs = [airflow.trigger(DAG, {"count": 24, "seconds": 40}) for _ in range(2)]
        airflow.wait_until(lambda: tasks_in(real, runs[0], "running") > 1, "long tasks", LONG)
        for number, wanted in enumerate([4, 8, 3, 10, 2, 9, 5, 12, 4, 11, 2, 6, 3, 8, 5, 10, 2, 12, 4, 6], start=1):
            began = time.monotonic()
            worker = {**SPEC["workers"][0], "concurrency": {"min": wanted, "max": wanted}}
            apply_policy(real, workers=[worker])
            airflow.wait_until(lambda n=wanted: _takes(real, n), f"{wanted} slots", LONG)  # type: ignore[misc] # bound
            busy = next(iter(slots_of(real).values()))
            rows.append(f"| {number} | {wanted} | {time.monotonic() - began:.1f} | {busy.processes} | {busy.busy} |")
            say(rows[-1])
            # Celery lets processes come and go up to 5 s late.
            time.sleep(6)
        apply_policy(real)
        airflow.wait_until(
            lambda: all(airflow.run_state(DAG, run) in {"success", "failed"} for run in runs), "all runs", 1200
        )
        tasks = [one for run in runs for one in airflow.task_states(DAG, run)]
        after = airflow.pods("worker")[0]
        restarts = after["status"]["containerStatuses"][0]["restartCount"]
        same = after["metadata"]["name"] == pod
        errors = operator.log().count("Traceback")
    states = {one.state for one in tasks}
    tries = {one.try_number for one in tasks}
    table = ["| change | slots | seconds until it took no more | processes then | busy then |", "|---" * 5 + "|", *rows]
    return (
        f"The worker was born tuned (autoscale on: {born.autoscaled}, {born.processes} slots). 48 tasks of 40 s. In\n"
        f"the end: {len(tasks)} tasks in states {sorted(states)}, tries {sorted(tries)}; restarts {restarts},\n"
        f"the same pod: {same}; errors in the operator's log: {errors}. A worker that is to have fewer slots takes\n"
        "no more messages at once, and its processes end as their tasks do.\n\n" + "\n".join(table)
    )


def _takes(real: RealAirflow, wanted: int) -> bool:
    """The worker has that many slots, or takes no more messages than that."""
    return all(wanted in {slots.processes, slots.prefetch} for slots in slots_of(real).values())


def parsing() -> str:
    """Forty slow DAG files: interval, CPU and freshness before, after, and when the files are gone."""
    rows: list[str] = []
    whys: list[str] = []
    for line in LINES:
        with tuned(line) as (real, _):
            _parsing_of(real, line, rows, whys)
    head = "| Airflow | files | interval (s) | parsed every (s) | at the latest (s) | CPU (core-seconds per hour) |"
    return (
        "Files with 0.3 s of CPU each in their top-level code; objective: 60 s, with at most 0.15 cores, which goes\n"
        "first. interval: as the running dag-processor was born with; empty: as airflow.cfg says. Averages of a\n"
        "minute and a half, and of four minutes where a round takes two.\n\n"
        + "\n".join([head, "|---" * 6 + "|", *rows])
        + "\n\n"
        + "\n\n".join(whys)
    )


def _parsing_of(real: RealAirflow, line: Line, rows: list[str], whys: list[str]) -> None:
    dag_processor = {**PARSING, "parsing": {**PARSING["parsing"], "cpu": "150m"}}
    cooldown = {"cooldown": {"parsingSeconds": 60}}
    apply_policy(real, dagProcessor=dag_processor, changes=cooldown)
    settle(real)

    def row(what: str, seconds: int) -> None:
        time.sleep(seconds + 15)
        rows.append(_parsed(real, line, what, seconds))
        say(rows[-1])

    row("two files", 90)
    slow_files.write(real.airflow, FORTY, 0.3)
    real.airflow.wait_until(lambda: bool(changes(real, "ParsingOverloaded")), "the decision", 240)
    # No restart is allowed yet: so it goes on as it was.
    row("forty more, before", 90)
    old = real.airflow.pods("dag-processor")[0]["metadata"]["name"]
    apply_policy(real, dagProcessor=dag_processor, changes={**cooldown, "restarts": {"allowed": True}})
    _restarted(real, old)
    row("forty more, after", 240)
    old = real.airflow.pods("dag-processor")[0]["metadata"]["name"]
    slow_files.remove(real.airflow)
    began = time.monotonic()
    real.airflow.wait_until(lambda: bool(changes(real, "DagsStale")), "the way back", 600)
    back = time.monotonic() - began
    _restarted(real, old)
    row("gone again", 120)
    told = [f"{change['reason']}: {change['message']}" for change in real.policy_status()["history"]]
    whys.append(
        f"{line.version}: the way back was decided {back:.0f} s after the files were gone. The history, newest first: "
        + " / ".join(told)
    )


def _restarted(real: RealAirflow, old: str) -> None:
    def successor() -> bool:
        names = [pod["metadata"]["name"] for pod in real.airflow.pods("dag-processor")]
        return bool(names) and old not in names

    real.airflow.wait_until(successor, "the dag-processor to be restarted", LONG)


def _parsed(real: RealAirflow, line: Line, what: str, seconds: int) -> str:
    pod = real.airflow.pods("dag-processor")[0]["metadata"]["name"]
    series = f'container_cpu_usage_seconds_total{{pod="{pod}",container="dag-processor"}}'
    rate = f"sum(rate(airflow_dag_processing_last_duration_count[{seconds}s]))"
    files = 'airflow_dag_processing_last_run_seconds_ago{dag_file!=""}'
    living = f"({files} and (changes({files}[{seconds}s]) > 0))"
    every = _number(real, f"count({living}) / {rate}")
    latest = _number(real, f"max(max_over_time({files}[{seconds}s]) and {living})")
    cpu = _number(real, f"rate({series}[{seconds}s]) * 3600")
    interval = next(iter(demo.environment_of(real, pod).values()), "")
    return f"| {line.version} | {what} | {interval} | {every:.0f} | {latest:.0f} | {cpu:.0f} |"


def _number(real: RealAirflow, promql: str) -> float:
    found = real.prometheus.query(promql)
    return float(found[0]["value"][1]) if found else float("nan")
