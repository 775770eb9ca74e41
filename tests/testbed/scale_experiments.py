"""What `make prove` measures with many pods and many policies."""

import json
import time
from collections.abc import Mapping
from statistics import median
from typing import Any

import psutil

from airflow_tuner import quantity
from airflow_tuner.fleet import Deployment
from testbed import operator_process, virtual_demo
from testbed.controlplane import ControlPlane
from testbed.operator_process import NAMESPACE, RELEASE, Operator
from testbed.played_airflow import PlayedAirflow
from testbed.processes import Area, ProgramFailed
from testbed.programs import build
from testbed.prometheus import Prometheus
from testbed.telling import say
from testbed.virtual_airflow import VirtualAirflow, release_values, virtual_airflow

Object = dict[str, Any]

ROUNDS, KILLS_EACH = 4, 5
WORKERS, SLOTS, LIMIT = 10, 2, 800
POLL = 0.02
LONG = 120.0
NODE_MEMORY = 256 * 2**30
POLICY: Object = {
    "apiVersion": "airflow-tuner.dev/v1alpha1",
    "kind": "TuningPolicy",
    "metadata": {"name": "airflow"},
    "spec": {
        "mode": "Enforce",
        "airflow": {"release": "airflow"},
        "workers": [{"name": "*", "memory": {"min": "256Mi", "max": "16Gi"}}],
    },
}


def virtual_kills() -> str:
    """From a whole container's OOMKilled status to the new limit in the specs of all ten workers, on a virtual node."""
    rows: list[tuple[int, float, str]] = []
    for seed in range(1, ROUNDS + 1):
        fleet = Deployment(seed, laws=virtual_demo.fleet_of(seed).laws, group_kills=True)
        with virtual_airflow(fleet, release_values(WORKERS, SLOTS, LIMIT), memory=NODE_MEMORY) as airflow:
            operator_process.install_chart(airflow.control_plane, airflow.prometheus.url)
            airflow.kubectl("apply", "-f", "-", input=json.dumps(POLICY))
            with Operator(airflow.area, airflow.control_plane, airflow.prometheus.url, [airflow.namespace]):
                airflow.wait_until(lambda a=airflow: _worked(a), "a turn is done", LONG)  # type: ignore[misc] # bound
                for _ in range(KILLS_EACH):
                    rows.append((seed, *_kill(airflow)))
                    say(f"seed {seed}: {rows[-1][1]:.2f} s, {rows[-1][2]}")
    seconds = [one for _, one, _ in rows]
    table = ["| seed | status to new limit in all specs (s) | limit |", "|---|---|---|"]
    table += [f"| {seed} | {one:.2f} | {told} |" for seed, one, told in rows]
    return (
        f"{len(rows)} whole-container kills among {WORKERS} workers of a virtual Airflow: real API server,\n"
        "controllers, Prometheus and operator; the kubelet and Airflow are a model. The pods are polled every\n"
        f"{POLL} s. Goal: median at most 1 s, worst at most 2 s.\n"
        f"Median {median(seconds):.2f} s, worst {max(seconds):.2f} s.\n\n" + "\n".join(table)
    )


def idle_cost() -> str:
    """Memory, CPU and requests of an operator that has nothing to do, with 1 and with 100 policies."""
    rows = [_idle(count) for count in (1, 100)]
    head = (
        "| policies | resident (MiB) | of its own (MiB) | CPU (% of a core) | API requests a minute | PromQL a minute |"
    )
    table = [head, "|---" * 6 + "|"]
    table += [f"| {' | '.join(str(one) for one in row.values())} |" for row in rows]
    return (
        "Each policy has a namespace of its own with a release of two workers, one scheduler and one dag-processor,\n"
        f"and bounds for memory, slots and parsing. Measured over {IDLE_SECONDS} s, after {SETTLE_SECONDS} s.\n"
        "API requests are those of the operator's ServiceAccount in the API server's audit log, watches included.\n\n"
        + "\n".join(table)
    )


IDLE_SECONDS, SETTLE_SECONDS = 120, 60


def _worked(airflow: VirtualAirflow) -> bool:
    conditions = airflow.policy_status().get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _kill(airflow: VirtualAirflow) -> tuple[float, str]:
    """One kill: seconds from its status to the new limit in the spec of every worker, and the limits."""
    airflow.wait_until(airflow.ready, "all containers work", LONG)
    (before,) = _limits(_workers(airflow))
    dead = _kills(_workers(airflow))
    size = quantity.parse(before) / quantity.MEBIBYTE
    airflow.node.ask(lambda: airflow.fleet.trigger("eater", 1, seconds=2.0, mebibytes=1.2 * size))
    began = _until(airflow, lambda pods: _kills(pods) > dead, "a container is killed")
    ended = _until(airflow, lambda pods: before not in _limits(pods) and len(_limits(pods)) == 1, "all are raised")
    (after,) = _limits(_workers(airflow))
    return ended - began, f"{before} -> {after}"


