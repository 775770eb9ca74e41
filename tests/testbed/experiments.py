"""What `make prove` measures; each experiment returns the text of its page."""

import asyncio
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from airflow_tuner.brokers import Brokers
from airflow_tuner.cluster import Cluster
from airflow_tuner.prometheus import Prometheus as Source
from airflow_tuner.reconcile import Turn
from airflow_tuner.recorder import Recorder
from airflow_tuner.settings import Source as SourceSettings
from testbed import demo, operator_process, stage
from testbed.controlplane import ControlPlane
from testbed.operator_process import NAMESPACE, RELEASE, Operator
from testbed.played_airflow import played_airflow
from testbed.processes import Area
from testbed.programs import build
from testbed.prometheus import Prometheus
from testbed.real_airflow import RealAirflow, real_airflow
from testbed.telling import say

SEEDS = (11, 23, 37, 58, 71)
POLL = 0.05
WAIT = 120.0
KILLED = re.compile(rb"^\d+,\d+,(\d+),[^;]*;.*Killed process \d+", re.MULTILINE)
RESOURCES = {"requests": {"memory": "512Mi"}, "limits": {"memory": "700Mi"}}

# Its minimum is below what the small workloads here have, so that only kills raise anything.
POLICY = """
apiVersion: airflow-tuner.dev/v1alpha1
kind: TuningPolicy
metadata: {name: airflow, namespace: airflow}
spec:
  mode: Enforce
  airflow: {release: airflow}
  workers: [{name: "*", memory: {min: 64Mi, max: 4Gi}}]
"""


@dataclass
class TimeLine:
    """Moments of one run, as seconds of the wall clock."""

    moments: dict[str, float] = field(default_factory=dict)

    def wait(self, name: str, check: Callable[[], float | bool | None]) -> None:
        """Note when `check` first holds (or the moment it gives)."""
        deadline = time.time() + WAIT
        while not (found := check()):
            if time.time() > deadline:
                msg = f"waited {WAIT:g} s in vain for: {name}"
                raise TimeoutError(msg)
            time.sleep(POLL)
        self.moments[name] = time.time() if found is True else float(found)

    def between(self, first: str, last: str) -> float:
        """Seconds from one moment to another."""
        return self.moments[last] - self.moments[first]


def process_kill() -> str:
    """From a killed task process to the new limit and the task's success, five seeds on the real node."""
    rows = []
    with real_airflow(demo.values(demo.drawn(SEEDS[0])[0]), scrape_interval="5s") as real:
        operator_process.install_chart(real.control_plane, real.prometheus.url)
        real.control_plane.kubectl("apply", "-f", stage.POLICY)
        with Operator(real.area, real.control_plane, real.prometheus.url, [real.airflow.namespace]) as operator:
            for number, seed in enumerate(SEEDS):
                limit, size = demo.drawn(seed)
                if number:
                    real.airflow.upgrade(demo.values(limit))
                    real.airflow.wait_until(real.airflow.healthy, "Airflow to be healthy again", WAIT)
                line, tries, restarts = one_process_kill(real, size)
                rows.append((seed, limit, size, line, tries, restarts))
                say(f"seed {seed}: kill to limit in force {line.between('kill', 'in force'):.1f} s")
            log = operator.log()
    if "Traceback" in log:
        msg = f"the operator logged an error:\n{log}"
        raise AssertionError(msg)
    parts = ("kill", "housekeeping", "scraped", "decided", "in force")
    table = ["| seed | limit, task (MiB) | " + " | ".join(parts[1:]) + " | kill to in force | task | restarts |"]
    table.append("|---" * (len(parts) + 4) + "|")
    for seed, limit, size, line, tries, restarts in rows:
        steps = [f"+{line.between(a, b):.1f}" for a, b in pairwise(parts)]
        total = line.between("kill", "in force")
        table.append(f"| {seed} | {limit}, {size} | {' | '.join(steps)} | {total:.1f} | {tries} | {restarts} |")
    return (
        "Seconds; each column counts from the one before. kill: the kernel's message; housekeeping: the time stamp of\n"
        "cAdvisor's sample; scraped: Prometheus answers with it (scrape interval 5 s); decided: the policy's status\n"
        "holds the change; in force: the kubelet reports the new limit.\n\n" + "\n".join(table)
    )


