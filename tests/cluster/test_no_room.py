"""A quota, a limit range or a full node is in the way of what was decided: nothing suffers that runs, or is to be."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.test_operator import condition, deployed, eventually, worked
from testbed.controlplane import ControlPlane
from testbed.operator_process import Operator
from testbed.played_airflow import LABELS, PlayedAirflow
from testbed.processes import Area
from testbed.virtual_eaters import Eaters
from testbed.virtual_node import VirtualNode

MEBIBYTE = 2**20
TAINT = {"key": "tests/no-room", "effect": "NoSchedule"}


def reasons(airflow: PlayedAirflow) -> list[str]:
    """The reasons of the history, newest first."""
    return [change["reason"] for change in airflow.status().get("history", [])]


def findings(airflow: PlayedAirflow) -> dict[str, str]:
    """What is found, by reason."""
    return {item["reason"]: item["message"] for item in airflow.status().get("findings", [])}


def quota(airflow: PlayedAirflow, hard: str) -> None:
    """A quota of limits."""
    spec = {"hard": {"limits.memory": hard}}
    airflow.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "memory"}, "spec": spec})
    eventually(lambda: airflow.get("resourcequota", "memory").get("status", {}).get("used"), "it is counted")


def test_a_quota_is_read_ahead_and_leaves_a_rollout_its_pod(airflow: PlayedAirflow, operator: Operator) -> None:
    quota(airflow, "2400Mi")
    deployed(airflow)
    airflow.policy()
    eventually(lambda: worked(airflow), "a turn is done")
    airflow.kill(airflow.pods()[0])
    eventually(lambda: airflow.limits() == {"800Mi"}, f"as much as the quota leaves\n{operator.log()}")
    told = airflow.status()["history"][0]["message"]
    assert told.endswith(
        "It asked for 1050 MiB; the ResourceQuota memory leaves each of its pods 800 MiB (limits.memory: 1400 MiB of "
        "2400 MiB in use; 2 pods and one of a rollout)."
    )
    airflow.run_all()
    airflow.kill(airflow.pods()[0])
    eventually(lambda: "MemoryRoomShort" in findings(airflow), f"it is said\n{operator.log()}")
    airflow.kubectl("rollout", "restart", "deployment/airflow-worker")
    eventually(lambda: len(airflow.pods()) == 3, "the rollout has its pod")
    assert airflow.limits() == {"800Mi"}
    assert reasons(airflow) == ["OutOfMemory"]


def test_a_limit_range_is_read_ahead_and_the_request_follows_the_limit(
    airflow: PlayedAirflow, operator: Operator
) -> None:
    figures = {"type": "Container", "max": {"memory": "1000Mi"}, "maxLimitRequestRatio": {"memory": "1500m"}}
    airflow.apply(
        {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "small"}, "spec": {"limits": [figures]}}
    )
    deployed(airflow, 1)
    airflow.policy()
    eventually(lambda: worked(airflow), "a turn is done")
    airflow.kill(airflow.pods()[0])
    eventually(lambda: airflow.limits() == {"1000Mi"}, f"as much as is allowed\n{operator.log()}")
    assert airflow.pods()[0]["spec"]["containers"][0]["resources"]["requests"]["memory"] == "667Mi"
    assert (
        "It asked for 1050 MiB; the LimitRange small allows a container 1000 MiB."
        in (airflow.status()["history"][0]["message"])
    )
    airflow.run_all()
    eventually(lambda: condition(airflow, "Converged")["status"] == "True", f"nothing is refused\n{operator.log()}")


def test_a_quota_that_refuses_the_tuned_pods_gets_them_as_the_template_says(
    airflow: PlayedAirflow, operator: Operator
) -> None:
    deployed(airflow)
    airflow.policy()
    eventually(lambda: worked(airflow), "a turn is done")
    airflow.kill(airflow.pods()[0])
    eventually(lambda: airflow.limits() == {"1050Mi"}, f"it is answered\n{operator.log()}")
    quota(airflow, "1900Mi")
    airflow.kubectl("delete", "pod", airflow.pods()[0]["metadata"]["name"], "--grace-period=0", "--force")
    eventually(lambda: reasons(airflow)[0] == "PodsRefused", f"it is withdrawn\n{operator.log()}", 60)
    assert "exceeded quota: memory" in airflow.status()["history"][0]["message"]
    eventually(lambda: len(airflow.pods()) == 2, "the pod that was refused is there", 90)
    assert airflow.limits() == {"1050Mi", "700Mi"}


def test_a_limit_range_that_refuses_the_tuned_pods_of_a_stateful_set(
    airflow: PlayedAirflow, operator: Operator
) -> None:
    labels = {**LABELS, "component": "worker"}
    resources = {"requests": {"memory": "512Mi"}, "limits": {"memory": "700Mi"}}
    pod = {"containers": [{"name": "worker", "image": "airflow:local", "resources": resources}]}
    airflow.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": {"name": "airflow-worker", "labels": labels},
            "spec": {
                "replicas": 1,
                "serviceName": "airflow-worker",
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        }
    )
    eventually(lambda: len(airflow.pods()) == 1, "the pod is there")
    airflow.run_all()
    airflow.policy()
    eventually(lambda: worked(airflow), "a turn is done")
    airflow.kill(airflow.pods()[0])
    eventually(lambda: reasons(airflow) == ["OutOfMemory"], f"it is answered\n{operator.log()}")
    limits = {"limits": [{"type": "Container", "max": {"memory": "1000Mi"}}]}
    airflow.apply({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "small"}, "spec": limits})
    airflow.kubectl("delete", "pod", "airflow-worker-0", "--grace-period=0", "--force")
    eventually(lambda: reasons(airflow)[0] == "PodsRefused", f"it is withdrawn\n{operator.log()}", 60)
    assert "maximum memory usage per Container is 1000Mi" in airflow.status()["history"][0]["message"]
    eventually(lambda: len(airflow.pods()) == 1, "the pod that was refused is there", 90)
    assert airflow.limits() == {"700Mi"}


@pytest.fixture
def node(area: Area, chart: ControlPlane, airflow: PlayedAirflow) -> Iterator[VirtualNode]:
    """A node of 2000 MiB, whose containers eat on command; of the test's own, as another's pods end after it does."""
    with VirtualNode(
        area,
        chart,
        Eaters(),
        name=node_of(airflow),
        namespace=airflow.namespace,
        memory=2000 * MEBIBYTE,
        taints=[TAINT],
    ) as node:
        yield node


def node_of(airflow: PlayedAirflow) -> str:
    """Its name."""
    return f"node-{airflow.namespace[-8:]}"


def placed(airflow: PlayedAirflow) -> dict[str, Any]:
    """What brings a pod there."""
    return {
        "tolerations": [{"key": TAINT["key"], "operator": "Exists"}],
        "nodeSelector": {"kubernetes.io/hostname": node_of(airflow)},
    }


def fill(airflow: PlayedAirflow, request: str) -> None:
    """Another pod that takes so much of the node."""
    fills = {"name": "fills", "image": "none:local", "resources": {"requests": {"memory": request}}}
    airflow.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "fills"},
            "spec": {"containers": [fills], **placed(airflow)},
        }
    )
    eventually(lambda: airflow.get("pod", "fills")["status"]["phase"] == "Running", "it is placed")


def place_worker(airflow: PlayedAirflow) -> None:
    """A worker on the node."""
    labels = {**LABELS, "component": "worker"}
    resources = {"requests": {"memory": "512Mi"}, "limits": {"memory": "700Mi"}}
    pod = {"containers": [{"name": "worker", "image": "airflow:local", "resources": resources}], **placed(airflow)}
    template = {"metadata": {"labels": labels}, "spec": pod}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    metadata = {"name": "airflow-worker", "labels": labels}
    airflow.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec})
    eventually(lambda: running(airflow) == ("512Mi", "700Mi"), "the worker runs")


def test_a_limit_rises_as_far_as_its_node_has_room_and_no_further(
    airflow: PlayedAirflow, operator: Operator, node: VirtualNode
) -> None:
    fill(airflow, "1100Mi")
    place_worker(airflow)
    airflow.policy()
    eventually(lambda: worked(airflow), "a turn is done")
    name = airflow.pods()[0]["metadata"]["name"]
    eaters = node.containers
    assert isinstance(eaters, Eaters)
    node.ask(lambda: eaters.eat(name, 2000))
    eventually(lambda: running(airflow) == ("512Mi", "900Mi"), f"the kill is answered\n{operator.log()}", 60)
    assert f"the node {node.name} carries no more than 900 MiB for" in airflow.status()["history"][0]["message"]
    node.ask(lambda: eaters.eat(name, 2000))
    eventually(lambda: "MemoryRoomShort" in findings(airflow), f"a second one changes nothing\n{operator.log()}", 60)
    eventually(lambda: running(airflow) == ("512Mi", "900Mi"), "it runs again with what it had")
    assert "(of 2000 MiB other pods request 1100 MiB; Airflow's share the rest)" in findings(airflow)["MemoryRoomShort"]
    plan = airflow.status()["targets"][0]
    assert plan["recommended"]["limit"] == "900Mi"


def test_on_a_full_node_a_kill_is_answered_though_a_request_waits_for_room(
    airflow: PlayedAirflow, operator: Operator, node: VirtualNode
) -> None:
    place_worker(airflow)
    airflow.policy()
    eventually(lambda: worked(airflow), "a turn is done")
    # The node is looked at every five minutes: this pod has come since.
    fill(airflow, "1200Mi")
    airflow.policy(workers=[{"name": "*", "memory": {"min": "1100Mi", "max": "4000Mi"}}])
    eventually(lambda: running(airflow) == ("512Mi", "1100Mi"), f"the limit alone is in force\n{operator.log()}")
    eventually(lambda: "Deferred" in findings(airflow).get("ResizeRefused", ""), f"it is said\n{operator.log()}", 45)
    name = airflow.pods()[0]["metadata"]["name"]
    eaters = node.containers
    assert isinstance(eaters, Eaters)
    node.ask(lambda: eaters.eat(name, 2000))
    eventually(lambda: running(airflow) == ("512Mi", "1650Mi"), f"the kill is answered\n{operator.log()}", 60)
    assert "no room for the request" in findings(airflow)["ResizeRefused"]
    assert airflow.status()["tuned"][0]["requests"] == {"memory": "1100Mi"}, "new pods get all of it"


def running(airflow: PlayedAirflow) -> tuple[str, str] | None:
    """Request and limit in force in the only worker."""
    found: list[dict[str, Any]] = json.loads(
        airflow.kubectl("get", "pods", "--selector=component=worker", "--output=json")
    )["items"]
    states = [state for pod in found for state in (pod.get("status") or {}).get("containerStatuses") or []]
    if len(states) != 1 or "running" not in states[0]["state"]:
        return None
    resources = states[0]["resources"]
    return resources["requests"]["memory"], resources["limits"]["memory"]
