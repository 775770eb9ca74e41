"""What is wrong before any worker is asked: what creates tasks, the scheduler, the database, the triggerer."""

from collections.abc import Iterator

from airflow_tuner import runaway
from airflow_tuner.diagnose.case import Case
from airflow_tuner.model import Finding, Severity
from airflow_tuner.sentence import short


def runaway_tasks(case: Case) -> Iterator[Finding]:
    """One DAG runs many times more tasks than it ever did on the day before."""
    found = runaway.found(case.seen.airflow.tasks)
    if found is not None:
        yield Finding(
            "RunawayTasks",
            Severity.WARNING,
            f"dag/{short(found.dag)}",
            f"{found.told} Slots are not raised meanwhile: more workers would only run it faster. Not meant: pause the "
            "DAG, and look at what triggers or maps it. Meant, such as a backfill: raise the workers' concurrency.min.",
            case.seen.at,
        )
