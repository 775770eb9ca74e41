"""Runs of many short tasks that sleep, burn CPU or hold memory; nothing holds them back but what is in `DAGS`."""

# Airflow lives in an environment of its own, so its types are unknown here.
# mypy: disable-error-code="import-not-found,untyped-decorator"

import time
from datetime import timedelta

try:
    from airflow.sdk import dag, get_current_context, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task
    from airflow.operators.python import get_current_context

# Some things cannot come from a run's params, so there is one DAG for each: a pool, the DAG's own limit, retries.
DAGS = {
    "short_tasks": ("default_pool", 256, 0),
    "short_tasks_small_pool": ("small", 256, 0),
    "short_tasks_two_at_once": ("default_pool", 2, 0),
    "short_tasks_again": ("default_pool", 256, 5),
}

PARAMS = {
    "count": 20,  # how many tasks
    "seconds": 1,  # how long each one takes
    "burn": False,  # burn that many seconds of CPU in place of sleeping
    "mebibytes": 0,  # memory that each one holds, every page written
}


def define(dag_id: str, pool: str, at_once: int, retries: int) -> None:
    """Define the DAG that runs `count` tasks side by side in this pool, so many at once at most."""

    @dag(dag_id=dag_id, schedule=None, catchup=False, max_active_tasks=at_once, params=PARAMS)
    def short_tasks() -> None:
        @task(retries=0)
        def numbers() -> list[int]:
            return list(range(get_current_context()["params"]["count"]))

        @task(retries=retries, retry_delay=timedelta(seconds=15), pool=pool)
        def work(number: int) -> str:
            params = get_current_context()["params"]
            held = bytearray(b"\x01") * (params["mebibytes"] * 2**20)
            if params["burn"]:
                end = time.process_time() + params["seconds"]
                while time.process_time() < end:
                    pass
            else:
                time.sleep(params["seconds"])
            return f"task {number} held {len(held)} bytes"

        work.expand(number=numbers())

    short_tasks()


for name, its_own in DAGS.items():
    define(name, *its_own)
