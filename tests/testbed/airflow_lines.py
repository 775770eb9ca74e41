"""The two lines of Airflow that run here, as data: all that the testbed has to know of their differences."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHART = Path(__file__).parent / "airflow-chart"
_REQUIREMENTS = Path(__file__).parents[2] / "requirements"


@dataclass(frozen=True)
class Line:
    """One line of Airflow, by its newest version."""

    version: str
    web: str
    """The component that serves the REST API."""
    api: str
    """The root of the REST API."""
    dag_is_there: str
    """The condition in SQL that a row of `dag` stands for a file that exists."""
    values: tuple[Path, ...] = ()
    """Files of values laid over those of the chart."""
    new_run: Mapping[str, Any] = field(default_factory=dict)
    """What the body of a request for a new run needs beside `conf`."""

    @property
    def lock_file(self) -> Path:
        """Every package of it, with hashes."""
        return _REQUIREMENTS / f"airflow-{self.version}.txt"

    @property
    def components(self) -> tuple[str, ...]:
        """The components that run, as the label `component` names them."""
        return (self.web, "scheduler", "dag-processor", "triggerer", "worker")


AIRFLOW_3 = Line(
    version="3.3.2",
    web="api-server",
    api="/api/v2",
    dag_is_there="not is_stale",
    new_run={"logical_date": None},
)
AIRFLOW_2 = Line(
    version="2.11.2",
    web="webserver",
    api="/api/v1",
    dag_is_there="is_active",
    values=(CHART / "values-2.yaml",),
)
