"""One real Airflow on a real node for nearly every test here; it starts when the first test asks for it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import pytest

from testbed.airflow import Airflow
from testbed.airflow_environment import CannotInstall, airflow_environment
from testbed.airflow_lines import AIRFLOW_3, Line
from testbed.controlplane import ControlPlane
from testbed.node import Node, what_is_missing
from testbed.prometheus import Prometheus
from testbed.real_airflow import PROGRAMS, RealAirflow, real_airflow

# Two slots need about 430 MiB; the rest is room for a task.
VALUES = {
    "workers": {"resources": {"requests": {"memory": "600Mi"}, "limits": {"memory": "900Mi"}}},
    "dagProcessor": {"resources": {"requests": {"memory": "256Mi"}, "limits": {"memory": "512Mi"}}},
    "config": {"celery": {"worker_concurrency": 2}},
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests that start a node of their own first (Airflow 2 too): a machine has room for one at a time."""
    items.sort(key=lambda item: "real" in getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session")
def machine() -> None:
    """Skip where this machine cannot be a real node."""
    if missing := what_is_missing():
        pytest.skip(missing)


@pytest.fixture(scope="session")
def running(
    machine: None, needs: Callable[..., None], request: pytest.FixtureRequest
) -> Callable[[Line], AbstractContextManager[RealAirflow]]:
    """Call it with a line of Airflow: everything of a real one, running, with its start in sight."""
    del machine
    needs(*PROGRAMS)
    capture = request.config.pluginmanager.getplugin("capturemanager")

    @contextmanager
    def run(line: Line) -> Iterator[RealAirflow]:
        with ExitStack() as stack:
            with capture.global_and_fixture_disabled():
                try:
                    airflow_environment(line)
                except CannotInstall as error:
                    pytest.skip(str(error))
                real = stack.enter_context(real_airflow(VALUES, line=line, scrape_interval="2s"))
            yield real

    return run


@pytest.fixture(scope="session")
def real(running: Callable[[Line], AbstractContextManager[RealAirflow]]) -> Iterator[RealAirflow]:
    """Everything of a real Airflow 3, running."""
    with running(AIRFLOW_3) as started:
        yield started


@pytest.fixture(scope="session")
def airflow(real: RealAirflow) -> Airflow:
    """Airflow in the node's pods."""
    return real.airflow


@pytest.fixture(scope="session")
def node(real: RealAirflow) -> Node:
    """The node."""
    return real.node


@pytest.fixture(scope="session")
def control_plane(real: RealAirflow) -> ControlPlane:
    """The control plane of the node."""
    return real.control_plane


@pytest.fixture(scope="session")
def prometheus(real: RealAirflow) -> Prometheus:
    """Prometheus, which scrapes the node's cAdvisor and Airflow's exporter every 2 s."""
    return real.prometheus
