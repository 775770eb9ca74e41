"""The operator against a real API server, with the chart's own rights; Prometheus is stopped throughout."""

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from testbed import deaths
from testbed.controlplane import ControlPlane
from testbed.operator_process import NAMESPACE, RELEASE, Operator
from testbed.played_airflow import PlayedAirflow
from testbed.processes import Area

RESOURCES = {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "700Mi"}}


def eventually(check: Callable[[], Any], what: str, seconds: float = 20) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain until {what}"
        time.sleep(0.1)


def condition(airflow: PlayedAirflow, kind: str) -> dict[str, Any]:
    """One condition of the policy."""
    return next((item for item in airflow.status().get("conditions", []) if item["type"] == kind), {})


def worked(airflow: PlayedAirflow) -> bool:
    """A turn was finished."""
    return condition(airflow, "Ready").get("status") == "True"


def deployed(airflow: PlayedAirflow, replicas: int = 2) -> None:
    """Workers that run."""
    airflow.deploy("worker", replicas, RESOURCES)
    eventually(lambda: len(airflow.pods()) == replicas, "the pods are there")
    airflow.run_all()


def test_a_killed_container_raises_the_limit_of_every_worker_in_place(
    airflow: PlayedAirflow, operator: Operator
) -> None:
    deployed(airflow, 3)
    airflow.policy()
    eventually(lambda: worked(airflow), "a turn is done")
    airflow.kill(airflow.pods()[0])
    eventually(lambda: airflow.limits() == {"1050Mi"}, f"all pods have it\n{operator.log()}")
    assert condition(airflow, "Converged")["status"] == "False", "not in force before the kubelet says so"
    airflow.run_all()
    eventually(lambda: condition(airflow, "Converged")["status"] == "True", "the kubelet's word is seen")
    told = airflow.kubectl("describe", "tuningpolicy", "airflow")
    assert "Memory limit 700 MiB -> 1050 MiB for all pods of Deployment/airflow-worker" in told
    assert "MetricsUnavailable" in told
    change = airflow.status()["history"][0]
    assert (change["from"], change["to"]) == (
        {"request": "512Mi", "limit": "700Mi"},
        {"request": "512Mi", "limit": "1050Mi"},
    )
    requests = {pod["spec"]["containers"][0]["resources"]["requests"]["memory"] for pod in airflow.pods()}
    assert requests == {"512Mi"}, "a kill asks for a limit, not for a reservation"


def test_a_pod_born_after_the_decision_is_tuned_and_the_template_stays_the_users(
    airflow: PlayedAirflow, operator: Operator
) -> None:
    deployed(airflow)
    airflow.policy()
    eventually(lambda: worked(airflow), "a turn is done")
    airflow.kill(airflow.pods()[0])
    eventually(lambda: airflow.limits() == {"1050Mi"}, f"the limit is raised\n{operator.log()}")
    operator.stop()
    airflow.kubectl("delete", "pods", "--all", "--grace-period=0", "--force")
    eventually(lambda: len(airflow.pods()) == 2, "new pods are born")
    for pod in airflow.pods():
        assert pod["spec"]["containers"][0]["resources"]["limits"]["memory"] == "1050Mi"
        assert pod["metadata"]["annotations"]["airflow-tuner.dev/original-memory"] == "request=512Mi,limit=700Mi"
    template = airflow.kubectl("get", "deployment", "airflow-worker", "-o", "json", "--show-managed-fields")
    assert '"700Mi"' in template
    assert "airflow-tuner" not in template


def test_recommend_says_what_it_would_do_and_touches_nothing(airflow: PlayedAirflow, operator: Operator) -> None:
    deployed(airflow)
    airflow.policy(mode="Recommend")
    eventually(lambda: worked(airflow), "a turn is done")
    airflow.kill(airflow.pods()[0])
    eventually(lambda: airflow.status()["targets"][0]["recommended"]["limit"] == "1050Mi", f"advised\n{operator.log()}")
    assert airflow.limits() == {"700Mi"}
    assert "tuned" not in airflow.status()
    assert "history" not in airflow.status()
    eventually(lambda: "Recommended" in airflow.kubectl("describe", "tuningpolicy", "airflow"), "an event says so")
    airflow.policy(mode="Enforce")
    eventually(lambda: airflow.limits() == {"1050Mi"}, f"enforced\n{operator.log()}")


