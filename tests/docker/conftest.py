"""One Docker engine of its own for the tests here, and a tuner beside it."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from testbed import docker_engine
from testbed.docker_tuner import DockerTuner
from testbed.processes import Area

TunerFactory = Callable[..., DockerTuner]


@pytest.fixture(scope="session")
def machine() -> None:
    """Skip where no engine can run."""
    if missing := docker_engine.what_is_missing():
        pytest.skip(missing)


@pytest.fixture(scope="session")
def engine(area: Area, machine: None) -> Iterator[docker_engine.DockerEngine]:
    """An engine without containers."""
    del machine
    with docker_engine.DockerEngine(area) as running:
        yield running


@pytest.fixture
def project(engine: docker_engine.DockerEngine, request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a compose project of this test; its containers are removed with it."""
    name = request.node.name.replace("test_", "").replace("_", "")[:30]
    yield name
    found = engine.docker("ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={name}").split()
    if found:
        engine.docker("rm", "--force", "--volumes", *found)


@pytest.fixture
def tuner(
    area: Area, engine: docker_engine.DockerEngine, project: str, tmp_path: Path
) -> Iterator[Callable[..., DockerTuner]]:
    """Call it with fields of a spec: a tuner that runs."""
    started: list[DockerTuner] = []

    def start(spec: Mapping[str, Any], *options: str) -> DockerTuner:
        started.append(DockerTuner(area, tmp_path, engine.address, project, spec, *options).start())
        return started[-1]

    yield start
    for one in started:
        one.stop()
