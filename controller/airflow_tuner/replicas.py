"""How many workers would meet the lag objective, where each of them has all the slots that it may have. Pure."""

import math

from airflow_tuner import autoscaler
from airflow_tuner.lag import Flow
from airflow_tuner.model import Observation, Workload
from airflow_tuner.sentence import counted, short
from airflow_tuner.telemetry import Tasks


def advised(found: Flow, slots: int, workload: Workload, seen: Observation, tasks: Tasks) -> str:
    """What is to be done about the number of workers with so many `slots` each, as a clause.

    By Little's law, as for slots; left to what scales them, where something does.
    """
    if scaler := autoscaler.scaler(seen.autoscalers_of(workload)):
        return f"leave more workers to the {short(scaler)}, as far as its maximum goes"
    wanted = max(found.workers + 1, math.ceil(found.asked / slots))
    capped = ""
    if tasks.parallelism is not None and wanted * slots > tasks.parallelism * seen.schedulers:
        capped = f", and core.parallelism, {tasks.parallelism} for each scheduler, must allow as many"
    return (
        f"run {counted(wanted, 'worker', 'workers')} instead of {found.workers}: {found.asked} slots are asked for in "
        f"all{capped}"
    )


def parallelism(found: Flow, seen: Observation) -> int:
    """The least core.parallelism that lets the slots that are asked for be busy."""
    return math.ceil(found.asked / seen.schedulers)
