"""Restarts on a real API server: only where the policy allows them, one pod at a time, never against a budget."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

from airflow_tuner.brokers import Brokers
from airflow_tuner.cluster import Cluster
from airflow_tuner.reconcile import Turn
from airflow_tuner.recorder import Recorder
from cluster.test_operator import RESOURCES, condition, eventually, worked
from testbed.operator_process import Operator
from testbed.played_airflow import PlayedAirflow

RESTARTING = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
ALLOWED: dict[str, Any] = {"restarts": {"allowed": True}}


def killed(airflow: PlayedAirflow, **changes: Any) -> set[str]:  # noqa: ANN401 - parts of spec.changes
    """Two workers whose memory only a restart can change, one of which was killed; their names."""
    airflow.deploy("worker", 2, RESOURCES, resizePolicy=RESTARTING)
    eventually(lambda: len(airflow.pods()) == 2, "the pods are there")
    airflow.run_all()
    airflow.policy(changes=changes)
    eventually(lambda: worked(airflow), "a turn is done")
    first, second = airflow.pods()
    airflow.kill(first)
    eventually(lambda: airflow.status().get("tuned"), "the kill is answered")
    return {first["metadata"]["name"], second["metadata"]["name"]}


def names(airflow: PlayedAirflow) -> set[str]:
    """The workers there are."""
    return {pod["metadata"]["name"] for pod in airflow.pods()}


def restarted(airflow: PlayedAirflow) -> list[dict[str, Any]]:
    """The Events about restarts."""
    items = json.loads(airflow.kubectl("get", "events.events.k8s.io", "-o", "json"))["items"]
    return [item for item in items if item["reason"] == "Restarted"]


def test_without_leave_nothing_is_restarted_and_it_is_said_what_waits(
    airflow: PlayedAirflow, operator: Operator
) -> None:
    before = killed(airflow)
    eventually(lambda: condition(airflow, "RestartNeeded")["status"] == "True", f"it is said\n{operator.log()}")
    said = condition(airflow, "RestartNeeded")["message"]
    assert "2 pods wait for the next creation" in said
    assert "memory limit 700 MiB -> 1050 MiB: not restarted, as the policy allows no restarts" in said
    assert names(airflow) == before
    assert restarted(airflow) == []


def test_with_leave_the_pods_are_restarted_one_after_the_other_and_born_tuned(
    airflow: PlayedAirflow, operator: Operator
) -> None:
    before = killed(airflow, **ALLOWED)
    eventually(lambda: names(airflow) - before, f"the first is restarted\n{operator.log()}")
    assert len(names(airflow) & before) == 1, "the other one waits until its successor is ready"
    airflow.run_all()
    eventually(lambda: not names(airflow) & before, f"the second is restarted\n{operator.log()}", 40)
    airflow.run_all()
    assert airflow.limits() == {"1050Mi"}
    eventually(lambda: condition(airflow, "RestartNeeded")["status"] == "False", "nothing waits any more", 40)
    after = names(airflow)
    told = restarted(airflow)
    assert len(told) == 2
    assert "waits for memory limit 700 MiB -> 1050 MiB, and is evicted" in told[0]["note"]
    airflow.policy(changes={**ALLOWED, "cooldown": {"raiseSeconds": 601}})
    eventually(lambda: airflow.status()["observedGeneration"] > 1, "another turn")
    assert names(airflow) == after, "a pod that has it is not restarted again"


def test_a_disruption_budget_is_heeded_and_named(airflow: PlayedAirflow, operator: Operator) -> None:
    labels = {"component": "worker", "release": "airflow"}
    budget = {"minAvailable": 2, "selector": {"matchLabels": labels}}
    airflow.apply(
        {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "workers"}, "spec": budget}
    )
    before = killed(airflow, **ALLOWED)
    eventually(lambda: "disruption budget" in condition(airflow, "RestartNeeded")["message"], operator.log(), 40)
    assert names(airflow) == before
    assert restarted(airflow) == []


def test_an_eviction_that_was_refused_is_not_asked_for_again_in_the_next_turns(airflow: PlayedAirflow) -> None:
    labels = {"component": "worker", "release": "airflow"}
    budget = {"minAvailable": 2, "selector": {"matchLabels": labels}}
    airflow.apply(
        {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "workers"}, "spec": budget}
    )

    async def run() -> list[dict[str, Any]]:
        async with await Cluster.connect(airflow.control_plane.kubeconfig) as cluster:
            recorder, brokers = Recorder(cluster, "evicting"), Brokers(cluster)
            turn = Turn(cluster, recorder, {}, brokers, airflow.namespace, "airflow", lambda: datetime.now(UTC))
            found = []
            for _ in range(4):
                await turn.run()
                found.append(dict(turn.evictions))
            return found

    airflow.deploy("worker", 2, RESOURCES, resizePolicy=RESTARTING)
    eventually(lambda: len(airflow.pods()) == 2, "the pods are there")
    airflow.run_all()
    airflow.policy(changes=ALLOWED)
    airflow.kill(airflow.pods()[0])
    first, *later = asyncio.run(run())
    assert first
    assert later == [first] * 3


def test_outside_the_window_nothing_is_restarted(airflow: PlayedAirflow, operator: Operator) -> None:
    now = airflow.kubectl("get", "namespace", airflow.namespace, "-o", "jsonpath={.metadata.creationTimestamp}")
    hour = (int(now[11:13]) + 2) % 24
    window = {"start": f"{hour:02}:00", "end": f"{(hour + 1) % 24:02}:00"}
    before = killed(airflow, restarts={"allowed": True, "window": window})
    eventually(lambda: "outside the window" in condition(airflow, "RestartNeeded")["message"], operator.log())
    assert names(airflow) == before
