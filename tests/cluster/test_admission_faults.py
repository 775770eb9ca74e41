"""The admission policy is missing or broken: it is said, and new pods get what was decided in place."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_tuner.diagnose.arrival import ADMISSION_GRACE
from airflow_tuner.room import DECISION
from cluster.conftest import NOWHERE
from cluster.test_operator import deployed, eventually, worked
from testbed import operator_process
from testbed.controlplane import ControlPlane
from testbed.operator_process import Operator
from testbed.played_airflow import PlayedAirflow

POLICY, BINDING = "mutatingadmissionpolicy", "mutatingadmissionpolicybinding"
NAME = "airflow-tuner"


@pytest.fixture(params=["missing", "broken"])
def fault(request: pytest.FixtureRequest, chart: ControlPlane) -> Iterator[str]:
    """Somebody deletes the binding, or makes the policy's expressions fail; the chart is installed anew at the end."""
    if request.param == "missing":
        chart.kubectl("delete", BINDING, NAME)
    else:
        expression = "Object{spec: Object.spec{hostname: string(params.spec.nowhere)}}"
        broken = {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}
        patch = {"spec": {"failurePolicy": "Ignore", "variables": [], "mutations": [broken]}}
        chart.kubectl("patch", POLICY, NAME, "--type=merge", "--patch", json.dumps(patch))
    yield request.param
    if request.param == "broken":
        # Helm 4 leaves a field to whoever has changed it.
        chart.kubectl("delete", POLICY, NAME)
    operator_process.install_chart(chart, NOWHERE, "--set", "admission.failurePolicy=Fail")


def test_pods_born_bare_are_told_of_and_changed_in_place(
    airflow: PlayedAirflow, operator: Operator, fault: str
) -> None:
    deployed(airflow)
    airflow.policy()
    eventually(lambda: worked(airflow), "a turn is done")
    airflow.kill(airflow.pods()[0])
    eventually(lambda: airflow.limits() == {"1050Mi"}, f"the limit is raised\n{operator.log()}")
    time.sleep(ADMISSION_GRACE.total_seconds() + 1)
    eventually(lambda: bare(airflow), f"pods are born as the template says ({fault})", 60)
    eventually(
        lambda: "AdmissionNotEffective" in airflow.kubectl("describe", "tuningpolicy", "airflow"),
        f"an Event says so\n{operator.log()}",
        60,
    )
    airflow.run_all()
    eventually(lambda: airflow.limits() == {"1050Mi"}, f"they are changed in place\n{operator.log()}", 60)
    assert [change["to"]["limit"] for change in airflow.status()["history"]] == ["1050Mi"]
    assert "Traceback" not in operator.log()


def bare(airflow: PlayedAirflow) -> bool:
    """A pod is created anew; whether it was born without the decision, as the fault takes seconds to have effect."""
    old = {pod["metadata"]["uid"] for pod in airflow.pods()}
    airflow.kubectl("delete", "pod", airflow.pods()[0]["metadata"]["name"], "--grace-period=0", "--force")

    def born() -> list[dict[str, Any]]:
        return [pod["metadata"] for pod in airflow.pods() if pod["metadata"]["uid"] not in old]

    eventually(lambda: bool(born()), "the successor")
    return DECISION not in (born()[0].get("annotations") or {})
