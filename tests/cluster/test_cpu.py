"""CPU of running pods on a virtual node: raised in place for what a day took and for a limit that holds back."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cluster.test_no_room import findings, reasons
from cluster.test_operator import eventually
from edges.servers import Server, serving
from testbed.controlplane import ControlPlane
from testbed.operator_process import Operator
from testbed.played_airflow import LABELS, PlayedAirflow, played_airflow
from testbed.processes import Area
from testbed.prometheus import Prometheus
from testbed.virtual_eaters import Eaters
from testbed.virtual_node import VirtualNode

MEBIBYTE = 2**20
HOUR, STEP = 3600, 10
HOURS = 26
"""Of the past: a day must be known."""
USED = 0.3
"""Cores that were taken in it."""
NAMESPACES = ("cpu-roomy", "cpu-full", "cpu-none")
TAINT = {"key": "tests/cpu", "effect": "NoSchedule"}
SIZES = {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"cpu": "500m", "memory": "700Mi"}}
SPEC: dict[str, Any] = {
    "metrics": {"windowSeconds": 30},
    "changes": {"cooldown": {"raiseSeconds": 0}},
    "workers": [{"name": "*", "memory": {"min": "256Mi", "max": "4Gi"}, "cpu": {"min": "50m", "max": "600m"}}],
}


def past() -> str:
    """A day of workers that are gone."""
    begin = (int(time.time()) // HOUR - HOURS) * HOUR
    lines = ["# TYPE container_cpu_usage_seconds counter\n"]
    for namespace in NAMESPACES:
        labels = f'namespace="{namespace}",pod="airflow-worker-7c9d6f5b8-q8z7n",container="worker",id="/kubepods/gone"'
        lines += [
            f"container_cpu_usage_seconds_total{{{labels}}} {USED * second:.0f} {begin + second}\n"
            for second in range(0, HOURS * HOUR, STEP)
        ]
    return "".join(lines) + "# EOF\n"


def present(airflow: PlayedAirflow) -> Callable[[], str]:
    """What cAdvisor says of the worker: its limit holds it back in four of ten periods."""
    (pod,) = airflow.pods()
    container = pod["status"]["containerStatuses"][0]["containerID"].partition("://")[2]
    labels = f'namespace="{airflow.namespace}",pod="{pod["metadata"]["name"]}",container="worker"'
    labels += f',name="{container}",id="/kubepods/{container}"'
    begun = time.time()

    def told() -> str:
        seconds = time.time() - begun
        values = {
            "container_memory_working_set_bytes": 300 * MEBIBYTE,
            "container_memory_rss": 300 * MEBIBYTE,
            "container_oom_events_total": 0,
            "container_cpu_usage_seconds_total": USED * seconds,
            "container_cpu_cfs_periods_total": 10 * seconds,
            "container_cpu_cfs_throttled_periods_total": 4 * seconds,
        }
        return "".join(f"{name}{{{labels}}} {value}\n" for name, value in values.items())

    return told


@pytest.fixture(scope="module")
def source(area: Area, needs: Callable[..., None]) -> Iterator[tuple[Prometheus, Server]]:
    """A Prometheus with a past, and what it scrapes now."""
    needs("prometheus", "promtool")
    with serving("", headers={"Content-Type": "text/plain; version=0.0.4"}) as exporter:
        target = exporter.url.removeprefix("http://")
        job = {"job_name": "cadvisor", "scrape_interval": "1s", "static_configs": [{"targets": [target]}]}
        prometheus = Prometheus(area, [job])
        prometheus.remember(past())
        with prometheus:
            yield prometheus, exporter


@pytest.fixture
def node(area: Area, chart: ControlPlane, request: pytest.FixtureRequest) -> Iterator[VirtualNode]:
    """A node of one core."""
    with VirtualNode(
        area, chart, Eaters(), name=request.param, namespace=request.param, cores=1, taints=[TAINT]
    ) as running:
        yield running


def placed(airflow: PlayedAirflow, fills: str = "", sizes: Any = SIZES) -> None:  # noqa: ANN401 - JSON
    """One worker on the node of the namespace's name, and a pod beside it that requests so much CPU (`fills`)."""
    place = {
        "tolerations": [{"key": TAINT["key"], "operator": "Exists"}],
        "nodeSelector": {"kubernetes.io/hostname": airflow.namespace},
    }
    if fills:
        resources = {"requests": {"cpu": fills}}
        alone = {"containers": [{"name": "fills", "image": "none:local", "resources": resources}], **place}
        airflow.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "fills"}, "spec": alone})
    labels = {**LABELS, "component": "worker"}
    pod = {"containers": [{"name": "worker", "image": "airflow:local", "resources": sizes}], **place}
    template = {"metadata": {"labels": labels}, "spec": pod}
    body: dict[str, Any] = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    metadata = {"name": "airflow-worker", "labels": labels}
    airflow.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": body})
    eventually(lambda: in_force(airflow) == sizes, "the worker runs")


