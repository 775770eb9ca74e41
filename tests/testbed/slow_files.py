"""DAG files that burn CPU whenever they are parsed: load for the dag-processor."""

from testbed.airflow_client import AirflowClient

_TEXT = """\
import time

try:
    from airflow.sdk import dag, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task

end = time.process_time() + {cpu_seconds}
while time.process_time() < end:
    pass


@dag(schedule=None)
def {name}():
    @task
    def nothing(): pass
    nothing()


{name}()
"""


def write(airflow: AirflowClient, count: int, cpu_seconds: float) -> None:
    """Have exactly `count` of them, each with one trivial DAG and this much CPU at every parse."""
    remove(airflow)
    for number in range(count):
        name = f"slow_{number:03}"
        airflow.write_dag(f"{name}.py", _TEXT.format(name=name, cpu_seconds=cpu_seconds))


def remove(airflow: AirflowClient) -> None:
    """Remove all of them; Airflow forgets their DAGs by and by."""
    for file in airflow.dags.glob("slow_*.py"):
        file.unlink()
