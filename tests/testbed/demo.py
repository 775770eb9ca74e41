"""The main job, seen, in three acts on a real Airflow.

1. A task that loads everything at once is killed, the worker's limit is corrected, its retry succeeds.
2. Tasks wait on two slots while memory is free: slots and limit rise while the worker runs, and the lag is gone.
3. Forty slow DAG files are parsed too often: the interval changes, the dag-processor restarts, its CPU falls.

`make demo` runs this: real API server, kubelet, containerd, Prometheus, Airflow with Celery, and the operator in a pod
of its chart. Where no real node can run, the same story plays on a virtual Airflow: `testbed.virtual_demo`.
"""

import json
import os
import random
import sys
import textwrap
from datetime import UTC, datetime
from typing import Any

import yaml

from testbed import slow_files, stage, virtual_demo
from testbed.airflow_client import TaskTry
from testbed.commands import CommandFailed
from testbed.node import what_is_missing
from testbed.operator_process import NAMESPACE, install_chart_on_node
from testbed.processes import ProgramFailed
from testbed.real_airflow import RealAirflow, real_airflow
from testbed.telling import say, section, show, title

DAG = "load_everything"
BUSY_WORKER = 380
"""MiB that a worker of two slots takes with one task that does nothing (measured: 330 to 400)."""
SLOTS = 2
SHORT = "short_tasks"
TASKS = 60
TASK_SECONDS = 4
SLOW_FILES = 40
SLOW_SECONDS = 0.3
CORES = 0.5


def main() -> None:
    """Run the demo; exit with a sentence when it cannot."""
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1, 10_000))
    virtual = "VIRTUAL=1 asks for it." if os.environ.get("VIRTUAL") else what_is_missing()
    keep = bool(os.environ.get("KEEP"))
    try:
        if virtual:
            virtual_demo.play(seed, virtual, keep=keep)
        else:
            _play(seed, keep=keep)
    except (ProgramFailed, CommandFailed) as error:
        sys.exit(f"make demo: {error}")
    except KeyboardInterrupt:
        sys.exit("make demo: stopped; everything was cleaned up.")


def drawn(seed: int) -> tuple[int, int]:
    """The worker's first limit and the task's size in MiB: too much for the limit, and not for 1.5 times that."""
    chance = random.Random(seed)  # noqa: S311 - a demo's numbers, not a secret
    limit = chance.randrange(640, 900)
    return limit, int(limit * chance.uniform(1.12, 1.35)) - BUSY_WORKER


def values(limit: int) -> dict[str, Any]:
    """Values of the Airflow chart: two slots, and memory for every component as somebody guessed it."""
    fixed = {"resources": {"requests": {"memory": "256Mi"}, "limits": {"memory": "512Mi"}}}
    return {
        "workers": {"resources": {"requests": {"memory": "512Mi"}, "limits": {"memory": f"{limit}Mi"}}},
        "config": {"celery": {"worker_concurrency": SLOTS}},
        **dict.fromkeys(("scheduler", "dagProcessor", "triggerer"), fixed),
    }


def last_words(log: str) -> str:
    """What a task's log (JSON lines) says about memory."""
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    return "\n".join(f"{line['timestamp'][11:19]} {line['event']}" for line in lines if "memory" in line["event"])


def _play(seed: int, *, keep: bool) -> None:
    limit, size = drawn(seed)
    say(f"airflow-tuner demo, seed {seed} (SEED={seed} make demo plays the same again)")
    say(f"The worker's memory limit is {limit} MiB; a task will load {size} MiB at once. That cannot go well.\n")
    with real_airflow(values(limit)) as real:
        kubectl = real.control_plane.kubectl
        title("The operator's chart, by Helm, and one policy")
        install_chart_on_node(real.control_plane, real.node, real.prometheus.url)
        show(kubectl("get", "pods", f"--namespace={NAMESPACE}"))
        say("")
        policy = yaml.safe_load(stage.POLICY.read_text())
        policy["spec"] |= stage.quick(datetime.now(UTC))
        show(yaml.safe_dump(policy, sort_keys=False, default_flow_style=None, width=100))
        kubectl("apply", "-f", "-", input=json.dumps(policy))
        _heal(real, size)
        _hurry(real)
        _parse(real)
        _look(real)
        if keep:
            stage.wait_for_interrupt(f"export KUBECONFIG={real.control_plane.kubeconfig}")


def _heal(real: RealAirflow, size: int) -> None:
    airflow = real.airflow
    airflow.wait_for_dag(DAG)
    pod = airflow.pods("worker")[0]["metadata"]["name"]
    title(f"Act 1: a run of the DAG {DAG}")
    before = limit_of(real, pod)
    run = airflow.trigger(DAG, {"mebibytes": size, "hold_seconds": 3})
    wait = stage.Watch(real.airflow.wait_until).until

    def tries() -> list[TaskTry]:
        return airflow.task_tries(DAG, run)

    wait(lambda: any(one.state in {"up_for_retry", "failed"} for one in tries()), "the first try has failed", 90)
    say("\n    the task's log, in Airflow:")
    show(last_words(airflow.log(DAG, run, "load", 1)))
    say("  The kernel killed the task's process, not the container: Kubernetes shows no restart and no event.")
    show(real.control_plane.kubectl("get", "pod", pod, "-n", airflow.namespace))
    wait(lambda: limit_of(real, pod) != before, "the tuner has raised the worker's limit, in place", 90)
    say(f"         limit before: {before}   limit now: {limit_of(real, pod)}")
    wait(lambda: airflow.run_state(DAG, run) == "success", "the task's retry has succeeded", 120)
    show("\n".join(f"task {one.task_id}, try {one.try_number}: {one.state}" for one in tries()))
    after = airflow.pods("worker")[0]
    restarts = after["status"]["containerStatuses"][0]["restartCount"]
    if after["metadata"]["name"] != pod or restarts:
        raise ProgramFailed("the worker did not live through it")
    say(f"  The worker {pod} was not restarted (restarts: {restarts}).")


