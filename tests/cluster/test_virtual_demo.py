"""The demo of machines without a real node, its first act: the one that must not fail."""

import json
from collections.abc import Callable

from testbed import virtual_demo
from testbed.operator_process import Operator, install_chart
from testbed.virtual_airflow import PROGRAMS, release_values, virtual_airflow


def test_a_task_that_loads_too_much_is_healed_on_a_virtual_airflow(needs: Callable[..., None]) -> None:
    needs(*PROGRAMS)
    fleet = virtual_demo.fleet_of(7)
    limit, size = virtual_demo.drawn(7, fleet.laws)
    values = release_values(virtual_demo.WORKERS, virtual_demo.SLOTS, limit)
    with virtual_airflow(fleet, values, housekeeping_seconds=1) as airflow:
        install_chart(airflow.control_plane, airflow.prometheus.url)
        with Operator(airflow.area, airflow.control_plane, airflow.prometheus.url, [airflow.namespace]):
            airflow.kubectl("apply", "-f", "-", input=json.dumps(virtual_demo.quick_policy()))
            virtual_demo.heal(airflow, size)
            assert virtual_demo.limits(airflow) == {f"{int(1.5 * limit)}Mi"}
        (change,) = airflow.policy_status()["history"]
        assert (change["reason"], change["target"]) == ("OutOfMemory", "worker/default")
