"""The real node as a judge: Airflow in pods, a kill that no Kubernetes object shows, and the exporter's series."""

import base64
import contextlib
import json
import re
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed import slow_files
from testbed.airflow import Airflow
from testbed.cgroups import oom_kills
from testbed.controlplane import ControlPlane
from testbed.processes import ProgramFailed
from testbed.prometheus import Prometheus
from testbed.real_airflow import RealAirflow

RUN_SECONDS = 120.0
SERIES_SECONDS = 180.0
HOUSEKEEPING_SECONDS = 15.0  # how long cAdvisor may take to look at a container again
SCRAPE_SECONDS = 2.0
SERIES = Path(__file__).with_name("airflow-3x-series.txt")
OOM_EVENTS = 'container_oom_events_total{namespace="airflow", container="worker"}'

# Tasks that go every way a task can go, more of them than may run at once, on a schedule: together they bring out all
# the series that a healthy Airflow sends.
LOAD = """\
import time
from datetime import datetime, timedelta
from airflow.providers.standard.sensors.time_delta import TimeDeltaSensor
from airflow.sdk import dag, task

@dag(schedule="* * * * *", start_date=datetime(2026, 1, 1), catchup=False, max_active_runs=1, max_active_tasks=4)
def load():
    @task
    def sleep(seconds): time.sleep(seconds)
    @task(retries=1, retry_delay=timedelta(seconds=1))
    def fail(): raise ValueError("as it should")
    @task.short_circuit
    def stop(): return False
    TimeDeltaSensor(task_id="wait", delta=timedelta(seconds=90), deferrable=True)
    sleep.expand(seconds=[6] * 6)
    fail()
    stop()

load()
"""


def test_every_component_runs_in_a_pod_with_a_host_name_of_its_own(airflow: Airflow) -> None:
    pods = {pod["metadata"]["labels"]["component"]: pod for pod in airflow.pods()}
    assert set(pods) == set(airflow.line.components)
    names = {
        component: airflow.control_plane.kubectl(
            "exec", pod["metadata"]["name"], "--namespace=airflow", "--container", component, "--", "hostname"
        ).strip()
        for component, pod in pods.items()
        if component != "api-server"  # on the machine's network, as there is no proxy for Services
    }
    assert names == {component: pods[component]["metadata"]["name"] for component in names}
    assert len({pod["status"]["podIP"] for pod in pods.values()}) == len(pods)


def test_workers_have_the_brokers_address_from_the_official_charts_secret(airflow: Airflow) -> None:
    (reference,) = (
        variable["valueFrom"]["secretKeyRef"]
        for variable in _only_worker(airflow)["spec"]["containers"][0]["env"]
        if variable["name"] == "AIRFLOW__CELERY__BROKER_URL"
    )
    assert reference == {"name": "airflow-broker-url", "key": "connection"}
    words = ("get", "secret", reference["name"], "--namespace=airflow", "--output=jsonpath={.data.connection}")
    assert base64.b64decode(airflow.control_plane.kubectl(*words)).decode() == airflow.services.redis.url


def test_a_task_that_fits_succeeds(airflow: Airflow) -> None:
    run_id = _run(airflow, "load_everything", {"mebibytes": 50, "hold_seconds": 0})
    assert [(task.state, task.try_number) for task in airflow.task_states("load_everything", run_id)] == [
        ("success", 1)
    ], airflow.log("load_everything", run_id, "load", 1)


def test_a_killed_task_shows_in_prometheus_and_in_no_kubernetes_object(
    airflow: Airflow, prometheus: Prometheus, request: pytest.FixtureRequest
) -> None:
    worker = _only_worker(airflow)
    container = worker["status"]["containerStatuses"][0]
    before = _oom_events(prometheus)
    kills = oom_kills(container["containerID"])
    events = _event_names(airflow.control_plane)

    airflow.wait_for_dag("load_everything")
    mebibytes = _mebibytes(container["resources"]["limits"]["memory"])
    run_id = airflow.trigger("load_everything", {"mebibytes": mebibytes, "hold_seconds": 0})
    airflow.wait_until(lambda: oom_kills(container["containerID"]) > kills, "the kill", RUN_SECONDS)
    killed = time.monotonic()
    airflow.wait_until(lambda: _oom_events(prometheus) > before, "the kill to show in Prometheus", RUN_SECONDS)
    seconds = time.monotonic() - killed
    request.node.user_properties.append(("seconds_from_kill_to_prometheus", round(seconds, 1)))
    assert seconds < HOUSEKEEPING_SECONDS + SCRAPE_SECONDS + 3

    def told() -> bool:
        return "Likely out of memory" in airflow.log("load_everything", run_id, "load", 1)

    airflow.wait_until(told, "the task's log to name the cause", 10)
    airflow.end_run("load_everything", run_id)

    after = _only_worker(airflow)
    assert after["metadata"]["resourceVersion"] == worker["metadata"]["resourceVersion"]
    assert _event_names(airflow.control_plane) == events


def test_the_exporter_has_the_series_that_the_official_chart_gives(real: RealAirflow) -> None:
    listed, occasional = _listed_series()
    airflow = real.airflow
    airflow.write_dag("load.py", LOAD)
    _run(airflow, "load_everything", {"mebibytes": 1, "hold_seconds": 0})
    missing = listed

    def complete() -> bool:
        nonlocal missing
        missing = listed - occasional - set(_series(real))
        return not missing

    with contextlib.suppress(ProgramFailed):  # what is missing says more than the pods' logs
        airflow.wait_until(complete, "all the series", SERIES_SECONDS)
    airflow.pause("load")
    assert sorted(missing) == []
    assert sorted(set(_series(real)) - listed) == []


