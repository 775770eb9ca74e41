"""A DAG whose task writes a large file and reads it again and again: page cache, and hardly any memory of its own."""

# Airflow lives in an environment of its own, so its types are unknown here.
# mypy: disable-error-code="import-not-found,untyped-decorator"

import os
import time
from pathlib import Path

try:
    from airflow.sdk import dag, get_current_context, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task
    from airflow.operators.python import get_current_context

MEBIBYTE = 2**20


@dag(schedule=None, catchup=False, params={"mebibytes": 1500, "seconds": 60})
def large_files() -> None:
    """Read a large file in pieces."""

    @task(retries=0)
    def read() -> int:
        params, size = get_current_context()["params"], 0
        # On the disk: a file in memory would be no page cache.
        file = Path(os.environ["AIRFLOW_HOME"]) / "logs" / "large_file"
        try:
            with file.open("wb") as new:
                for _ in range(params["mebibytes"]):
                    new.write(bytes(MEBIBYTE))
            until = time.monotonic() + params["seconds"]
            while time.monotonic() < until:
                with file.open("rb") as old:
                    while piece := old.read(MEBIBYTE):
                        size += len(piece)
        finally:
            file.unlink(missing_ok=True)
        return size

    read()


large_files()
