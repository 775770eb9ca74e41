"""The budget of changes of a real operator: over several policies, and over its restart."""

import asyncio
import urllib.request
from datetime import UTC, datetime
from typing import Any

from airflow_tuner.brokers import Brokers
from airflow_tuner.budget import Ledger
from airflow_tuner.cluster import Cluster
from airflow_tuner.reconcile import Turn
from airflow_tuner.recorder import Recorder
from cluster.conftest import NOWHERE
from cluster.test_operator import RESOURCES, eventually
from testbed.controlplane import ControlPlane
from testbed.operator_process import Operator
from testbed.played_airflow import PlayedAirflow
from testbed.processes import Area, free_port

BOUNDS: dict[str, Any] = {"memory": {"min": "800Mi", "max": "4Gi"}}
NAMES = ("worker", "scheduler", "triggerer")


def reasons(airflow: PlayedAirflow) -> list[str]:
    return [change["reason"] for change in airflow.status().get("history", [])]


def held(airflow: PlayedAirflow) -> bool:
    return any(item["reason"] == "ChangeBudgetSpent" for item in airflow.status().get("findings", []))


def test_an_operator_holds_after_its_changes_and_still_does_so_when_it_is_started_again(
    area: Area, chart: ControlPlane, airflow: PlayedAirflow
) -> None:
    for name in NAMES:
        airflow.deploy(name, 1, RESOURCES)
    eventually(lambda: all(airflow.pods(name) for name in NAMES), "the pods are there")
    for name in NAMES:
        airflow.run_all(name)
    port = free_port()
    options = ["--changes-per-hour=2", f"--metrics-port={port}"]
    operator = Operator(area, chart, NOWHERE, [airflow.namespace], options=options)
    with operator:
        airflow.policy(workers=[{"name": "*", **BOUNDS}], scheduler=BOUNDS, triggerer=BOUNDS)
        eventually(lambda: held(airflow), f"it holds\n{operator.log()}", 60)
        assert reasons(airflow) == ["BelowMinimum"] * 2
        limits = [airflow.limits(name) for name in NAMES]
        assert limits.count({"800Mi"}) == 2
        assert limits.count({"700Mi"}) == 1
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            text = answer.read().decode()
        assert "airflow_tuner_ordinary_changes 2.0" in text
        assert "airflow_tuner_ordinary_changes_most 2.0" in text
        spared = NAMES[limits.index({"700Mi"})]
        airflow.kill(airflow.pods(spared)[0])
        eventually(lambda: reasons(airflow)[0] == "OutOfMemory", f"a kill is answered\n{operator.log()}")
    airflow.kubectl("delete", "tuningcheckpoint", "airflow")
    airflow.deploy("api-server", 1, RESOURCES)
    eventually(lambda: airflow.pods("api-server"), "the pod is there")
    airflow.run_all("api-server")
    with operator:
        airflow.policy(workers=[{"name": "*", **BOUNDS}], scheduler=BOUNDS, triggerer=BOUNDS, apiServer=BOUNDS)
        eventually(
            lambda: any(item["name"] == "api-server" for item in airflow.status()["targets"]), "it has looked at it", 60
        )
        assert held(airflow)
        assert len(reasons(airflow)) == 3
        assert airflow.limits("api-server") == {"700Mi"}


def test_a_policy_whose_status_is_refused_in_every_turn_spends_nothing_of_what_all_have(
    airflow: PlayedAirflow,
) -> None:
    airflow.deploy("worker", 1, RESOURCES)
    eventually(lambda: airflow.pods("worker"), "the pod is there")
    airflow.run_all("worker")
    airflow.policy(workers=[{"name": "*", **BOUNDS}])
    refusing(airflow)
    ledger = Ledger(5)

    async def run() -> list[int]:
        async with await Cluster.connect(airflow.control_plane.kubeconfig) as cluster:
            turn = Turn(
                cluster,
                Recorder(cluster, "refused"),
                {},
                Brokers(cluster),
                airflow.namespace,
                "airflow",
                lambda: datetime.now(UTC),
                ledger=ledger,
            )
            left = []
            for _ in range(3):
                await turn.attempt()
                assert turn.refused
                left.append(ledger.budget(datetime.now(UTC)).left)
            return left

    assert asyncio.run(run()) == [5, 5, 5]


def refusing(airflow: PlayedAirflow) -> None:
    """From now on the API server refuses every status of a policy there that tells of a change."""
    name = f"refusing-{airflow.namespace}"
    rules = [
        {
            "apiGroups": ["airflow-tuner.dev"],
            "apiVersions": ["*"],
            "operations": ["UPDATE"],
            "resources": ["tuningpolicies/status"],
        }
    ]
    policy = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {"matchConstraints": {"resourceRules": rules}, "validations": [{"expression": "false"}]},
    }
    only = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": airflow.namespace}}}
    binding = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"], "matchResources": only},
    }
    airflow.apply(policy)
    airflow.apply(binding)
    status = '{"status":{"summary":"x"}}'
    eventually(lambda: "denied" in refused(airflow, status), "it refuses")


def refused(airflow: PlayedAirflow, status: str) -> str:
    """What the API server says to this status."""
    try:
        airflow.kubectl("patch", "tuningpolicy", "airflow", "--subresource=status", "--type=merge", "-p", status)
    except Exception as error:  # noqa: BLE001 - whatever kubectl says
        return str(error)
    return ""