def in_force(airflow: PlayedAirflow) -> Any:  # noqa: ANN401 - JSON
    """The resources in force in the only worker."""
    states = [state for pod in airflow.pods() for state in (pod.get("status") or {}).get("containerStatuses") or []]
    return states[0].get("resources") if len(states) == 1 and "running" in states[0]["state"] else None


def sized(request: str, limit: str, *, memory: str = "700Mi") -> Any:  # noqa: ANN401 - JSON
    """Resources with this CPU."""
    return {"requests": {"cpu": request, "memory": "512Mi"}, "limits": {"cpu": limit, "memory": memory}}


@pytest.mark.parametrize("node", ["cpu-roomy"], indirect=True)
def test_cpu_rises_in_place_for_what_a_day_took_and_for_a_limit_that_holds_back(
    area: Area, chart: ControlPlane, source: tuple[Prometheus, Server], node: VirtualNode
) -> None:
    prometheus, exporter = source
    with played_airflow(chart, node.name) as airflow:
        placed(airflow)
        exporter.body = present(airflow)
        airflow.policy(**SPEC)
        with Operator(area, chart, prometheus.url, [airflow.namespace]) as operator:
            eventually(lambda: in_force(airflow) == sized("330m", "500m"), f"the request rises\n{operator.log()}", 60)
            assert reasons(airflow) == ["CpuUsed"]
            eventually(lambda: in_force(airflow) == sized("330m", "600m"), f"the limit rises\n{operator.log()}", 150)
            assert reasons(airflow) == ["CpuThrottled", "CpuUsed"]
            told = airflow.kubectl("describe", "tuningpolicy", "airflow")
            assert "CPU limit 0.5 cores -> 0.6 cores for all pods of Deployment/airflow-worker" in told
            (pod,) = airflow.pods()
            assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
            assert "Traceback" not in operator.log()
        airflow.kubectl("delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force")
        eventually(lambda: in_force(airflow) == sized("330m", "600m"), "its successor is born with it", 60)
        (born,) = airflow.pods()
        assert born["metadata"]["annotations"]["airflow-tuner.dev/original-cpu"] == "request=100m,limit=500m"


@pytest.mark.parametrize("node", ["cpu-full"], indirect=True)
def test_a_cpu_request_that_waits_for_room_is_not_in_the_way_of_the_answer_to_a_kill(
    area: Area, chart: ControlPlane, source: tuple[Prometheus, Server], node: VirtualNode
) -> None:
    prometheus, exporter = source
    with played_airflow(chart, node.name) as airflow:
        placed(airflow, fills="800m")
        exporter.body = present(airflow)
        airflow.policy(**SPEC)
        with Operator(area, chart, prometheus.url, [airflow.namespace]) as operator:
            eventually(
                lambda: "Deferred" in findings(airflow).get("ResizeRefused", ""), f"it waits\n{operator.log()}", 60
            )
            assert in_force(airflow) == SIZES
            name = airflow.pods()[0]["metadata"]["name"]
            eaters = node.containers
            assert isinstance(eaters, Eaters)
            node.ask(lambda: eaters.eat(name, 900))
            killed = sized("100m", "500m", memory="1050Mi")
            eventually(lambda: in_force(airflow) == killed, f"the kill is answered\n{operator.log()}", 60)
            assert reasons(airflow)[0] == "OutOfMemory"
            tuned = airflow.status()["tuned"][0]["requests"]
            assert tuned == {"cpu": "330m", "memory": "512Mi"}, "new pods get all of it"


@pytest.mark.parametrize("node", ["cpu-none"], indirect=True)
def test_a_running_worker_without_any_cpu_gets_its_first_request_in_place_and_no_limit(
    area: Area, chart: ControlPlane, source: tuple[Prometheus, Server], node: VirtualNode
) -> None:
    prometheus, exporter = source
    bare = {"requests": {"memory": "512Mi"}, "limits": {"memory": "700Mi"}}
    with played_airflow(chart, node.name) as airflow:
        placed(airflow, sizes=bare)
        exporter.body = present(airflow)
        airflow.policy(**SPEC)
        with Operator(area, chart, prometheus.url, [airflow.namespace]) as operator:
            wanted = {**bare, "requests": {"cpu": "330m", "memory": "512Mi"}}
            eventually(lambda: in_force(airflow) == wanted, f"the first request\n{operator.log()}", 60)
            (pod,) = airflow.pods()
            assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
