"""What holds a real Airflow up is named, and nothing else is; `make prove CASE=causes` brings all causes about."""

from testbed import operator_process
from testbed.causes import DAG, USUAL
from testbed.operator_process import MAY_READ_BROKER, Operator
from testbed.real_airflow import RealAirflow
from testbed.slot_experiments import apply_policy, settle

POOL = next(cause for cause in USUAL if "PoolExhausted" in cause.wanted)


def test_a_full_pool_is_named_and_no_other_cause(real: RealAirflow) -> None:
    operator_process.install_chart(real.control_plane, real.prometheus.url, *MAY_READ_BROKER)
    with Operator(real.area, real.control_plane, real.prometheus.url, [real.airflow.namespace]):
        apply_policy(real, mode="Recommend")
        real.airflow.wait_for_dag(DAG)
        settle(real)
        before = reasons(real)
        take_away = POOL.bring_about(real)
        try:
            real.airflow.wait_until(lambda: POOL.found(real.policy_status().get("findings", [])), "it to be named", 120)
            assert reasons(real) - before == {"QueueLagHigh"}
        finally:
            take_away()
        real.airflow.wait_until(lambda: reasons(real) <= before, "the finding to end", 120)


def reasons(real: RealAirflow) -> set[str]:
    """What is found."""
    return {item["reason"] for item in real.policy_status().get("findings", [])}
