"""A recreation with a value of one's own: to plant one that does not work."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from airflow_tuner import api, compose
from airflow_tuner.engine import Engine
from airflow_tuner.model import TargetDecision, Values, Workload
from airflow_tuner.recreation import Recreation
from airflow_tuner.restarts import Waiting
from airflow_tuner.store import Store
from testbed.docker_engine import DockerEngine

INTERVAL = api.EnvName.INTERVAL


def decided(workload: Workload, sizes: api.Sizes, **variables: str) -> api.Tuned:
    """A decision for a workload; the variables may have values that no decision has."""
    return api.Tuned(
        target=workload.target,
        component=workload.component,
        bounds=workload.component,
        decision=f"{workload.component}-12345678",
        since=datetime.now(UTC).isoformat(),
        container=workload.container,
        workload=workload.label,
        pod_labels=dict(workload.pod_labels),
        baseline=api.Baseline(),
        requests=sizes,
        limits=sizes,
        env=[api.EnvVar.model_construct(name=api.EnvName(name), value=value) for name, value in variables.items()],
    )


async def recreated(engine: DockerEngine, project: str, state: Path, value: str, *, until: float = 20) -> str:
    """Make the dag-processor of a project anew with another interval, as the tuner does.

    Returns why that was not done or was undone; empty when it has become healthy.
    """
    async with Engine(engine.address) as there:
        with Store(state) as store:
            items = await there.containers({compose.PROJECT: project})
            found = compose.workloads(items, store.known(), "3")
            workload = next(one for one in found if one.component == "dag-processor")
            tuned = decided(workload, api.Sizes(memory="200Mi"), **{INTERVAL: value})
            target = TargetDecision(workload, "dagProcessor", Values(), "", tuned=tuned)
            recreation = Recreation(there, store)
            why = await recreation.begin(Waiting(target, workload.pods[0], "an interval"), datetime.now(UTC))
            ends = asyncio.get_running_loop().time() + until
            while recreation.step is not None and asyncio.get_running_loop().time() < ends:
                await asyncio.sleep(0.3)
                why = await recreation.settle(datetime.now(UTC))
            assert recreation.step is None, "it is still under way"
            return why
