"""`airflow-tuner` with other constants: `python -m benchmarks.ablated concurrency.IDLE_MARGIN=9 replay --policy FILE`.

For ablations in this folder only: each argument before the command names a constant of the core and its value, a
number; a time is in seconds.
"""

import importlib
import sys
from datetime import timedelta

from airflow_tuner.__main__ import main


def patch(assignment: str) -> None:
    """Set one constant, which must be there, and be a number or a time."""
    path, _, text = assignment.partition("=")
    name, _, constant = path.rpartition(".")
    module = importlib.import_module(f"airflow_tuner.{name}")
    old = getattr(module, constant)
    if isinstance(old, timedelta):
        setattr(module, constant, timedelta(seconds=float(text)))
    elif isinstance(old, int | float):
        setattr(module, constant, type(old)(float(text)))
    else:
        raise SystemExit(f"{path} is no number.")


if __name__ == "__main__":
    while "=" in sys.argv[1]:
        patch(sys.argv.pop(1))
    main()
