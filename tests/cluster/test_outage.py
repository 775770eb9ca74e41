"""The API server goes away and comes back: the operator neither dies nor acts on what it remembers."""

import time
from collections.abc import Callable

from testbed import operator_process
from testbed.controlplane import ControlPlane
from testbed.operator_process import Operator
from testbed.played_airflow import played_airflow
from testbed.processes import Area

NOWHERE = "http://127.0.0.1:9"
RESOURCES = {"requests": {"memory": "512Mi"}, "limits": {"memory": "700Mi"}}
LONGER_THAN_THE_LEASE = 17.0


def eventually(check: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not check():
        assert time.monotonic() < deadline, f"waited 30 s in vain for {what}"
        time.sleep(0.2)


def test_an_operator_outlives_an_outage_of_the_api_server_and_goes_on(needs: Callable[..., None]) -> None:
    needs("control-plane", "helm")
    area = Area("outage")
    try:
        with ControlPlane(area) as plane:
            operator_process.install_chart(plane, NOWHERE)
            with played_airflow(plane, "outage") as airflow, Operator(area, plane, NOWHERE, ["outage"]) as operator:
                airflow.deploy("worker", 1, RESOURCES)
                eventually(lambda: len(airflow.pods()) == 1, "the pod")
                airflow.run_all()
                airflow.policy()
                eventually(lambda: bool(airflow.status()), f"a first turn\n{operator.log()}")
                plane.stop_api_server()
                time.sleep(LONGER_THAN_THE_LEASE)
                assert operator.program.running(), operator.log()
                assert "the lease is lost" in operator.log(), "it does nothing that another one might do too"
                plane.start_api_server()
                airflow.kill(airflow.pods()[0])
                eventually(lambda: airflow.limits() == {"1050Mi"}, f"the answer\n{operator.log()}")
                assert "Traceback" not in operator.log()
    finally:
        area.clean()
