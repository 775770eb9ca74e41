"""A DAG that adds up a column of a table with pandas: of the whole file at once, or chunk by chunk."""

# Airflow lives in an environment of its own, so its types are unknown here.
# mypy: disable-error-code="import-not-found,import-untyped,untyped-decorator"

import os
from pathlib import Path

try:
    from airflow.sdk import dag, get_current_context, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task
    from airflow.operators.python import get_current_context


# `lines` of the file, some 24 bytes each; `chunk` is how many are read at a time, 0: all.
@dag(schedule=None, catchup=False, params={"lines": 9_000_000, "chunk": 0})
def tables() -> None:
    """Write a table, and read it."""

    @task(retries=0)
    def add_up() -> int:
        # Here, and not above: the file would be parsed for as long as that takes, again and again.
        import pandas as pd

        params = get_current_context()["params"]
        file = Path(os.environ["AIRFLOW_HOME"]) / "logs" / "table.csv"
        try:
            with file.open("w") as new:
                new.write("number,name\n")
                new.writelines(f"{number},customer {number}\n" for number in range(params["lines"]))
            if chunk := params["chunk"]:
                return sum(int(part["number"].sum()) for part in pd.read_csv(file, chunksize=chunk))
            return int(pd.read_csv(file)["number"].sum())
        finally:
            file.unlink(missing_ok=True)

    add_up()


tables()