def _until(airflow: VirtualAirflow, check: Any, what: str) -> float:  # noqa: ANN401 - a function of pods
    """When it first holds."""
    deadline = time.monotonic() + LONG
    while not check(_workers(airflow)):
        if time.monotonic() > deadline:
            raise ProgramFailed(f"waited {LONG:g} s in vain until {what}")
        time.sleep(POLL)
    return time.monotonic()


def _workers(airflow: VirtualAirflow) -> list[Object]:
    path = f"/api/v1/namespaces/{airflow.namespace}/pods?labelSelector=component%3Dworker"
    pods: list[Object] = json.loads(airflow.control_plane.get(path))["items"]
    return pods


def _limits(pods: list[Object]) -> set[str]:
    return {pod["spec"]["containers"][0]["resources"]["limits"]["memory"] for pod in pods}


def _kills(pods: list[Object]) -> set[tuple[str, str]]:
    """Each kill that the API server knows of: pod and container."""
    states = [(pod["metadata"]["name"], state) for pod in pods for state in pod["status"].get("containerStatuses", [])]
    ends = [
        (name, state[key]["terminated"])
        for name, state in states
        for key in ("state", "lastState")
        if "terminated" in state.get(key, {})
    ]
    return {(name, end["containerID"]) for name, end in ends if end.get("reason") == "OOMKilled"}


def _idle(count: int) -> Mapping[str, float]:
    build(("control-plane", "helm", "prometheus"))
    area = Area(f"idle-{count}")
    try:
        with ControlPlane(area, audit=True) as plane, Prometheus(area, []) as prometheus:
            operator_process.install_chart(plane, prometheus.url)
            names = [f"team-{number:03}" for number in range(count)]
            for name in names:
                _team(plane, name)
            with Operator(area, plane, prometheus.url, names) as operator:
                say(f"{count} policies: {SETTLE_SECONDS} s to settle, then {IDLE_SECONDS} s measured")
                time.sleep(SETTLE_SECONDS)
                process = psutil.Process(operator.program.pid)
                cpu, calls, asked = _cpu(process), _requests(plane), _asked(prometheus)
                time.sleep(IDLE_SECONDS)
                minutes = IDLE_SECONDS / 60
                memory = process.memory_full_info()
                row = {
                    "policies": count,
                    "resident": round(memory.rss / 2**20),
                    "own": round(memory.uss / 2**20),
                    "cpu": round(100 * (_cpu(process) - cpu) / IDLE_SECONDS, 1),
                    "requests": round((_requests(plane) - calls) / minutes),
                    "asked": round((_asked(prometheus) - asked) / minutes),
                }
            say(str(row))
            return row
    finally:
        area.clean()


def _team(plane: ControlPlane, name: str) -> None:
    """A namespace with a small Airflow whose containers run, and a policy."""
    plane.kubectl("create", "namespace", name)
    airflow = PlayedAirflow(plane, name)
    resources = {"requests": {"memory": "512Mi"}, "limits": {"memory": "1Gi"}}
    wanted = {"worker": 2, "scheduler": 1, "dag-processor": 1}
    for component, replicas in wanted.items():
        airflow.deploy(component, replicas, resources)
    for component, replicas in wanted.items():
        while len(airflow.pods(component)) < replicas:
            time.sleep(0.1)
        airflow.run_all(component)
    memory = {"min": "256Mi", "max": "4Gi"}
    airflow.policy(
        workers=[{"name": "*", "memory": memory, "concurrency": {"min": 2, "max": 16}}],
        scheduler={"memory": memory},
        dagProcessor={"memory": memory, "parsing": {"intervalSeconds": {"min": 30, "max": 600}}},
    )


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _requests(plane: ControlPlane) -> int:
    """Requests of the operator's account so far."""
    assert plane.audit_log is not None
    account = f"system:serviceaccount:{NAMESPACE}:{RELEASE}"
    return sum(account in line for line in plane.audit_log.read_text().splitlines())


def _asked(prometheus: Prometheus) -> float:
    """Instant queries that Prometheus has answered."""
    lines = prometheus.metrics().splitlines()
    queries = [
        line for line in lines if line.startswith("prometheus_http_requests_total{") and '"/api/v1/query"' in line
    ]
    return sum(float(line.rsplit(" ", 1)[1]) for line in queries)
