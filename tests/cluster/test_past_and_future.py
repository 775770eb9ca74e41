"""Memory follows its history: the past is read from a real Prometheus; what it does not ask for is given back."""

import time
from collections.abc import Callable, Iterator

import pytest

from airflow_tuner import checkpoint
from airflow_tuner.api import Remembered
from cluster.faults import eventually
from edges.servers import Server, serving
from testbed.controlplane import ControlPlane
from testbed.operator_process import Operator
from testbed.played_airflow import PlayedAirflow, played_airflow
from testbed.processes import Area
from testbed.prometheus import Prometheus

MEBIBYTE = 2**20
HOUR = 3600
DAYS = 8
NIGHT, DAY = 900, 400
"""MiB at two in the night, and else."""
NAMESPACE = "past-and-future"


def past(namespace: str) -> str:
    """Eight days of a worker that is gone: what its workload takes is known from it."""
    hour = int(time.time()) // HOUR
    labels = f'namespace="{namespace}",pod="airflow-worker-7c9d6f5b8-q8z7n",container="worker",id="/kubepods/gone"'
    lines = ["# TYPE container_memory_rss gauge\n"]
    for minute in range(0, DAYS * 24 * 60, 5):
        at = (hour - DAYS * 24) * HOUR + minute * 60 + 1
        size = NIGHT if at // HOUR % 24 == 2 else DAY
        lines.append(f"container_memory_rss{{{labels}}} {size * MEBIBYTE} {at}\n")
    return "".join(lines) + "# EOF\n"


def present(airflow: PlayedAirflow, size: int) -> str:
    """What cAdvisor says of the workers."""
    lines = []
    for pod in airflow.pods():
        container = pod["status"]["containerStatuses"][0]["containerID"].partition("://")[2]
        labels = f'namespace="{airflow.namespace}",pod="{pod["metadata"]["name"]}",container="worker"'
        labels += f',name="{container}",id="/kubepods/{container}"'
        lines += [
            f"container_memory_working_set_bytes{{{labels}}} {size * MEBIBYTE}",
            f"container_memory_rss{{{labels}}} {size * MEBIBYTE}",
            f"container_oom_events_total{{{labels}}} 0",
        ]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def source(area: Area, needs: Callable[..., None]) -> Iterator[tuple[Prometheus, Server]]:
    """A Prometheus with a past, and what it scrapes now."""
    needs("prometheus", "promtool")
    with serving("", headers={"Content-Type": "text/plain; version=0.0.4"}) as exporter:
        target = exporter.url.removeprefix("http://")
        job = {"job_name": "cadvisor", "scrape_interval": "1s", "static_configs": [{"targets": [target]}]}
        prometheus = Prometheus(area, [job])
        prometheus.remember(past(NAMESPACE))
        with prometheus:
            yield prometheus, exporter


def remembered(airflow: PlayedAirflow) -> int:
    """Hours of the workers that the policy's checkpoint knows."""
    memory = Remembered.model_validate(airflow.get("tuningcheckpoint", "airflow")["memory"])
    histories = checkpoint.histories(memory, memory.policy)
    return histories["worker/default"].known if "worker/default" in histories else 0


def test_what_weeks_did_not_take_is_given_back_in_place_and_the_past_outlives_its_source(
    area: Area, chart: ControlPlane, source: tuple[Prometheus, Server]
) -> None:
    prometheus, exporter = source
    with played_airflow(chart, NAMESPACE) as airflow:
        slots = [{"name": "AIRFLOW__CELERY__WORKER_CONCURRENCY", "value": "2"}]
        airflow.deploy("worker", 2, {"requests": {"memory": "2Gi"}, "limits": {"memory": "4Gi"}}, env=slots)
        eventually(lambda: len(airflow.pods()) == 2, "two workers")
        airflow.run_all()
        exporter.body = present(airflow, 300)
        airflow.policy()
        with Operator(area, chart, prometheus.url, [NAMESPACE]):
            eventually(lambda: "history" in airflow.status(), "a change", 120)
            (change,) = airflow.status()["history"]
            assert change["reason"] == "MemoryReleased"
            assert "from the hourly peaks of 8." in change["message"]
            limit = int(change["to"]["limit"].removesuffix("Mi"))
            assert 1.1 * NIGHT <= limit < 2 * NIGHT
            request = int(change["to"]["request"].removesuffix("Mi"))
            assert DAY <= request <= 1.1 * NIGHT
            eventually(lambda: airflow.limits() == {change["to"]["limit"]}, "both workers lowered")
            events = airflow.kubectl("get", "events", "--field-selector=reason=Tuned", "--output=name").split()
            assert len(events) == 1
            eventually(lambda: remembered(airflow) >= DAYS * 24 - 2, "the past in the checkpoint", 60)
        # The source forgets; the checkpoint does not.
        prometheus.stop()
        with Operator(area, chart, prometheus.url, [NAMESPACE], identity="another"):
            eventually(
                lambda: "MetricsUnavailable" in str(airflow.status().get("conditions")), "the source to be missed", 60
            )
            assert remembered(airflow) >= DAYS * 24 - 2
            assert airflow.limits() == {change["to"]["limit"]}
