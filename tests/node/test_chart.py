"""The chart's own pod on the real node: the operator as users run it."""

import json
from collections.abc import Iterator

import pytest

from testbed.operator_process import NAMESPACE, install_chart, install_chart_on_node
from testbed.real_airflow import RealAirflow

POLICY = """
apiVersion: airflow-tuner.dev/v1alpha1
kind: TuningPolicy
metadata: {name: airflow, namespace: airflow}
spec:
  airflow: {release: airflow}
  scheduler: {memory: {min: 64Mi, max: 4Gi}}
  workers: [{name: "*", memory: {min: 64Mi, max: 4Gi}}]
"""


@pytest.fixture
def installed(real: RealAirflow) -> Iterator[RealAirflow]:
    """The chart with its Deployment, and a policy that recommends; all of it is gone afterwards."""
    kubectl = real.control_plane.kubectl
    install_chart_on_node(real.control_plane, real.node, real.prometheus.url)
    kubectl("apply", "-f", "-", input=POLICY)
    try:
        yield real
    finally:
        kubectl("delete", "tuningpolicy", "airflow", "--namespace=airflow")
        install_chart(real.control_plane, real.prometheus.url)
        kubectl("wait", "--for=delete", "pods", "--all", f"--namespace={NAMESPACE}", "--timeout=30s")


def test_the_operators_pod_watches_a_real_airflow(installed: RealAirflow) -> None:
    def conditions() -> dict[str, str]:
        return {item["type"]: item["status"] for item in installed.policy_status().get("conditions", [])}

    def looks_well() -> bool:
        return [conditions().get(kind) for kind in ("Ready", "MetricsAvailable", "TargetsFound")] == ["True"] * 3

    installed.airflow.wait_until(looks_well, "the operator's first turns", 60)
    words = ("get", "pods", f"--namespace={NAMESPACE}", "--output=json")
    pod = json.loads(installed.control_plane.kubectl(*words))["items"][0]
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
    log = installed.control_plane.kubectl("logs", "deployment/airflow-tuner", f"--namespace={NAMESPACE}")
    assert f"{pod['metadata']['name']} is the operator that acts" in log
    assert "Traceback" not in log
