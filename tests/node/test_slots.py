"""The second knob on real Airflow: tasks wait, slots and memory rise while the worker runs, and fit at its birth."""

from collections.abc import Iterator

import pytest

from testbed import demo, operator_process, slot_experiments
from testbed.operator_process import MAY_READ_BROKER, Operator
from testbed.real_airflow import RealAirflow

TASKS = 30


@pytest.fixture(scope="module")
def operator(real: RealAirflow) -> Iterator[Operator]:
    """The operator with the chart's rights, and a policy that tunes slots."""
    operator_process.install_chart(
        real.control_plane, real.prometheus.url, "--set", "admission.failurePolicy=Fail", *MAY_READ_BROKER
    )
    slot_experiments.apply_policy(real)
    with Operator(real.area, real.control_plane, real.prometheus.url, [real.airflow.namespace]) as running:
        yield running
    real.control_plane.kubectl("delete", "tuningpolicy", "airflow", f"--namespace={real.airflow.namespace}")


def test_tasks_that_wait_on_two_slots_get_more_and_the_worker_lives_on(real: RealAirflow, operator: Operator) -> None:
    slot_experiments.settle(real)
    line = slot_experiments.lag_met(real, seconds=6, count=TASKS)
    before, after = line["slots"]
    assert before == demo.SLOTS < after, operator.log()
    assert (line["state"], line["tries"]) == ("success", {1}), "no task was lost or killed"
    assert (line["restarts"], line["same pod"]) == (0, True)
    assert line["decided"] <= line["in force"] <= line["objective met"]
    assert "tasks wait for 2 slots" in line["why"]


def test_a_worker_born_while_the_operator_is_stopped_has_slots_and_memory_that_fit(
    real: RealAirflow, operator: Operator
) -> None:
    (tuned,) = real.policy_status()["tuned"]
    operator.stop()
    try:
        old = real.airflow.pods("worker")[0]["metadata"]["name"]
        real.control_plane.kubectl("delete", "pod", old, f"--namespace={real.airflow.namespace}")
        real.airflow.wait_until(real.airflow.healthy, "a new worker", 120)
        (pod,) = real.airflow.pods("worker")
    finally:
        operator.start()
    container = pod["spec"]["containers"][0]
    env = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert {entry["name"]: entry["value"] for entry in tuned["env"]}.items() <= env.items()
    assert container["resources"]["limits"]["memory"] == tuned["limits"]["memory"]
    (slots,) = slot_experiments.slots_of(real).values()
    assert (f"{slots.processes}", slots.autoscaled) == (env["AIRFLOW__CELERY__WORKER_CONCURRENCY"], True)
    assert pod["metadata"]["annotations"]["airflow-tuner.dev/decision"] == tuned["decision"]


def test_the_operator_has_logged_no_error(operator: Operator) -> None:
    assert "Traceback" not in operator.log()
    assert "ERROR" not in operator.log()
