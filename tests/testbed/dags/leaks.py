"""A DAG whose task leaks: whatever it does, it holds some more memory each second, and never gives it back."""

# Airflow lives in an environment of its own, so its types are unknown here.
# mypy: disable-error-code="import-not-found,untyped-decorator"

import time

try:
    from airflow.sdk import dag, get_current_context, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task
    from airflow.operators.python import get_current_context


@dag(schedule=None, catchup=False, params={"kibibytes": 512, "seconds": 600})
def leaks() -> None:
    """Leak so many KiB a second."""

    @task(retries=0)
    def leak() -> int:
        params, kept = get_current_context()["params"], []
        until = time.monotonic() + params["seconds"]
        while time.monotonic() < until:
            kept.append(bytearray(b"\x01") * (params["kibibytes"] * 2**10))
            time.sleep(1)
        return len(kept)

    leak()


leaks()