def test_a_deleted_policy_is_gone_at_once_and_its_pods_are_left_as_they_are(
    airflow: PlayedAirflow, operator: Operator
) -> None:
    deployed(airflow)
    airflow.policy()
    eventually(lambda: worked(airflow), "a turn is done")
    assert "finalizers" not in airflow.get("tuningpolicy", "airflow")["metadata"]
    airflow.kubectl("delete", "tuningpolicy", "airflow", "--timeout=5s")
    airflow.kill(airflow.pods()[0])
    time.sleep(2)
    assert airflow.limits() == {"700Mi"}
    assert operator.program.running()


def test_a_paused_policy_holds_every_value(airflow: PlayedAirflow, operator: Operator) -> None:
    deployed(airflow)
    airflow.policy()
    eventually(lambda: worked(airflow), "a turn is done")
    airflow.kubectl("annotate", "tuningpolicy", "airflow", "airflow-tuner.dev/paused=true")
    eventually(lambda: "Paused" in str(airflow.status()["targets"]), f"the pause is seen\n{operator.log()}")
    airflow.kill(airflow.pods()[0])
    time.sleep(2)
    assert airflow.limits() == {"700Mi"}
    airflow.kubectl("annotate", "tuningpolicy", "airflow", "airflow-tuner.dev/paused-")
    eventually(lambda: airflow.limits() == {"1050Mi"}, f"the kill is answered after the pause\n{operator.log()}")


def test_a_changed_template_wins_over_what_was_tuned(airflow: PlayedAirflow, operator: Operator) -> None:
    deployed(airflow)
    airflow.policy()
    eventually(lambda: worked(airflow), "a turn is done")
    airflow.kill(airflow.pods()[0])
    eventually(lambda: airflow.limits() == {"1050Mi"}, f"the limit is raised\n{operator.log()}")
    airflow.deploy("worker", 2, {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "900Mi"}})
    eventually(lambda: "tuned" not in airflow.status(), f"the entry is withdrawn\n{operator.log()}")
    eventually(lambda: "900Mi" in airflow.limits(), "new pods have the user's value")
    assert airflow.status()["history"][0]["reason"] == "TemplateChanged"


@pytest.mark.parametrize("call", ["PUT /status", "PUT tuningcheckpoints/airflow", "PATCH /resize", "POST /events"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_operator_killed_in_the_middle_of_a_turn_ends_in_the_same_state(
    airflow: PlayedAirflow, area: Area, chart: ControlPlane, when: str, call: str
) -> None:
    deployed(airflow, 1)
    airflow.policy()
    account = chart.kubeconfig_for_service_account(NAMESPACE, RELEASE, area.path / f"{airflow.namespace}.kubeconfig")
    assert deaths.turn(airflow, account, "never")[0] == 0
    airflow.kill(airflow.pods()[0])
    assert deaths.turn(airflow, account, f"{when}:{call}")[0] == deaths.KILLED
    for _ in range(3):
        assert deaths.turn(airflow, account, "never")[0] == 0
    assert deaths.outcome(airflow) == deaths.WANTED


def test_of_two_operators_only_one_acts(
    airflow: PlayedAirflow, operator: Operator, area: Area, chart: ControlPlane
) -> None:
    second = Operator(area, chart, "http://127.0.0.1:9", [airflow.namespace], identity="second")
    second.program.start()
    try:
        eventually(lambda: "waiting: operator" in second.log(), "the second one waits")
        operator.stop()
        eventually(lambda: "second is the operator that acts" in second.log(), "it takes over at once", 10)
    finally:
        second.stop()


def test_it_ends_when_it_is_told_to_and_does_not_begin_anew(airflow: PlayedAirflow, operator: Operator) -> None:
    airflow.policy()
    eventually(lambda: condition(airflow, "TargetsFound"), "its first turn")
    os.kill(operator.program.pid, signal.SIGTERM)
    eventually(lambda: not operator.program.running(), f"it ends\n{operator.log()}", 10)
    assert operator.log().count("is the operator that acts") == 1
    holder = airflow.control_plane.kubectl(
        "get", "lease", "airflow-tuner", f"--namespace={NAMESPACE}", "--output=jsonpath={.spec.holderIdentity}"
    )
    assert holder == "", "it has given up the lease"


def test_the_user_is_told_what_the_policy_names_and_the_namespace_has_not(
    airflow: PlayedAirflow, operator: Operator
) -> None:
    airflow.policy(triggerer={"memory": {"min": "256Mi", "max": "1Gi"}})
    eventually(lambda: condition(airflow, "TargetsFound").get("status") == "False", f"it is said\n{operator.log()}")
    said = condition(airflow, "TargetsFound")["message"]
    assert "triggerer" in said
    assert "kubectl get deploy,sts -l tier=airflow,release=airflow" in said
