"""The chart on the shared control plane, and an Airflow whose kubelet the tests play."""

import re
import zlib
from collections.abc import Callable, Iterator

import pytest

from testbed import operator_process
from testbed.controlplane import ControlPlane
from testbed.operator_process import Operator
from testbed.played_airflow import PlayedAirflow, played_airflow
from testbed.processes import Area

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="session")
def chart(control_plane: ControlPlane, needs: Callable[..., None]) -> ControlPlane:
    """The operator's chart, installed by Helm 4; its metrics source does not answer."""
    needs("helm")
    operator_process.install_chart(control_plane, NOWHERE, "--set", "admission.failurePolicy=Fail")
    return control_plane


@pytest.fixture
def airflow(chart: ControlPlane, request: pytest.FixtureRequest) -> Iterator[PlayedAirflow]:
    """A namespace of the test's own."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[5:45].strip("-")
    with played_airflow(chart, f"{words}-{zlib.crc32(request.node.name.encode()):08x}") as airflow:
        yield airflow


@pytest.fixture
def operator(area: Area, chart: ControlPlane, airflow: PlayedAirflow) -> Iterator[Operator]:
    """The operator, running with the chart's rights, for the test's namespace."""
    with Operator(area, chart, NOWHERE, [airflow.namespace]) as running:
        yield running
