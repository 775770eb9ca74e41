"""Runs of deferred tasks: each of them takes a place of the triggerer's capacity and no slot."""

# Airflow lives in an environment of its own, so its types are unknown here.
# mypy: disable-error-code="import-not-found,misc,untyped-decorator"

from datetime import timedelta
from typing import Any

try:
    from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
    from airflow.sdk import BaseOperator, dag
except ImportError:  # Airflow 2
    from airflow.decorators import dag
    from airflow.models.baseoperator import BaseOperator
    from airflow.triggers.temporal import TimeDeltaTrigger

TASKS = 8


class Wait(BaseOperator):
    """Waits without a slot."""

    def execute(self, context: Any) -> None:  # noqa: ANN401 - Airflow's
        """Defer it by the run's `seconds`."""
        seconds = context["params"]["seconds"]
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=seconds)), method_name="done")

    def done(self, context: Any, event: Any = None) -> None:  # noqa: ANN401 - Airflow's
        """Do nothing: the time is over."""


@dag(schedule=None, catchup=False, params={"seconds": 300})
def long_waits() -> None:
    """Wait with all tasks at once."""
    for number in range(TASKS):
        Wait(task_id=f"wait_{number}", retries=0)


long_waits()
