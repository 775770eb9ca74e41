"""The main job on real components: killed for memory, corrected in place, the retry succeeds."""

from collections.abc import Iterator

import pytest

from testbed import demo, experiments, operator_process
from testbed.operator_process import Operator
from testbed.real_airflow import RealAirflow


@pytest.fixture(scope="module")
def operator(real: RealAirflow) -> Iterator[Operator]:
    """The operator with the chart's rights, and a policy that enforces."""
    operator_process.install_chart(real.control_plane, real.prometheus.url, "--set", "admission.failurePolicy=Fail")
    real.control_plane.kubectl("apply", "-f", "-", input=experiments.POLICY)
    with Operator(real.area, real.control_plane, real.prometheus.url, [real.airflow.namespace]) as running:
        yield running


def test_a_task_that_loads_everything_succeeds_at_its_retry_without_a_restart_of_the_worker(
    real: RealAirflow, operator: Operator
) -> None:
    limit = 700
    real.airflow.upgrade(demo.values(limit))
    real.airflow.wait_until(real.airflow.healthy, "Airflow to be healthy", 120)
    line, tries, restarts = experiments.one_process_kill(real, size=520)
    assert tries == "try 1 failed, try 2 success", operator.log()
    assert restarts == 0
    status = real.policy_status()
    assert status["history"][0]["to"]["limit"] == "1050Mi"
    assert status["findings"][0]["reason"] == "OutOfMemory"
    assert line.moments["kill"] < line.moments["decided"] <= line.moments["in force"]


def test_an_upgrade_of_the_release_succeeds_after_tuning_and_its_values_win(
    real: RealAirflow, operator: Operator
) -> None:
    assert real.policy_status()["tuned"][0]["limits"]["memory"] == "1050Mi", "this test follows the one above"
    shown = real.control_plane.kubectl("get", "deployment", "-n", "airflow", "-o", "json", "--show-managed-fields")
    assert '"manager": "helm' in shown
    assert '"manager": "airflow-tuner"' not in shown
    real.airflow.upgrade(demo.values(760))
    real.airflow.wait_until(lambda: _limits(real) == {"760Mi"}, "the new pods with the user's value", 120)
    real.airflow.wait_until(lambda: "tuned" not in real.policy_status(), "the entry to be withdrawn", 30)
    assert real.policy_status()["history"][0]["reason"] == "TemplateChanged", operator.log()


def test_a_killed_container_is_answered_with_prometheus_stopped(real: RealAirflow, operator: Operator) -> None:
    real.prometheus.stop()
    try:
        experiments.one_container_kill(real, "eater")
    finally:
        real.prometheus.start()
    assert real.policy_status()["history"][0]["target"] == "worker/eater", operator.log()


def _limits(real: RealAirflow) -> set[str]:
    return {pod["spec"]["containers"][0]["resources"]["limits"]["memory"] for pod in real.airflow.pods("worker")}


def test_the_operator_has_logged_no_error(operator: Operator) -> None:
    assert "Traceback" not in operator.log()
    assert "ERROR" not in operator.log()
