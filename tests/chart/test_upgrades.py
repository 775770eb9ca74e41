"""Nobody fights: Helm and the operator, each at its own work on one Airflow, and Helm at work on our own chart."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from testbed.commands import CommandFailed
from testbed.controlplane import ControlPlane
from testbed.helm_experiments import HelmAirflow, Tuned, born_meanwhile, tuned
from testbed.processes import Area

DEFINITION = "tuningpolicies.airflow-tuner.dev"
RAISED = "1050Mi"


@pytest.fixture(scope="module")
def area(needs: Callable[..., None]) -> Iterator[Area]:
    """Makes the folder of these tests."""
    needs("control-plane", "helm", "helm3")
    area = Area("upgrades")
    yield area
    area.clean()


@pytest.fixture(scope="module")
def plane(area: Area) -> Iterator[ControlPlane]:
    """Runs a control plane of its own, because the definition is one for the whole cluster."""
    with ControlPlane(area) as running:
        yield running


@pytest.fixture(params=[4, 3], ids=["helm 4", "helm 3"])
def release(request: pytest.FixtureRequest, plane: ControlPlane, area: Area) -> Iterator[Tuned]:
    """Returns an Airflow whose workers were raised from 700 to 1050 MiB, both charts by one Helm."""
    namespace = f"airflow-{request.param}-{request.node.originalname.replace('_', '-')[5:30].strip('-')}"
    with tuned(area, plane, namespace, request.param) as now:
        yield now


def test_an_upgrade_of_airflow_keeps_the_decision_and_one_of_its_memory_ends_it(release: Tuned) -> None:
    airflow = release.airflow
    decided = airflow.status()["tuned"]
    airflow.upgrade(parallelism=33)
    assert airflow.births() == {f"{RAISED} born": 4}, "new pods are born tuned"
    assert airflow.strange() == []
    assert airflow.status()["tuned"] == decided

    airflow.upgrade(limit=900)
    airflow.until(lambda: not airflow.entries(), "the entries are withdrawn")
    assert airflow.births() == {"900Mi": 4}, "the user wins"
    assert airflow.reasons()[0] == "TemplateChanged"
    assert airflow.strange() == []
    airflow.kill_one_of_each()
    started = {change["from"]["limit"] for change in airflow.status()["history"][:2]}
    assert started == {"900Mi"}, "tuning starts from the new template"
    answers = {change["to"]["limit"] for change in airflow.status()["history"][:2]}
    assert answers == {"1350Mi"}, "and answers a first kill"

    airflow.rollback("1")
    airflow.until(lambda: not airflow.entries(), "the entries are withdrawn")
    assert airflow.births() == {"700Mi": 4}
    assert airflow.strange() == []


def test_pods_are_born_tuned_while_our_chart_is_upgraded_and_rolled_back_and_no_longer_once_it_is_gone(
    release: Tuned,
) -> None:
    airflow, tuner = release.airflow, release.tuner
    definition, policy = defined(airflow), written(airflow)
    with born_meanwhile(airflow) as births:
        tuner.upgrade("--set=resources.limits.memory=300Mi", "--set=admission.failurePolicy=Fail")
        tuner.helm("rollback")
        tuner.upgrade("--set=crds.enabled=false")
        if tuner.version == 3:
            # It looks for the definition, which was kept, only among the objects of the revision before.
            with pytest.raises(CommandFailed, match="no CustomResourceDefinition with the name"):
                tuner.helm("rollback")
        tuner.upgrade("--set=crds.enabled=true")
    assert births.keys() == {f"{RAISED} born"}
    assert defined(airflow) == definition
    assert written(airflow) == policy
    airflow.reborn()
    assert airflow.births() == {f"{RAISED} born": 4}
    airflow.kill_one_of_each()
    assert set(airflow.entries().values()) == {"2100Mi"}, "the operator goes on"

    policy = written(airflow)
    release.operator.stop()
    tuner.helm("uninstall", "--wait", "--timeout=20s")
    assert airflow.births() == {"2100Mi born": 4}, "running pods keep what they have"
    airflow.until(lambda: airflow.trial() == "700Mi", "admission is over")
    airflow.reborn()
    assert airflow.births() == {"700Mi": 4}
    assert airflow.strange() == []
    assert defined(airflow) == definition
    assert written(airflow) == policy
    airflow.kubectl("delete", "tuningpolicy", "airflow", "--timeout=5s")


def defined(airflow: HelmAirflow) -> tuple[Any, ...]:
    """Which definition it is, and what it says."""
    item = airflow.get("crd", DEFINITION)
    return item["metadata"]["uid"], item["spec"], item["metadata"].get("finalizers")


def written(airflow: HelmAirflow) -> str:
    """The policy as its user wrote it, and what was decided by it."""
    policy = airflow.get("tuningpolicy", "airflow")
    parts = (policy["metadata"]["uid"], policy["spec"], policy["status"]["tuned"], policy["status"]["history"])
    return json.dumps([*parts, policy["metadata"].get("finalizers")])
