"""The budget of changes of a real operator: over several policies, and over its restart."""

import urllib.request
from typing import Any

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
