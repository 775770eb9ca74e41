"""Memory that weeks have not taken is taken back from a real worker while it runs, and its tasks go on."""

import json
import time
from datetime import UTC, datetime

from airflow_tuner.history import History, hour_of, packed
from testbed import cgroups, operator_process
from testbed.operator_process import MAY_READ_BROKER, Operator
from testbed.real_airflow import RealAirflow
from testbed.slot_experiments import settle

USUAL = 450
"""MiB that the workers have taken in each hour of eight days, as the checkpoint says."""
DAG = "short_tasks"


def policy(real: RealAirflow, mode: str) -> dict[str, object]:
    """A policy that lets memory be released."""
    place = {"name": "airflow", "namespace": real.airflow.namespace}
    workers = [{"name": "*", "memory": {"min": "256Mi", "max": "2Gi"}, "concurrency": {"min": 2, "max": 2}}]
    celery = {"brokerSecretRef": {"name": "airflow-broker-url"}}
    spec = {
        "celery": celery,
        "mode": mode,
        "airflow": {"release": "airflow"},
        "workers": workers,
    }
    return {"apiVersion": "airflow-tuner.dev/v1alpha1", "kind": "TuningPolicy", "metadata": place, "spec": spec}


def remembered(real: RealAirflow) -> None:
    """That policy, which does not enforce yet, and a checkpoint as an operator would have left it after eight days."""
    kubectl = real.control_plane.kubectl
    here = f"--namespace={real.airflow.namespace}"
    kubectl("delete", "tuningpolicies,tuningcheckpoints", "airflow", here, "--ignore-not-found", "--wait=true")
    kubectl("apply", "-f", "-", input=json.dumps(policy(real, "Recommend")))
    uid = json.loads(kubectl("get", "tuningpolicy", "airflow", here, "--output=json"))["metadata"]["uid"]
    past = History(hour_of(datetime.now(UTC)) - 8 * 24, (USUAL,) * 8 * 24)
    memory = {"policy": uid, "peaks": [{"target": "worker/default", "packed": packed(past)}]}
    checkpoint = {**policy(real, "Recommend"), "kind": "TuningCheckpoint", "memory": memory}
    del checkpoint["spec"]
    kubectl("apply", "-f", "-", input=json.dumps(checkpoint))


def test_a_running_worker_gives_memory_back_without_a_restart_and_its_tasks_go_on(real: RealAirflow) -> None:
    # What a worker has held within a day is never taken from it: a new one has held little.
    where = (f"--namespace={real.airflow.namespace}", "--selector=component=worker", "--wait=true")
    real.control_plane.kubectl("delete", "pod", *where)
    real.airflow.wait_until(real.airflow.healthy, "a new worker", 120)
    (before,) = real.airflow.pods("worker")
    container = before["status"]["containerStatuses"][0]["containerID"]
    limit = cgroups.memory_limit(container) or 0
    operator_process.install_chart(real.control_plane, real.prometheus.url, *MAY_READ_BROKER)
    remembered(real)
    real.airflow.wait_for_dag(DAG)
    run = real.airflow.trigger(DAG, {"count": 4, "seconds": 5})
    with Operator(real.area, real.control_plane, real.prometheus.url, [real.airflow.namespace]) as operator:
        settle(real)
        real.control_plane.kubectl("apply", "-f", "-", input=json.dumps(policy(real, "Enforce")))
        real.airflow.wait_until(lambda: bool(real.policy_status().get("history")), "a change", 60)
        (change,) = real.policy_status()["history"]
        assert change["reason"] == "MemoryReleased", operator.log()
        wanted = int(change["to"]["limit"].removesuffix("Mi")) * 2**20
        assert 1.15 * USUAL * 2**20 < wanted < limit
        began = time.monotonic()
        real.airflow.wait_until(
            lambda: cgroups.memory_limit(container) == wanted, "the kernel to have the lower limit", 30
        )
        assert time.monotonic() - began < 30
        real.airflow.wait_until(lambda: real.airflow.run_state(DAG, run) == "success", "its tasks", 90)
    (after,) = real.airflow.pods("worker")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["status"]["containerStatuses"][0]["restartCount"] == 0
    assert cgroups.oom_kills(container) == 0
