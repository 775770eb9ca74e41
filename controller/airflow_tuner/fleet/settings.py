"""What a component reads from its environment at its start. A name of the other line says nothing to it."""

from collections.abc import Mapping

PARSING_SECTION = {"2": "SCHEDULER", "3": "DAG_PROCESSOR"}
SCAN = {"2": "AIRFLOW__SCHEDULER__DAG_DIR_LIST_INTERVAL", "3": "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL"}


def slots(environment: Mapping[str, str]) -> tuple[int, bool]:
    """A worker's slots, and whether they can be changed while it runs. Autoscale wins over concurrency."""
    both = environment.get("AIRFLOW__CELERY__WORKER_AUTOSCALE", "").split(",")
    if len(both) == 2 and all(part.strip().isdecimal() and int(part) > 0 for part in both):  # noqa: PLR2004 - max,min
        return max(int(part) for part in both), True
    return _number(environment, "AIRFLOW__CELERY__WORKER_CONCURRENCY", 16), False


def parsing(environment: Mapping[str, str], line: str) -> tuple[int, int, int]:
    """A dag-processor's interval between two parses of a file, its processes, and the interval of its scans."""
    section = f"AIRFLOW__{PARSING_SECTION[line]}"
    return (
        _number(environment, f"{section}__MIN_FILE_PROCESS_INTERVAL", 30, least=0),
        _number(environment, f"{section}__PARSING_PROCESSES", 2),
        _number(environment, SCAN[line], 300),
    )


def parallelism(environment: Mapping[str, str], default: int) -> int:
    """Tasks that the scheduler hands out at once."""
    return _number(environment, "AIRFLOW__CORE__PARALLELISM", default)


def _number(environment: Mapping[str, str], name: str, default: int, least: int = 1) -> int:
    told = environment.get(name, "").strip()
    return int(told) if told.isdecimal() and int(told) >= least else default
