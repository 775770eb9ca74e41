"""CPU on real components: a worker whose limit throttles it gets a larger one in place, and its tasks go on."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from testbed import demo, operator_process
from testbed.operator_process import Operator
from testbed.real_airflow import RealAirflow
from testbed.slot_experiments import DAG

BEFORE, AFTER = "500m", "650m"
WORKER = {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"cpu": BEFORE, "memory": "1500Mi"}}
POLICY = {
    "apiVersion": "airflow-tuner.dev/v1alpha1",
    "kind": "TuningPolicy",
    "metadata": {"name": "airflow", "namespace": "airflow"},
    "spec": {
        "mode": "Enforce",
        "airflow": {"release": "airflow"},
        "metrics": {"windowSeconds": 30},
        "workers": [{"name": "*", "memory": {"min": "64Mi", "max": "4Gi"}, "cpu": {"min": "100m", "max": AFTER}}],
    },
}


@pytest.fixture(scope="module")
def operator(real: RealAirflow) -> Iterator[Operator]:
    """The operator with the chart's rights, a policy that names CPU, and workers whose CPU limit is small."""
    operator_process.install_chart(real.control_plane, real.prometheus.url, "--set", "admission.failurePolicy=Fail")
    real.airflow.upgrade({**demo.values(1500), "workers": {"resources": WORKER}})
    real.airflow.wait_until(real.airflow.healthy, "Airflow to be healthy", 120)
    real.control_plane.kubectl("apply", "-f", "-", input=json.dumps(POLICY))
    with Operator(real.area, real.control_plane, real.prometheus.url, [real.airflow.namespace]) as running:
        yield running
    real.control_plane.kubectl("delete", "tuningpolicy", "airflow", f"--namespace={real.airflow.namespace}")
    real.airflow.upgrade(demo.values(760))
    real.airflow.wait_until(real.airflow.healthy, "Airflow as it was", 120)


def test_a_worker_that_its_cpu_limit_throttles_gets_a_larger_one_without_a_restart(
    real: RealAirflow, operator: Operator
) -> None:
    real.airflow.wait_for_dag(DAG)
    (name,) = (pod["metadata"]["name"] for pod in real.airflow.pods("worker"))
    run = real.airflow.trigger(DAG, {"count": 2, "seconds": 60, "burn": True})
    real.airflow.wait_until(lambda: cpu_limit(real) == AFTER, f"the larger limit in force\n{operator.log()}", 180)
    (change,) = (one for one in real.policy_status()["history"] if one["reason"] == "CpuThrottled")
    assert (change["from"]["cpuLimit"], change["to"]["cpuLimit"]) == (BEFORE, AFTER)
    assert "of its scheduling periods within 30 s" in change["message"]
    real.airflow.wait_until(lambda: real.airflow.run_state(DAG, run) == "success", "the tasks to end well", 300)
    (worker,) = real.airflow.pods("worker")
    assert (worker["metadata"]["name"], state(worker)["restartCount"]) == (name, 0), operator.log()


def test_its_successor_is_born_with_it_and_is_still_burstable(real: RealAirflow, operator: Operator) -> None:
    assert cpu_limit(real) == AFTER, f"this test follows the one above\n{operator.log()}"
    (old,) = (pod["metadata"]["name"] for pod in real.airflow.pods("worker"))
    real.control_plane.kubectl("delete", "pod", old, f"--namespace={real.airflow.namespace}")
    real.airflow.wait_until(real.airflow.healthy, "a new worker", 120)
    (born,) = real.airflow.pods("worker")
    assert born["spec"]["containers"][0]["resources"]["limits"]["cpu"] == AFTER
    assert born["metadata"]["annotations"]["airflow-tuner.dev/original-cpu"] == f"request=100m,limit={BEFORE}"
    assert born["status"]["qosClass"] == "Burstable"


def test_the_operator_has_logged_no_error(operator: Operator) -> None:
    assert "Traceback" not in operator.log()
    assert "ERROR" not in operator.log()


def state(pod: dict[str, Any]) -> dict[str, Any]:
    """What the kubelet says of the worker's container."""
    return next(item for item in pod["status"]["containerStatuses"] if item["name"] == "worker")


def cpu_limit(real: RealAirflow) -> str:
    """The CPU limit in force in the only worker."""
    (worker,) = real.airflow.pods("worker")
    return str(state(worker)["resources"]["limits"]["cpu"])