def container_kill() -> str:
    """From the API server's OOMKilled status of a whole container to the new limit, with Prometheus stopped."""
    lines = []
    with real_airflow(demo.values(800)) as real:
        operator_process.install_chart(real.control_plane, real.prometheus.url)
        real.control_plane.kubectl("apply", "-f", "-", input=POLICY)
        real.prometheus.stop()
        with Operator(real.area, real.control_plane, real.prometheus.url, [real.airflow.namespace]):
            for number in range(1, 6):
                lines.append(one_container_kill(real, f"eater-{number}"))
                say(f"kill {number}: {lines[-1].between('OOMKilled', 'in spec'):.2f} s")
    table = ["| kill | status to new limit in spec (s) | status to limit in force (s) |", "|---|---|---|"]
    table += [
        f"| {number} | {line.between('OOMKilled', 'in spec'):.2f} | {line.between('OOMKilled', 'in force'):.2f} |"
        for number, line in enumerate(lines, start=1)
    ]
    middle = median(line.between("OOMKilled", "in spec") for line in lines)
    return (
        f"The container's main process eats more than its limit; the pod's status is polled every {POLL} s. Median "
        f"{middle:.2f} s.\n\n" + "\n".join(table)
    )


def turn_cost() -> str:
    """API calls and PromQL questions of one turn without a change, for 1, 10 and 100 workers."""
    build(("control-plane", "helm", "prometheus"))
    area = Area("turn-cost")
    try:
        with ControlPlane(area) as control_plane, Prometheus(area, []) as prometheus:
            operator_process.install_chart(control_plane, prometheus.url)
            account = area.path / "account.kubeconfig"
            control_plane.kubeconfig_for_service_account(NAMESPACE, RELEASE, account)
            rows = [
                _cost(control_plane, account, prometheus.url, count, slots=slots)
                for slots in (False, True)
                for count in (1, 10, 100)
            ]
    finally:
        area.clean()
    table = ["| tuned | workers | API calls | PromQL questions | seconds |", "|---|---|---|---|---|"]
    table += [
        f"| {what} | {count} | {calls} | {asked} | {seconds:.2f} |" for what, count, calls, asked, seconds in rows
    ]
    return (
        "A turn reads the policy, lists Deployments, StatefulSets and pods, and asks each signal once; every ten\n"
        "minutes one question more, which is not counted here.\n"
        "Between turns (30 s apart when nothing happens) one PromQL question every 3 s asks for killed processes, and\n"
        "one watch waits for killed containers.\n\n" + "\n".join(table)
    )


def one_process_kill(real: RealAirflow, size: int) -> tuple[TimeLine, str, int]:
    airflow, line = real.airflow, TimeLine()
    airflow.wait_for_dag(demo.DAG)
    pod = airflow.pods("worker")[0]["metadata"]["name"]
    before = demo.limit_of(real, pod)
    counter = f'container_oom_events_total{{pod="{pod}",container="worker"}}'
    with _kernel_log() as killed:
        run = airflow.trigger(demo.DAG, {"mebibytes": size, "hold_seconds": 3})
        line.wait("kill", killed)
    line.wait("scraped", lambda: bool(real.prometheus.query(f"{counter} > 0")))
    line.moments["housekeeping"] = float(real.prometheus.query(f"timestamp({counter})")[0]["value"][1])
    line.wait("decided", lambda: _decided(real, pod))
    line.wait("in force", lambda: _in_force(real.control_plane, airflow.namespace, pod) != before)
    airflow.wait_until(lambda: airflow.run_state(demo.DAG, run) == "success", "the retry to succeed", WAIT)
    tries = airflow.task_tries(demo.DAG, run)
    after = airflow.pods("worker")[0]
    told = ", ".join(f"try {one.try_number} {one.state}" for one in tries)
    return line, told, after["status"]["containerStatuses"][0]["restartCount"]


def _decided(real: RealAirflow, pod: str) -> bool:
    text = real.control_plane.get(
        f"/apis/airflow-tuner.dev/v1alpha1/namespaces/{real.airflow.namespace}/tuningpolicies/airflow"
    )
    history = json.loads(text).get("status", {}).get("history", [])
    return any(change["reason"] == "OutOfMemory" and pod in change["message"] for change in history)


