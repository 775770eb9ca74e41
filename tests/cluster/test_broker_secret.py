"""The broker's Secret on a real API server: said once what is missing, while memory tuning goes on."""

import json

import pytest

from cluster.test_operator import condition, deployed, eventually, worked
from testbed.operator_process import NAMESPACE, RELEASE, Operator
from testbed.played_airflow import PlayedAirflow
from testbed.processes import free_port

CELERY = {"brokerSecretRef": {"name": "airflow-broker-url", "key": "connection"}}
PASSWORD = "nobody-may-read-this"  # noqa: S105 - of no server


def permit(airflow: PlayedAirflow) -> None:
    """What the chart's value celery.brokerSecrets makes: the right to read this one Secret."""
    rule = {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["airflow-broker-url"], "verbs": ["get"]}
    group = "rbac.authorization.k8s.io"
    account = {"kind": "ServiceAccount", "name": RELEASE, "namespace": NAMESPACE}
    airflow.apply({"apiVersion": f"{group}/v1", "kind": "Role", "metadata": {"name": "broker"}, "rules": [rule]})
    airflow.apply(
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "broker"},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "broker"},
            "subjects": [account],
        }
    )


def secret(airflow: PlayedAirflow, **values: str) -> None:
    """The Secret with these values."""
    metadata = {"name": "airflow-broker-url"}
    airflow.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": values})


@pytest.mark.parametrize(
    ("permitted", "values", "told"),
    [
        (False, {"connection": "redis://"}, "name it in the chart's value celery.brokerSecrets"),
        (True, None, "There is no Secret airflow-broker-url (spec.celery.brokerSecretRef) in the namespace"),
        (True, {"other": "redis://"}, "There is no key connection in the Secret airflow-broker-url"),
        (True, {"connection": f"redis://:{PASSWORD}@127.0.0.1:{free_port()}/0"}, "broker"),
        (True, {"connection": f"postgresql://a:{PASSWORD}@h/d"}, "broker"),
    ],
    ids=["not-permitted", "not-there", "no-key", "nobody-listens", "no-broker"],
)
def test_a_broker_that_cannot_be_used_is_told_once_and_memory_is_tuned(
    airflow: PlayedAirflow, operator: Operator, permitted: bool, values: dict[str, str] | None, told: str
) -> None:
    if permitted:
        permit(airflow)
    if values is not None:
        secret(airflow, **values)
    deployed(airflow)
    airflow.policy(celery=CELERY)
    eventually(lambda: worked(airflow), f"a turn is done\n{operator.log()}")
    eventually(lambda: condition(airflow, "BrokerAvailable").get("status") == "False", "it is said")
    assert told in condition(airflow, "BrokerAvailable")["message"]
    airflow.kill(airflow.pods()[0])
    eventually(lambda: airflow.limits() == {"1050Mi"}, f"memory is tuned\n{operator.log()}", 30)
    items = json.loads(airflow.kubectl("get", "events.events.k8s.io", "-o", "json"))["items"]
    assert len([item for item in items if item["reason"] == "BrokerUnavailable"]) == 1
    everything = operator.log() + airflow.kubectl("get", "events,tuningpolicies", "-o", "yaml")
    assert PASSWORD not in everything
    assert "Traceback" not in operator.log()
