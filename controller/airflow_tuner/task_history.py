"""What a metrics source remembers of tasks that have pods of their own."""

from airflow_tuner import api, prometheus, signals, task_runs
from airflow_tuner.errors import TunerError
from airflow_tuner.prometheus import Prometheus
from airflow_tuner.task_runs import TaskRuns


async def past_of_tasks(
    source: Prometheus | None, spec: api.Spec, namespace: str, patience: float | None
) -> tuple[tuple[TaskRuns, ...], int | None]:
    """The runs of each task, and of how many tasks there are any; nothing where it is not asked, or not answered."""
    if source is None or spec.tasks is None:
        return (), None
    try:
        found = await source.ask(signals.TASK_RUNS, prometheus.scope(spec.metrics, namespace), patience)
    except TunerError:
        # What was recommended before stays in the status; what else there is to ask says what is wrong with the source.
        return (), None
    values = signals.parted(found, signals.TASK_RUNS)
    return task_runs.read(values), task_runs.groups(values)
