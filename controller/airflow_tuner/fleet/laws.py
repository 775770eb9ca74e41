"""What Airflow costs, as measured on Airflow 3.3.2 and 2.11.2: memory in MiB, time in seconds, CPU in cores."""

import random
from dataclasses import dataclass, fields, replace

SPREAD = 0.15
"""Largest relative distance of a drawn law from the measured one."""

STRANDED_WITHIN = (300.0, 600.0)
"""Airflow's own timeouts (dead tasks, tasks that stay queued): no draw leaves them."""


@dataclass(frozen=True, slots=True)
class Laws:
    """The laws of one deployment. The defaults are those measured on Airflow 3.3.2."""

    # A worker's anonymous memory.
    worker_base: float = 255.0
    cold_slot: float = 21.3
    """A slot that has run no task yet."""
    warm_slot: float = 62.1
    """A slot that has run one, and idles."""
    busy_slot: float = 85.8
    """A slot whose task needs no memory of its own."""
    added_slot: float = 50.0
    """What a slot takes more that is added while the worker runs."""

    # Other components' anonymous memory.
    scheduler_base: float = 180.0
    dag_processor_base: float = 140.0
    parse_process: float = 38.0
    triggerer_base: float = 267.0
    api_server_base: float = 250.0
    other_base: float = 40.0

    # What all containers have.
    newborn_share: float = 0.5
    """Of the base, until the container is ready."""
    file_pages: float = 30.0
    """File-backed pages of the programs: counted as cache."""
    cache_growth: float = 60.0
    """Page cache of an hour of logs and DAG files."""
    active_cache: float = 0.3
    """Share of the page cache that counts into the working set."""
    probe: float = 130.0
    probe_seconds: float = 9.0
    probe_interval: float = 60.0
    probe_cpu: float = 0.3
    start_seconds: float = 20.0
    """From a container's start until it does its work."""
    start_cpu: float = 0.8
    idle_cpu: float = 0.03
    throttled_from: float = 0.8
    """Share of the CPU limit from which demand hits it in some periods; in all of them from as far above it."""

    # Tasks.
    overhead: float = 1.3
    """Seconds that a task holds its slot beyond its own."""
    overhead_cpu: float = 0.8
    """Cores in that time."""
    stranded_first: float = 307.0
    """Seconds until the first message of a dead worker comes back."""
    stranded_last: float = 550.0

    # The scheduler.
    loop_interval: float = 1.0
    loop_cpu: float = 0.05
    """CPU seconds of one loop: 0.03 to 0.8 measured, as there is to schedule."""
    query_seconds: float = 0.003
    """The critical query, as measured with and without the pools' table locked."""
    section_seconds: float = 0.006
    """The whole critical section."""
    tasks_per_query: int = 16

    @classmethod
    def measured(cls, line: str) -> "Laws":
        """The laws as measured, for a line: "2" or "3"."""
        if line == "3":
            return cls()
        if line != "2":
            raise ValueError(f"There is no Airflow line {line!r}.")
        return cls(
            worker_base=261.0,
            cold_slot=20.7,
            warm_slot=30.4,
            busy_slot=104.7,
            scheduler_base=146.0,
            dag_processor_base=105.0,
            parse_process=36.0,
            triggerer_base=172.0,
            overhead=0.6,
        )

    @classmethod
    def drawn(cls, seed: int, line: str) -> "Laws":
        """Laws around the measured ones, as on another machine and with other providers installed."""
        draw, laws = random.Random(seed), cls.measured(line)  # noqa: S311 - a model, not a secret
        values = {
            field.name: getattr(laws, field.name) * draw.uniform(1 - SPREAD, 1 + SPREAD)
            for field in fields(laws)
            if field.name not in {"probe_interval", "loop_interval", "tasks_per_query", "throttled_from"}
        }
        low, high = STRANDED_WITHIN
        for name in ("stranded_first", "stranded_last"):
            values[name] = min(max(values[name], low), high)
        return replace(laws, **values)

    def base(self, component: str) -> float:
        """Anonymous memory of a component that is ready and idle."""
        return {
            "worker": self.worker_base,
            "scheduler": self.scheduler_base,
            "dag-processor": self.dag_processor_base,
            "triggerer": self.triggerer_base,
            "api-server": self.api_server_base,
            "webserver": self.api_server_base,
        }.get(component, self.other_base)
