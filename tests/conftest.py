"""What tests of several tiers share: one area, one control plane, Prometheus servers; all of it stopped at the end."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import settings

from testbed.controlplane import ControlPlane
from testbed.processes import Area
from testbed.programs import CannotBuild, build, missing
from testbed.prometheus import Prometheus
from testbed.users_cluster import Unusable, UsersCluster, chosen

# `make test` plays the same examples each time, so that a change is judged by what it changed. Looking for new ones:
# AIRFLOW_TUNER_SEARCH=1 make test.
settings.register_profile("repeatable", derandomize=True)
if not os.environ.get("AIRFLOW_TUNER_SEARCH"):
    settings.load_profile("repeatable")

Needs = Callable[..., None]
PrometheusFactory = Callable[[Sequence[Mapping[str, Any]]], Prometheus]


@pytest.fixture(scope="session")
def area() -> Iterator[Area]:
    """Makes the folder of this test run; what killed runs left is removed first."""
    for sentence in Area.sweep():
        sys.stderr.write(sentence + "\n")
    area = Area("tests")
    yield area
    area.clean()


@pytest.fixture(scope="session")
def needs(request: pytest.FixtureRequest) -> Needs:
    """Call it with names of programs: builds those that are missing, in sight; skips where that is impossible."""

    def build_in_sight(*names: str) -> None:
        capture = request.config.pluginmanager.getplugin("capturemanager")
        try:
            if missing(names):
                with capture.global_and_fixture_disabled():
                    build(names)
        except CannotBuild as error:
            pytest.skip(str(error).splitlines()[0])

    return build_in_sight


@pytest.fixture(scope="session")
def control_plane(area: Area, needs: Needs) -> Iterator[ControlPlane]:
    """Runs a control plane without nodes, shared by all tests of the run: use a namespace of your own.

    Where AIRFLOW_TUNER_TEST_KUBECONFIG names a cluster of the user's, it is that one.
    """
    kubeconfig = chosen()
    needs("control-plane", *(["helm"] if kubeconfig else []))
    try:
        with ControlPlane(area) if kubeconfig is None else UsersCluster(area, kubeconfig) as running:
            yield running
    except Unusable as error:
        pytest.exit(str(error), returncode=2)


@pytest.fixture(scope="session")
def prometheus_factory(area: Area, needs: Needs) -> Iterator[PrometheusFactory]:
    """Call it with scrape configs: a Prometheus that runs until the end of the test run."""
    needs("prometheus")
    started: list[Prometheus] = []

    def start(scrape_configs: Sequence[Mapping[str, Any]]) -> Prometheus:
        started.append(Prometheus(area, scrape_configs, interval="1s").start())
        return started[-1]

    yield start
    for prometheus in started:
        prometheus.stop()
