"""Whatever is lost, status, checkpoint or both, nothing that was decided is undone; of two policies one acts."""

import json
from typing import Any

from cluster.test_operator import condition, deployed, eventually, worked
from testbed.operator_process import Operator
from testbed.played_airflow import PlayedAirflow


def tuned(airflow: PlayedAirflow, operator: Operator) -> None:
    """A worker whose limit was raised for a kill, and remembered."""
    deployed(airflow)
    airflow.policy()
    eventually(lambda: worked(airflow), "a turn is done")
    airflow.kill(airflow.pods()[0])
    eventually(lambda: airflow.limits() == {"1050Mi"}, f"the limit is raised\n{operator.log()}")
    eventually(lambda: history(memory(airflow)), f"it is remembered\n{operator.log()}")


def memory(airflow: PlayedAirflow) -> dict[str, Any]:
    """What the checkpoint remembers."""
    found = airflow.kubectl("get", "tuningcheckpoint", "airflow", "--ignore-not-found", "--output=json")
    return dict(json.loads(found)["memory"]) if found else {}


def history(status: dict[str, Any]) -> list[str]:
    """The limits of the history."""
    return [change["to"]["limit"] for change in status.get("history", [])]


def lose_the_status(airflow: PlayedAirflow) -> None:
    """As a restore from a backup without it does."""
    airflow.kubectl(
        "patch", "atp", "airflow", "--subresource=status", "--type=json", '-p=[{"op":"remove","path":"/status"}]'
    )


def test_a_lost_status_is_rebuilt_from_the_checkpoint(airflow: PlayedAirflow, operator: Operator) -> None:
    tuned(airflow, operator)
    before = airflow.status()
    operator.stop()
    lose_the_status(airflow)
    operator.start()
    eventually(lambda: worked(airflow), f"a turn is done\n{operator.log()}")
    after = airflow.status()
    assert (after["tuned"], after["history"]) == (before["tuned"], before["history"])


def test_a_lost_checkpoint_is_written_anew_from_the_status(airflow: PlayedAirflow, operator: Operator) -> None:
    tuned(airflow, operator)
    operator.stop()
    airflow.kubectl("delete", "tuningcheckpoint", "airflow")
    operator.start()
    eventually(lambda: history(memory(airflow)) == ["1050Mi"], f"it is there again\n{operator.log()}")
    assert history(airflow.status()) == ["1050Mi"]


def test_with_both_lost_what_the_pods_have_is_adopted(airflow: PlayedAirflow, operator: Operator) -> None:
    tuned(airflow, operator)
    operator.stop()
    lose_the_status(airflow)
    airflow.kubectl("delete", "tuningcheckpoint", "airflow")
    operator.start()
    eventually(lambda: airflow.status().get("tuned"), f"it is adopted\n{operator.log()}")
    assert airflow.status()["tuned"][0]["limits"] == {"memory": "1050Mi"}
    assert "Adopted from 2 pods" in airflow.status()["history"][0]["message"]
    assert airflow.limits() == {"1050Mi"}


def test_the_checkpoint_goes_with_its_policy(airflow: PlayedAirflow, operator: Operator) -> None:
    tuned(airflow, operator)
    airflow.kubectl("delete", "tuningpolicy", "airflow")
    eventually(lambda: not memory(airflow), "it is collected")


def test_of_two_policies_for_one_airflow_the_older_acts_and_the_younger_takes_over(
    airflow: PlayedAirflow, operator: Operator
) -> None:
    tuned(airflow, operator)
    second = {
        "apiVersion": "airflow-tuner.dev/v1alpha1",
        "kind": "TuningPolicy",
        "metadata": {"name": "younger"},
        "spec": {
            "mode": "Enforce",
            "airflow": {"release": "airflow"},
            "workers": [{"name": "*", "memory": {"min": "2000Mi", "max": "4Gi"}}],
        },
    }
    airflow.apply(second)

    def ready() -> dict[str, Any]:
        told = airflow.get("tuningpolicy", "younger").get("status", {}).get("conditions", [])
        return next((item for item in told if item["type"] == "Ready"), {})

    eventually(lambda: ready().get("reason") == "AnotherPolicyActs", f"it is said\n{operator.log()}")
    assert airflow.limits() == {"1050Mi"}
    assert "tuned" not in airflow.get("tuningpolicy", "younger")["status"]
    assert condition(airflow, "Ready")["status"] == "True"
    airflow.kubectl("delete", "tuningpolicy", "airflow")
    eventually(lambda: airflow.limits() == {"2000Mi"}, "the younger one acts", 60)
