"""A DAG that reads everything at once: its task holds as much memory as it is told to, then returns."""

# Airflow lives in an environment of its own, so its types are unknown here.
# mypy: disable-error-code="import-not-found,untyped-decorator"

import logging
import time
from datetime import timedelta

try:
    from airflow.sdk import dag, get_current_context, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task
    from airflow.operators.python import get_current_context


# `mebibytes` is the memory to hold, every page written; `hold_seconds` how long to hold it.
@dag(schedule=None, catchup=False, params={"mebibytes": 100, "hold_seconds": 5})
def load_everything() -> None:
    """Load everything at once."""

    @task(retries=4, retry_delay=timedelta(seconds=15))
    def load() -> int:
        params = get_current_context()["params"]
        logging.getLogger("airflow.task").info("loading %d MiB at once", params["mebibytes"])
        everything = bytearray(b"\x01") * (params["mebibytes"] * 2**20)
        time.sleep(params["hold_seconds"])
        return len(everything)

    load()


load_everything()
