"""The tuner beside a real Airflow 3 in containers: memory and parsing. Slots are in `make prove CASE=docker`."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from testbed.docker_airflow import DAG_PROCESSOR, PROJECT, WORKER, DockerAirflow, RealProject, docker_airflow
from testbed.docker_recreation import recreated
from testbed.docker_tuner import DockerTuner
from testbed.programs import CannotBuild

MI = 2**20
INTERVAL = "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL"
JOB = 'airflow jobs check --job-type DagProcessorJob --hostname "$${HOSTNAME}"'
SERVICES: dict[str, dict[str, Any]] = {
    "airflow-apiserver": {},
    "airflow-scheduler": {},
    # Its check is that of the official compose file.
    DAG_PROCESSOR: {"healthcheck": {"test": ["CMD-SHELL", JOB], "interval": "15s", "timeout": "14s", "retries": 4}},
    WORKER: {"mem_limit": "700m", "environment": {"AIRFLOW__CELERY__WORKER_CONCURRENCY": "2"}},
}

Start = Callable[..., DockerTuner]


@pytest.fixture(scope="module")
def real(machine: None, request: pytest.FixtureRequest) -> Iterator[RealProject]:
    """Airflow, running, with its start in sight."""
    del machine
    capture = request.config.pluginmanager.getplugin("capturemanager")
    try:
        with capture.global_and_fixture_disabled():
            started = docker_airflow(SERVICES, metrics=True)
            running = started.__enter__()
    except CannotBuild as error:
        pytest.skip(str(error).splitlines()[0])
    yield running
    started.__exit__(None, None, None)


@pytest.fixture
def tuner(real: RealProject, tmp_path: Path) -> Iterator[Start]:
    """Call it with fields of a spec: a tuner that runs, and can reach the broker."""
    broker = tmp_path / "broker-url"
    broker.write_text(real.airflow.services.redis.url)
    started: list[DockerTuner] = []

    def start(spec: dict[str, Any], *options: str) -> DockerTuner:
        words = ("--broker-url-file", str(broker), *options)
        airflow = real.airflow
        started.append(DockerTuner(real.area, tmp_path, airflow.engine.address, PROJECT, spec, *words).start())
        return started[-1]

    yield start
    for one in started:
        one.stop()


def limit(airflow: DockerAirflow) -> int:
    """The worker's limit in force, in MiB."""
    return int(airflow.container(WORKER)["HostConfig"]["Memory"]) // MI


def test_a_task_that_does_not_fit_succeeds_at_its_retry_while_the_worker_lives_on(
    real: RealProject, tuner: Start
) -> None:
    airflow = real.airflow
    airflow.wait_for_dag("load_everything")
    before = airflow.container(WORKER)
    running = tuner({"workers": [{"name": "*", "memory": {"min": "256Mi", "max": "3Gi"}}]})
    run = airflow.trigger("load_everything", {"mebibytes": 480, "hold_seconds": 3})
    airflow.wait_until(lambda: airflow.run_state("load_everything", run) == "success", "the retry to succeed", 240)
    first, *others = airflow.task_tries("load_everything", run)
    assert (first.state, others[-1].state) == ("failed", "success")
    (raised,) = running.events("Tuned")
    assert others[0].start is not None
    assert datetime.fromisoformat(raised["time"]) < others[0].start, "before the retry began"
    assert len(others) == 1, airflow.log("load_everything", run, "load", 2)
    after = airflow.container(WORKER)
    assert limit(airflow) == 1050
    assert (after["Id"], after["State"]["StartedAt"]) == (before["Id"], before["State"]["StartedAt"])
    assert "OutOfMemory" in str(running.status()["findings"])


def test_without_metrics_the_database_tells_that_a_pool_is_full_and_slots_stay(
    real: RealProject, tuner: Start, tmp_path: Path
) -> None:
    airflow, dag = real.airflow, "short_tasks_small_pool"
    airflow.wait_for_dag(dag)
    airflow.set_pool("small", 1)
    url = tmp_path / "database-url"
    url.write_text(f"postgresql+psycopg2://{airflow.services.postgresql.url}")
    worker = {"name": "*", "memory": {"min": "256Mi", "max": "3Gi"}, "concurrency": {"min": 2, "max": 8}}
    running = tuner({"workers": [worker]}, "--database-url-file", str(url))
    run = airflow.trigger(dag, {"count": 20, "seconds": 5})

    def told() -> list[str]:
        return [item["message"] for item in running.status().get("findings", []) if item["target"] == "pool/small"]

    airflow.wait_until(lambda: bool(told()), "the pool to be named", 120)
    airflow.end_run(dag, run)
    assert told()[0].startswith("PoolExhausted: The pool small is full (1 running, 0 queued)")
    assert not [event for event in running.events("Tuned") if "Exhausted" in event["reason"]]


def test_the_parsing_interval_changes_by_a_new_container_and_a_bad_one_is_taken_back(
    real: RealProject, tuner: Start
) -> None:
    airflow = real.airflow
    before = airflow.container(DAG_PROCESSOR)
    parsing = {"intervalSeconds": {"min": 20, "max": 600}, "cpu": "50m"}
    running = tuner(
        {
            "dagProcessor": {"memory": {"min": "256Mi", "max": "2Gi"}, "parsing": parsing},
            "metrics": {"windowSeconds": 30},
            "changes": {"restarts": {"allowed": True}},
        },
        "--prometheus",
        real.prometheus.url,
    )
    airflow.wait_until(lambda: bool(running.events("Recreated")), "the container to be made anew", 240)
    airflow.wait_until(lambda: airflow.container(DAG_PROCESSOR)["Id"] != before["Id"], "the successor", 30)

    def healthy() -> bool:
        names = airflow.engine.docker("ps", "--all", "--format={{.Names}}").split()
        state = airflow.container(DAG_PROCESSOR)["State"]
        return state.get("Health", {}).get("Status") == "healthy" and not any("before" in name for name in names)

    airflow.wait_until(healthy, "a healthy successor alone", 180)
    after = airflow.container(DAG_PROCESSOR)
    told = dict(entry.split("=", 1) for entry in after["Config"]["Env"])
    assert 20 < int(told[INTERVAL]) <= 600
    assert sorted(one["Destination"] for one in after["Mounts"]) == sorted(
        one["Destination"] for one in before["Mounts"]
    )
    assert after["HostConfig"]["NetworkMode"] == before["HostConfig"]["NetworkMode"]
    running.stop()
    why = asyncio.run(recreated(airflow.engine, PROJECT, running.state, "soon", until=120))
    assert "the container was put back" in why
    assert airflow.container(DAG_PROCESSOR)["Id"] == after["Id"]