def one_container_kill(real: RealAirflow, name: str) -> TimeLine:
    """A worker workload of the release whose main process eats more than its limit, once."""
    line, plane, namespace = TimeLine(), real.control_plane, real.airflow.namespace
    eater = _eater(real, name)
    plane.kubectl("apply", "-f", "-", input=json.dumps(eater))

    def pod() -> dict[str, Any]:
        query = f"/api/v1/namespaces/{namespace}/pods?labelSelector=eater%3D{name}"
        items = json.loads(plane.get(query))["items"]
        return items[0] if items else {}

    def killed() -> bool:
        for state in pod().get("status", {}).get("containerStatuses", []):
            for when in (state.get("state", {}), state.get("lastState", {})):
                if when.get("terminated", {}).get("reason") == "OOMKilled":
                    return True
        return False

    line.wait("OOMKilled", killed)
    line.wait("in spec", lambda: pod()["spec"]["containers"][0]["resources"]["limits"]["memory"] != "100Mi")
    spec = pod()["spec"]["containers"][0]["resources"]["limits"]["memory"]
    line.wait("in force", lambda: _in_force(plane, namespace, pod()["metadata"]["name"]) == spec)
    plane.kubectl("delete", "deployment", eater["metadata"]["name"], f"--namespace={namespace}")
    return line


def _eater(real: RealAirflow, name: str) -> dict[str, Any]:
    labels = {"tier": "airflow", "release": real.airflow.release, "component": "worker", "eater": name}
    worker = json.loads(
        real.control_plane.kubectl("get", "deployment", "airflow-worker", "-n", real.airflow.namespace, "-o", "json")
    )
    pod = worker["spec"]["template"]["spec"]
    eat = "import time; time.sleep(4); eaten = bytearray(b'1') * (120 * 2**20); time.sleep(600)"
    container = {
        **pod["containers"][0],
        "command": ["/usr/bin/env", "python3", "-c", eat],
        "args": [],
        "resources": {"requests": {"memory": "64Mi"}, "limits": {"memory": "100Mi"}},
    }
    container.pop("livenessProbe", None)
    spec = {**pod, "containers": [container], "initContainers": [], "terminationGracePeriodSeconds": 0}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": f"airflow-worker-{name}", "namespace": real.airflow.namespace, "labels": labels},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec}},
    }


def _in_force(plane: ControlPlane, namespace: str, pod: str) -> str:
    item = json.loads(plane.get(f"/api/v1/namespaces/{namespace}/pods/{pod}"))
    states = item["status"].get("containerStatuses", [])
    return next((state["resources"]["limits"]["memory"] for state in states if state.get("resources")), "")


@contextmanager
def _kernel_log() -> Iterator[Callable[[], float | None]]:
    """When the kernel first says, from now on, that it killed a process for memory."""
    with Path("/dev/kmsg").open("rb", buffering=0) as log:
        os.set_blocking(log.fileno(), False)
        os.lseek(log.fileno(), 0, os.SEEK_END)

        def killed() -> float | None:
            while True:
                try:
                    found = KILLED.search(os.read(log.fileno(), 8192))
                except BlockingIOError:
                    return None
                if found:
                    return time.time() - time.monotonic() + int(found[1]) / 1e6

        yield killed


def _cost(
    control_plane: ControlPlane, account: Path, url: str, count: int, *, slots: bool
) -> tuple[str, int, int, int, float]:
    with played_airflow(control_plane, f"cost-{count}-{'all' if slots else 'memory'}") as airflow:
        airflow.deploy("worker", count, RESOURCES)
        while len(airflow.pods()) < count:
            time.sleep(1)
        worker = {"name": "*", "memory": {"min": "256Mi", "max": "4Gi"}}
        airflow.policy(workers=[{**worker, "concurrency": {"min": 2, "max": 16}}] if slots else [worker])
        what = "memory and slots" if slots else "memory"
        return (what, *asyncio.run(_turns(account, airflow.namespace, url, count)))


async def _turns(account: Path, namespace: str, url: str, count: int) -> tuple[int, int, int, float]:
    async with await Cluster.connect(account) as cluster:
        source = Source("default", SourceSettings(url=url))
        recorder, brokers, sources = Recorder(cluster, "cost"), Brokers(cluster), {"default": source}
        turn = Turn(cluster, recorder, sources, brokers, namespace, "airflow", lambda: datetime.now(UTC))
        await turn.run()
        await turn.run()
        cluster.calls, source.calls = 0, 0
        began = time.monotonic()
        await turn.run()
        return count, cluster.calls, source.calls, time.monotonic() - began
