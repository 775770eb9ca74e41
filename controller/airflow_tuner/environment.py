"""Airflow's options as the environment of a container: which variable says what, by Airflow line and component. Pure.

The names of one line are silently ignored by the other. Nothing of it is read again by a living process.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

from airflow_tuner import api
from airflow_tuner.model import Values

NAMES = frozenset(api.EnvName)
INTERVAL = {"2": api.EnvName.INTERVAL_2, "3": api.EnvName.INTERVAL}
PROCESSES = {"2": api.EnvName.PROCESSES_2, "3": api.EnvName.PROCESSES}


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
