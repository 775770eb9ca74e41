"""The executor on a real API server: as the chart's label says it, as a policy states it, and the pods it makes."""

import json

import pytest

from cluster.faults import condition, eventually
from testbed.commands import CommandFailed
from testbed.operator_process import Operator
from testbed.played_airflow import LABELS, NOWHERE, PlayedAirflow

RESOURCES = {"requests": {"memory": "512Mi"}, "limits": {"memory": "1Gi"}}
SCHEDULER = {"memory": {"min": "512Mi", "max": "4Gi"}}


def a_task_pod(airflow: PlayedAirflow, name: str, *, killed: bool = True) -> None:
    """As the KubernetesExecutor makes one of the official chart's template; the kernel has killed its container."""
    labels = {**LABELS, "component": "worker", "kubernetes_executor": "True", "dag_id": "etl", "task_id": "load"}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {**labels, "airflow-worker": "7", "try_number": "1"}},
        "spec": {
            "restartPolicy": "Never",
            "nodeSelector": NOWHERE,
            "containers": [{"name": "base", "image": "airflow:local", "resources": RESOURCES}],
        },
    }
    airflow.apply(pod)
    if not killed:
        return
    at = airflow.get("pod", name)["metadata"]["creationTimestamp"]
    dead = {"exitCode": 137, "reason": "OOMKilled", "startedAt": at, "finishedAt": at}
    state = {"name": "base", "image": "airflow:local", "imageID": "", "ready": False, "restartCount": 0}
    status = {"phase": "Failed", "containerStatuses": [{**state, "state": {"terminated": dead}}]}
    airflow.kubectl("patch", "pod", name, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))


def test_the_label_of_the_scheduler_tells_and_pods_of_tasks_are_seen_with_the_charts_rights(
    airflow: PlayedAirflow, operator: Operator
) -> None:
    airflow.deploy("scheduler", 1, RESOURCES)
    airflow.kubectl("label", "deployment", "airflow-scheduler", "executor=CeleryExecutor-KubernetesExecutor")
    airflow.policy(scheduler=SCHEDULER)
    eventually(lambda: bool(airflow.status()), f"a first turn\n{operator.log()}")
    status = airflow.status()
    assert status["airflowExecutor"] == "CeleryExecutor and KubernetesExecutor"
    assert status["airflowExecutorSource"] == "label executor of Deployment/airflow-scheduler"
    a_task_pod(airflow, "etl-load-x1")
    # A change of the policy begins a turn; the pod of a task begins none.
    airflow.policy(scheduler=SCHEDULER, airflow={"release": "airflow", "executor": "my:some.KubernetesExecutor"})

    def killed() -> bool:
        found = airflow.status().get("findings", [])
        return any((one["reason"], one["target"]) == ("OutOfMemory", "task-pods") for one in found)

    eventually(killed, f"the killed pod of a task\n{operator.log()}")
    status = airflow.status()
    assert (status["airflowExecutor"], status["airflowExecutorSource"]) == (
        "KubernetesExecutor",
        "spec.airflow.executor",
    )
    (message,) = [one["message"] for one in status["findings"] if one["target"] == "task-pods"]
    assert "task load of etl (limit 1024 MiB)" in message
    missing = condition(airflow, "TargetsFound")["message"]
    assert "This Airflow runs its tasks with the KubernetesExecutor (spec.airflow.executor)" in missing
    assert "Traceback" not in operator.log()


@pytest.mark.parametrize("text", ["celery", "CeleryExecutor;", ""])
def test_the_api_server_refuses_what_is_no_executor(airflow: PlayedAirflow, text: str) -> None:
    with pytest.raises(CommandFailed, match=r"spec\.airflow\.executor"):
        airflow.policy(airflow={"release": "airflow", "executor": text})
