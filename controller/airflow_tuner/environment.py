"""Airflow's options as the environment of a container: which variable says what, by Airflow line and component. Pure.

The names of one line are silently ignored by the other. Nothing of it is read again by a living process.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from itertools import pairwise

from airflow_tuner import api
from airflow_tuner.model import Values

NAMES = frozenset(api.EnvName)
INTERVAL = {"2": api.EnvName.INTERVAL_2, "3": api.EnvName.INTERVAL}
PROCESSES = {"2": api.EnvName.PROCESSES_2, "3": api.EnvName.PROCESSES}

_KEPT = (
    "MIN_FILE_PROCESS_INTERVAL",
    "PARSING_PROCESSES",
    "FILE_PARSING_SORT_MODE",
    "MAX_CALLBACKS_PER_LOOP",
    "PRINT_STATS_INTERVAL",
    "STALE_DAG_THRESHOLD",
)
"""Options that moved from [scheduler] to [dag_processor] under the same key, without a deprecation."""

IGNORED: Mapping[str, Mapping[str, str]] = {
    "3": {
        **{f"AIRFLOW__SCHEDULER__{key}": f"AIRFLOW__DAG_PROCESSOR__{key}" for key in _KEPT},
        "AIRFLOW__SCHEDULER__SCHEDULER_ZOMBIE_TASK_THRESHOLD": "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT",
        "AIRFLOW__SCHEDULER__ZOMBIE_DETECTION_INTERVAL": (
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL"
        ),
        "AIRFLOW__SCHEDULER__LOCAL_TASK_JOB_HEARTBEAT_SEC": "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC",
    },
    "2": {
        **{f"AIRFLOW__DAG_PROCESSOR__{key}": f"AIRFLOW__SCHEDULER__{key}" for key in _KEPT},
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "AIRFLOW__SCHEDULER__DAG_DIR_LIST_INTERVAL",
        "AIRFLOW__DAG_PROCESSOR__PARSING_PRE_IMPORT_MODULES": "AIRFLOW__SCHEDULER__PARSING_PRE_IMPORT_MODULES",
        "AIRFLOW__DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": "AIRFLOW__CORE__DAG_FILE_PROCESSOR_TIMEOUT",
        "AIRFLOW__TRIGGERER__CAPACITY": "AIRFLOW__TRIGGERER__DEFAULT_CAPACITY",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "AIRFLOW__SCHEDULER__SCHEDULER_ZOMBIE_TASK_THRESHOLD",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": (
            "AIRFLOW__SCHEDULER__ZOMBIE_DETECTION_INTERVAL"
        ),
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "AIRFLOW__SCHEDULER__LOCAL_TASK_JOB_HEARTBEAT_SEC",
    },
}
"""By Airflow line: variables of the other line that this one ignores without a word, and what it reads instead.

Each was set on Airflow 3.3.2 or 2.11.2, and what it should set was read. Not here: those that Airflow 3 still takes
under their old name (`AIRFLOW__SCHEDULER__DAG_DIR_LIST_INTERVAL`, `AIRFLOW__SCHEDULER__PARSING_PRE_IMPORT_MODULES`,
`AIRFLOW__CORE__DAG_FILE_PROCESSOR_TIMEOUT`, `AIRFLOW__TRIGGERER__DEFAULT_CAPACITY`)."""


def ignored(names: Collection[str], line: str | None) -> dict[str, str]:
    """Of these variables those that do nothing on this line, with what to set instead, unless that is set too."""
    return {old: new for old, new in IGNORED.get(line or "", {}).items() if old in names and new not in names}


def stated(component: str, environment: Mapping[str, str], line: str | None) -> Values:
    """What these variables set, as far as they say it in plain numbers."""
    if component == "worker":
        # "max,min": Celery prefers it to the fixed number.
        most = environment.get(api.EnvName.AUTOSCALE, "").partition(",")[0]
        return Values(concurrency=_number(most) or _number(environment.get(api.EnvName.CONCURRENCY, "")))
    if component == "dag-processor" and line is not None:
        return Values(
            interval=_number(environment.get(INTERVAL[line], "")),
            processes=_number(environment.get(PROCESSES[line], "")),
        )
    return Values()


def stated_by(component: str, environment: Mapping[str, str], args: list[str], line: str | None) -> Values:
    """The same, with what the command line says, which counts for more."""
    values, of_command = stated(component, environment, line), concurrency_of(args)
    return replace(values, concurrency=of_command) if component == "worker" and of_command else values


def concurrency_of(args: list[str]) -> int | None:
    """Slots as a worker's command line says them (`--concurrency 8`, `-c 8`, `--autoscale 8,2`)."""
    most = _option(args, ("-a", "--autoscale")) or ""
    return _number(most.partition(",")[0]) or _number(_option(args, ("-c", "--concurrency")) or "")


def queues_of(args: list[str], default: str) -> tuple[str, ...]:
    """Celery queues as a worker's command line says them (`--queues a,b`, `-q a`); else the default one."""
    told = _option(args, ("-q", "--queues")) or default
    return tuple(name.strip() for name in told.split(",") if name.strip())


def variables(component: str, values: Values, template: Values, line: str | None) -> tuple[api.EnvVar, ...]:
    """The variables that make `values` of what `template` says; nothing for what does not differ."""
    found: dict[api.EnvName, str] = {}
    if component == "worker" and values.concurrency not in {None, template.concurrency}:
        # Celery's autoscale with both ends the same: the number can then be changed while the worker runs.
        found[api.EnvName.CONCURRENCY] = f"{values.concurrency}"
        found[api.EnvName.AUTOSCALE] = f"{values.concurrency},{values.concurrency}"
    if component == "dag-processor" and line is not None:
        if values.interval not in {None, template.interval}:
            found[INTERVAL[line]] = f"{values.interval}"
        if values.processes not in {None, template.processes}:
            found[PROCESSES[line]] = f"{values.processes}"
    return tuple(api.EnvVar(name=name, value=value) for name, value in sorted(found.items()))


def applied(values: Values, env: tuple[api.EnvVar, ...], component: str, line: str | None) -> Values:
    """`values` with what these variables say put over them."""
    told = stated(component, {str(item.name): item.value for item in env}, line)
    return replace(
        values,
        concurrency=told.concurrency or values.concurrency,
        interval=told.interval or values.interval,
        processes=told.processes or values.processes,
    )


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[1-9][0-9]{0,5}", text.strip()) else None


def _option(args: list[str], names: tuple[str, ...]) -> str | None:
    """The value of an option in a command line, which may be one shell command in a single word (`bash -c "…"`).

    The last one counts, as it does for Airflow.
    """
    words = [*" ".join(args).split(), ""]
    found = None
    for word, following in pairwise(words):
        name, equals, value = word.partition("=")
        if name in names:
            found = value if equals else following
    return found
