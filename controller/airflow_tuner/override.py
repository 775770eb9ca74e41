"""What was decided as a file that docker compose lays over the project's own, so that the next `up` keeps it. Pure."""

from typing import Any

import yaml

from airflow_tuner import api, compose
from airflow_tuner.model import TargetDecision
from airflow_tuner.past import cpu_from_tuned, from_tuned
from airflow_tuner.room import DECISION

HEAD = "# Written by airflow-tuner, and written again with each change.\n"
"""The first line of our file: one without it is somebody's own."""


def text(targets: tuple[TargetDecision, ...]) -> str:
    """The file; it has no services where nothing differs from the project's own."""
    services = {one.workload.name: _service(one, one.tuned) for one in targets if one.tuned is not None}
    return HEAD + yaml.safe_dump({"services": services}, sort_keys=True, width=1000)


def _service(target: TargetDecision, tuned: api.Tuned) -> dict[str, Any]:
    """A service, with labels that say what its definition said before: that is what tuning starts from."""
    workload, memory, cpu = target.workload, from_tuned(tuned), cpu_from_tuned(tuned)
    base = compose.Baseline(workload.template.limit, workload.environment, workload.stated.cpu.limit)
    labels = {DECISION: tuned.decision, compose.ORIGINAL: base.written}
    told: dict[str, Any] = {"labels": {key: value.replace("$", "$$") for key, value in labels.items()}}
    if memory is not None and memory.limit is not None:
        told["mem_limit"] = memory.limit
    if cpu is not None and cpu.limit is not None:
        told["cpus"] = cpu.limit / 1000
    if tuned.env:
        told["environment"] = {str(one.name): one.value for one in tuned.env}
    return told
