"""Memory for tasks with pods of their own, on a real API server and a real Prometheus that knows their past."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from cluster.faults import eventually
from cluster.test_executor import a_task_pod
from testbed.controlplane import ControlPlane
from testbed.operator_process import Operator
from testbed.played_airflow import PlayedAirflow, played_airflow
from testbed.processes import Area
from testbed.prometheus import Prometheus

MEBIBYTE = 2**20
NAMESPACE = "task-sizes"
RUNS, SAMPLES = 40, 6


@pytest.fixture(scope="module")
def source(area: Area, needs: Callable[..., None]) -> Iterator[Prometheus]:
    """Forty runs of a task that takes 200 MiB, and as many of one whose pods nobody sees."""
    needs("prometheus", "promtool")
    begin = time.time() - 5 * 86400
    lines = ["# TYPE container_memory_rss gauge"]
    for stem in ("etl-load", "etl-never-seen"):
        for run in range(RUNS):
            name = f"{stem}-{run:08d}"
            labels = f'namespace="{NAMESPACE}",pod="{name}",container="base",id="/kubepods/{name}"'
            lines += [
                f"container_memory_rss{{{labels}}} {200 * MEBIBYTE} {begin + 3600 * run + 15 * sample:.3f}"
                for sample in range(SAMPLES)
            ]
    prometheus = Prometheus(area, [])
    prometheus.remember("\n".join([*lines, "# EOF\n"]))
    with prometheus:
        yield prometheus


@pytest.fixture
def airflow(chart: ControlPlane) -> Iterator[PlayedAirflow]:
    with played_airflow(chart, NAMESPACE) as airflow:
        airflow.deploy("scheduler", 1, {})
        airflow.kubectl("label", "deployment", "airflow-scheduler", "executor=KubernetesExecutor")
        yield airflow


def test_a_task_is_recommended_less_in_the_status_and_as_text_and_its_pods_are_left_alone(
    area: Area, chart: ControlPlane, airflow: PlayedAirflow, source: Prometheus
) -> None:
    a_task_pod(airflow, "etl-load-abcd0123", killed=False)
    before = airflow.get("pod", "etl-load-abcd0123")["spec"]
    rule = {"memory": {"min": "128Mi", "max": "2Gi"}}
    airflow.policy(workers=[], tasks=rule)
    with Operator(area, chart, source.url, [NAMESPACE]) as operator:
        eventually(lambda: bool(airflow.status().get("tasks")), f"a recommendation\n{operator.log()}")
        (told,) = airflow.status()["tasks"]
        assert (told["dag"], told["task"], told["pods"], told["reason"]) == (
            "etl",
            "load",
            "etl-load",
            "Overprovisioned",
        )
        assert told["present"] == {"request": "512Mi", "limit": "1024Mi"}
        assert told["recommended"] == {"request": "224Mi", "limit": "256Mi"}
        summary = airflow.status()["tasksSummary"]
        assert summary == "1 task should have other memory, 0 fit, and of 1 no pod was seen yet."
        assert airflow.status()["podTemplate"] == {"request": "224Mi", "limit": "256Mi"}
        assert "Traceback" not in operator.log()
    assert airflow.get("pod", "etl-load-abcd0123")["spec"] == before
    # The pod is gone, and the task is still known.
    airflow.kubectl("delete", "pod", "etl-load-abcd0123", "--grace-period=0", "--force")
    words = ["explain", "task-pods", "--namespace", NAMESPACE, "--prometheus", source.url]
    argv = [sys.executable, "-m", "airflow_tuner", *words, "--kubeconfig", str(chart.kubeconfig)]
    page = subprocess.run(argv, check=True, timeout=60, capture_output=True, text=True).stdout
    assert 'requests={"memory": "224Mi"}, limits={"memory": "256Mi"}' in page
    argv[3:5] = ["plan", "--output=json"]
    document = json.loads(subprocess.run(argv, check=True, timeout=60, capture_output=True, text=True).stdout)
    assert [one["task"] for one in document["tasks"]] == ["load"]