def _hurry(real: RealAirflow) -> None:
    airflow, pod = real.airflow, real.airflow.pods("worker")[0]["metadata"]["name"]
    airflow.wait_for_dag(SHORT)
    title(f"Act 2: {TASKS} tasks of {TASK_SECONDS} s, and a worker with {SLOTS} slots")
    before, found = limit_of(real, pod), len(real.policy_status()["history"])
    run = airflow.trigger(SHORT, {"count": TASKS, "seconds": TASK_SECONDS})
    wait = stage.Watch(real.airflow.wait_until).until

    def states(*wanted: str) -> int:
        return sum(one.state in wanted for one in airflow.task_states(SHORT, run))

    wait(lambda: states("queued", "scheduled") > SLOTS, "tasks wait for a slot", 60)
    wait(lambda: len(real.policy_status()["history"]) > found, "the tuner has decided", 90)
    show_change(real)
    wait(lambda: states("running") > SLOTS, "more tasks run: the worker lives on, with more slots", 60)
    say(f"         limit before: {before}   limit now: {limit_of(real, pod)}")
    wait(lambda: not late(real), "no task waits longer than the objective of 30 s", 120)
    wait(lambda: airflow.run_state(SHORT, run) == "success", f"all {TASKS} tasks have succeeded", 180)
    after = airflow.pods("worker")[0]
    if after["metadata"]["name"] != pod or after["status"]["containerStatuses"][0]["restartCount"]:
        raise ProgramFailed("the worker did not live through it")
    say(f"  The worker {pod} was not restarted (restarts: 0).")


def _parse(real: RealAirflow) -> None:
    airflow, found = real.airflow, len(real.policy_status()["history"])
    title(f"Act 3: {SLOW_FILES} DAG files, each with {SLOW_SECONDS} s of CPU in its top-level code")
    old = airflow.pods("dag-processor")[0]["metadata"]["name"]
    slow_files.write(airflow, SLOW_FILES, SLOW_SECONDS)
    wait = stage.Watch(real.airflow.wait_until).until
    before = 0.0

    def decided() -> bool:
        nonlocal before
        before = max(before, cores(real, old))
        return len(real.policy_status()["history"]) > found

    wait(lambda: cores(real, old) > CORES, f"the dag-processor takes more than the {CORES} cores it may", 120)
    wait(decided, "the tuner has decided", 120)
    show_change(real)

    def successor() -> str:
        pods = [pod for pod in airflow.pods("dag-processor") if pod["metadata"]["name"] != old]
        running = [pod["metadata"]["name"] for pod in pods if pod["status"]["phase"] == "Running"]
        return str(running[0]) if running else ""

    wait(
        lambda: bool(successor()),
        "inside its window, the dag-processor was restarted: its successor is born with the interval",
        60,
    )
    new = successor()
    show(f"{new}: {', '.join(f'{name}={value}' for name, value in environment_of(real, new).items())}")
    wait(lambda: 0 < cores(real, new) < CORES, "its CPU has fallen", 150)
    say(f"         cores before: {before:.2f}   cores now: {cores(real, new):.2f}")


def _look(real: RealAirflow) -> None:
    namespace = f"--namespace={real.airflow.namespace}"
    kubectl = real.control_plane.kubectl
    title("$ kubectl get atp")
    show(kubectl("get", "atp", namespace))
    title("$ kubectl describe atp airflow      (findings and history)")
    described = kubectl("describe", "atp", "airflow", namespace)
    show(section(described, "Findings") + section(described, "History"))
    title("$ kubectl events --for tuningpolicy/airflow")
    show(kubectl("events", "--for", "tuningpolicy.airflow-tuner.dev/airflow", namespace))


def limit_of(real: RealAirflow, pod: str) -> str:
    """The limit in force for the worker's container, as the kubelet reports it."""
    path = '{.status.containerStatuses[?(@.name=="worker")].resources.limits.memory}'
    return real.control_plane.kubectl("get", "pod", pod, "-n", real.airflow.namespace, f"--output=jsonpath={path}")


def show_change(real: RealAirflow) -> None:
    """The sentence of the newest change."""
    show(textwrap.fill(real.policy_status()["history"][0]["message"], 110))


def late(real: RealAirflow) -> bool:
    """The tuner says that tasks wait longer than the objective."""
    return any(found["reason"] == "QueueLagHigh" for found in real.policy_status().get("findings", []))


def cores(real: RealAirflow, pod: str) -> float:
    """Cores that the dag-processor in a pod takes, over a minute; 0 when it is not known yet."""
    series = f'container_cpu_usage_seconds_total{{pod="{pod}",container="dag-processor"}}'
    found = real.prometheus.query(f"rate({series}[1m]) and count_over_time({series}[1m]) > 2")
    return float(found[0]["value"][1]) if found else 0.0


def environment_of(real: RealAirflow, pod: str) -> dict[str, str]:
    """What the operator has set in a pod's environment."""
    item = json.loads(real.control_plane.kubectl("get", "pod", pod, "-n", real.airflow.namespace, "--output=json"))
    entries = item["spec"]["containers"][0]["env"]
    return {
        entry["name"]: entry["value"]
        for entry in entries
        if "FILE_PROCESS" in entry["name"] or "PARSING" in entry["name"]
    }


if __name__ == "__main__":
    main()
