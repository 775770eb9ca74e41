"""The fleet model in virtual pods: tasks run in workers that the scheduler placed, and die there for want of memory."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_tuner.fleet import Deployment
from testbed.controlplane import ControlPlane
from testbed.processes import Area
from testbed.prometheus import Prometheus
from testbed.virtual_node import VirtualNode

Object = dict[str, Any]

NAMESPACE = "virtual-airflow"
TAINT = {"key": "tests/virtual-airflow", "effect": "NoSchedule"}
SPEED = 20.0  # else a start and a task's retry would take a minute


def eventually(check: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain for {what}"
        time.sleep(0.2)


@pytest.fixture
def node(area: Area, control_plane: ControlPlane) -> Iterator[VirtualNode]:
    """A node of the test's own, with a scheduler and a worker of 2 slots and 900 MiB."""
    control_plane.kubectl("create", "namespace", NAMESPACE)
    with VirtualNode(
        area,
        control_plane,
        Deployment(7),
        name="virtual-airflow",
        namespace=NAMESPACE,
        taints=[TAINT],
        speed=SPEED,
        housekeeping_seconds=0.5,
    ) as node:
        for component in ("scheduler", "worker"):
            control_plane.kubectl("create", "--filename=-", input=json.dumps(deployment(component)))
            control_plane.kubectl(f"--namespace={NAMESPACE}", "rollout", "status", f"deployment/airflow-{component}")
        yield node
        control_plane.kubectl("delete", "namespace", NAMESPACE)


def deployment(component: str) -> Object:
    labels = {"tier": "airflow", "release": "airflow", "component": component}
    container = {
        "name": component,
        "image": "airflow:none",
        "env": [{"name": "AIRFLOW__CELERY__WORKER_CONCURRENCY", "value": "2"}],
        "resources": {"requests": {"memory": "400Mi"}, "limits": {"memory": "900Mi"}},
    }
    pod = {
        "containers": [container],
        "tolerations": [{"key": TAINT["key"], "operator": "Exists"}],
        "nodeSelector": {"kubernetes.io/hostname": "virtual-airflow"},
    }
    spec = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}
    metadata = {"name": f"airflow-{component}", "namespace": NAMESPACE, "labels": labels}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


def test_a_task_that_passes_the_limit_shows_in_prometheus_and_succeeds_after_a_resize(
    control_plane: ControlPlane, node: VirtualNode, prometheus_factory: Callable[..., Prometheus]
) -> None:
    fleet = node.containers
    assert isinstance(fleet, Deployment)
    prometheus = prometheus_factory(node.scrape_configs("1s"))
    run = node.ask(lambda: fleet.trigger("small", 4, seconds=2.0, mebibytes=10.0))
    eventually(lambda: node.ask(lambda: fleet.states(run)).get("success") == 4, "four tasks")

    words = (f"--namespace={NAMESPACE}", "get", "pods", "--selector=component=worker", "--output=json")
    (worker,) = json.loads(control_plane.kubectl(*words))["items"]
    big = node.ask(lambda: fleet.trigger("big", 1, seconds=2.0, mebibytes=900.0, retries=50, retry_delay=60.0))
    of = f'namespace="{NAMESPACE}",container="worker"'
    eventually(lambda: bool(prometheus.query(f"container_oom_events_total{{{of}}} > 0")), "the kill in Prometheus")
    (after,) = json.loads(control_plane.kubectl(*words))["items"]
    assert after["metadata"]["resourceVersion"] == worker["metadata"]["resourceVersion"]

    body = {"spec": {"containers": [{"name": "worker", "resources": {"limits": {"memory": "3Gi"}}}]}}
    name = worker["metadata"]["name"]
    patch = ("patch", "pod", name, "--subresource=resize", "--patch", json.dumps(body))
    control_plane.kubectl(f"--namespace={NAMESPACE}", *patch)
    eventually(lambda: node.ask(lambda: fleet.states(big)).get("success") == 1, "the retry")
    eventually(lambda: bool(prometheus.query('{__name__="airflow_scheduler_heartbeat"}')), "Airflow's series")
    (after,) = json.loads(control_plane.kubectl(*words))["items"]
    assert after["status"]["containerStatuses"][0]["restartCount"] == 0