def test_a_backlog_shows_per_queue_in_pools_and_in_the_executor(airflow: Airflow, prometheus: Prometheus) -> None:
    airflow.wait_for_dag("short_tasks")
    run_id = airflow.trigger("short_tasks", {"count": 40, "seconds": 2})
    backlog = (
        'sum(airflow_ti_queued{queue="default"}) > 10 and sum(airflow_ti_running{queue="default"}) == 2'
        " and on() airflow_pool_queued_slots_default_pool > 10"
    )
    airflow.wait_until(lambda: bool(prometheus.query(backlog)), "the backlog to show", RUN_SECONDS)
    slots = "airflow_executor_open_slots{executor!=''} + airflow_executor_running_tasks{executor!=''}"
    assert _value(prometheus, slots) == 32
    # Under Celery a task that waits in the broker is "running".
    assert _value(prometheus, "airflow_executor_running_tasks{executor!=''}") > 2
    airflow.end_run("short_tasks", run_id)
    empty = 'sum(airflow_ti_queued{queue="default"}) + sum(airflow_ti_running{queue="default"}) == 0'
    airflow.wait_until(lambda: bool(prometheus.query(empty)), "zeros once nothing waits", RUN_SECONDS)


def test_parse_durations_are_seconds_sent_as_milliseconds(airflow: Airflow, prometheus: Prometheus) -> None:
    slow_files.write(airflow, 1, cpu_seconds=1)
    parsing = "airflow_dag_processing_last_duration_dags_folder_slow_000"
    airflow.wait_until(lambda: bool(prometheus.query(f"{parsing}_count > 0")), "the file to be parsed", 60)
    assert 1 <= 1000 * _value(prometheus, f"{parsing}_sum / {parsing}_count") < 10
    slow_files.remove(airflow)


def _run(airflow: Airflow, dag_id: str, conf: dict[str, Any] | None = None) -> str:
    """Run a DAG to its end and return the run's id."""
    airflow.wait_for_dag(dag_id)
    run_id = airflow.trigger(dag_id, conf)
    airflow.wait_until(
        lambda: airflow.run_state(dag_id, run_id) in {"success", "failed"}, f"the run of {dag_id} to end", RUN_SECONDS
    )
    return run_id


def _only_worker(airflow: Airflow) -> dict[str, Any]:
    (worker,) = airflow.pods("worker")
    return worker


def _value(prometheus: Prometheus, promql: str) -> float:
    (sample,) = prometheus.query(promql)
    return float(sample["value"][1])


def _oom_events(prometheus: Prometheus) -> float:
    return sum(float(sample["value"][1]) for sample in prometheus.query(OOM_EVENTS))


def _event_names(control_plane: ControlPlane) -> set[str]:
    """Return the Events of the namespace but those of probes, which come and go by themselves."""
    events = json.loads(control_plane.kubectl("get", "events", "--namespace=airflow", "--output=json"))["items"]
    return {event["metadata"]["name"] for event in events if event["reason"] != "Unhealthy"}


def _mebibytes(quantity: str) -> int:
    units = {"Mi": 1, "Gi": 1024}
    return int(quantity[:-2]) * units[quantity[-2:]]


def _listed_series() -> tuple[set[str], set[str]]:
    """Return all series of the list, and those marked as occasional."""
    lines = [line for line in SERIES.read_text().splitlines() if line and not line.startswith("#")]
    return {line.removesuffix(" ?") for line in lines}, {
        line.removesuffix(" ?") for line in lines if line.endswith("?")
    }


def _series(real: RealAirflow) -> Iterator[str]:
    """Yield `name type labels` for every series of Airflow, with what is particular to this run as a placeholder."""
    with urllib.request.urlopen(f"{real.exporter.url}/metrics", timeout=10) as answer:  # noqa: S310 - our own server
        text = answer.read().decode()
    kinds = dict(re.findall(r"^# TYPE (airflow_\S+) (\S+)$", text, re.MULTILINE))
    placeholders = list(_placeholders(real))
    for name, labels in re.findall(r"^(airflow_\w+?)(?:\{(.*)\})? \S+$", text, re.MULTILINE):
        base = name if name in kinds else re.sub(r"_(sum|count)$", "", name)
        keys = sorted(set(re.findall(r'(\w+)="', labels)) - {"quantile"})
        general = base
        for pattern, placeholder in placeholders:
            general = re.sub(pattern, placeholder, general)
        yield f"{general} {kinds[base]} {','.join(keys) or '-'}"


def _placeholders(real: RealAirflow) -> Iterator[tuple[str, str]]:
    """Yield patterns of names that belong to this run's DAGs, tasks and hosts, and what stands for them in the list."""
    query = real.services.postgresql.query
    for dag_id, task_id in query("select distinct dag_id, task_id from task_instance"):
        yield rf"(?<=_){dag_id}_{task_id}(?=_|$)", "<dag>_<task>"
    for (dag_id,) in query("select dag_id from dag"):
        yield rf"(?<=^airflow_dagrun_){dag_id}(?=_)", "<dag>"
        yield rf"(?<=^airflow_dagrun_dependency_check_){dag_id}$", "<dag>"
        yield rf"(?<=_dags_folder_){dag_id}$", "<file>"
    for pod in real.airflow.pods("triggerer"):
        yield pod["metadata"]["name"].replace("-", "_") + "$", "<host>"
