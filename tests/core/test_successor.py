"""What the engine is asked to make in the place of a container."""

from typing import Any

from airflow_tuner import api, compose, successor
from airflow_tuner.compose import Baseline
from airflow_tuner.room import DECISION
from core.containers import ID, MI, inspected

CONCURRENCY = api.EnvName.CONCURRENCY


def tuned(**variables: str) -> api.Tuned:
    """A decision for the worker."""
    return api.Tuned(
        target="worker/default",
        component="worker",
        bounds="workers/default",
        decision="worker-default-1",
        since="2026-11-24T12:00:00+00:00",
        container="worker",
        workload="Service/airflow-worker",
        pod_labels={"a": "b"},
        baseline=api.Baseline(),
        requests=api.Sizes(memory="1Gi"),
        limits=api.Sizes(memory="1Gi"),
        env=[api.EnvVar(name=api.EnvName(name), value=value) for name, value in variables.items()],
    )


def made(item: dict[str, Any], **variables: str) -> dict[str, Any]:
    """The body for its successor."""
    return successor.body(item, compose.baseline(item), tuned(**variables), "apache/airflow:3.3.2")


def test_only_the_variables_that_were_decided_differ() -> None:
    body = made(inspected(), **{CONCURRENCY: "8"})
    assert sorted(body["Env"]) == ["AIRFLOW__CELERY__WORKER_CONCURRENCY=8", "OTHER=kept"]
    assert body["Cmd"] == ["celery", "worker"]
    assert body["HostConfig"]["Memory"] == 700 * MI


def test_a_variable_that_is_no_longer_decided_is_as_the_definition_says() -> None:
    labels = {compose.ORIGINAL: Baseline(None, {CONCURRENCY: "4"}).written, DECISION: "old"}
    item = inspected(env=[f"{CONCURRENCY}=8", f"{api.EnvName.AUTOSCALE}=8,8"], labels=labels)
    body = made(item)
    assert body["Env"] == [f"{CONCURRENCY}=4"]
    assert body["Labels"][compose.ORIGINAL] == labels[compose.ORIGINAL]
    assert body["Labels"][DECISION] == "worker-default-1"


def test_the_engines_own_choices_are_left_to_it() -> None:
    assert "Hostname" not in made(inspected())
    assert made(inspected(config={"Hostname": "worker"}))["Hostname"] == "worker"


def test_networks_are_asked_for_as_before_the_first_at_birth() -> None:
    networks = {
        "other": {"Aliases": ["second", ID[:12]], "IPAddress": "10.0.0.3", "DriverOpts": {"a": "b"}},
        "airflow_default": {"Aliases": ["airflow-worker", ID[:12]], "IPAMConfig": {"IPv4Address": "10.0.0.9"}},
    }
    item = inspected(networks=networks)
    assert list(successor.ends(item)) == ["airflow_default", "other"]
    first = made(item)["NetworkingConfig"]["EndpointsConfig"]
    assert first == {"airflow_default": {"Aliases": ["airflow-worker"], "IPAMConfig": {"IPv4Address": "10.0.0.9"}}}
    assert successor.ends(item)["other"] == {"Aliases": ["second"], "DriverOpts": {"a": "b"}}
    assert "NetworkingConfig" not in made(inspected(host={"NetworkMode": "host"}, networks={"host": {}}))


def test_a_volume_without_a_name_is_named_and_others_are_left_as_they_are() -> None:
    volumes = [
        {"Type": "volume", "Name": "f00d", "Destination": "/data", "RW": True},
        {"Type": "volume", "Name": "cafe", "Destination": "/typed", "RW": True},
        {"Type": "volume", "Name": "beef", "Destination": "/ro", "RW": False},
        {"Type": "volume", "Name": "named", "Destination": "/named", "RW": True},
        {"Type": "bind", "Source": "/dags", "Destination": "/opt/airflow/dags", "RW": True},
    ]
    binds = ["named:/named:rw", "/dags:/opt/airflow/dags:rw"]
    host = {"Binds": binds, "Mounts": [{"Type": "volume", "Target": "/typed"}]}
    told = made(inspected(mounts=volumes, host=host))["HostConfig"]
    assert told["Binds"] == [*binds, "f00d:/data", "beef:/ro:ro"]
    assert told["Mounts"] == [{"Type": "volume", "Target": "/typed", "Source": "cafe"}]


def test_patience_is_that_of_the_health_check() -> None:
    second = 10**9
    check = {
        "Test": ["CMD", "x"],
        "Interval": 10 * second,
        "Timeout": 5 * second,
        "Retries": 3,
        "StartPeriod": 20 * second,
    }
    assert successor.patience(inspected(config={"Healthcheck": check})) == 20 + 4 * 15
    assert successor.checked(inspected(config={"Healthcheck": check}))
    assert not successor.checked(inspected())
    assert not successor.checked(inspected(config={"Healthcheck": {"Test": ["NONE"]}}))
