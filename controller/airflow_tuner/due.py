"""The runs of DAGs that are due, as Airflow's REST API tells them. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

AHEAD = timedelta(days=1)
"""So far ahead runs are looked for: as far as memory is foreseen."""

RARE = timedelta(days=3)
"""A DAG that pauses for so long is not in the same hour of the last days, which foresee the others."""

YEARS = (2000, 2200)
"""Years in which a run can be."""

NEXT = {"2": "next_dagrun_create_after", "3": "next_dagrun_run_after"}
"""When a run is created, by Airflow line."""


@dataclass(frozen=True, slots=True)
class DueRun:
    """A run of a DAG that is due."""

    dag: str
    at: datetime
    began: datetime | None = None
    """When its last run that ended began; `None`: there was none."""
    ended: datetime | None = None

    @property
    def rare(self) -> bool:
        """The last days do not show it."""
        return self.began is None or self.at - self.began >= RARE

    @property
    def over(self) -> datetime:
        """When it is over, if it takes as long as the last time, and begins up to an hour late."""
        took = self.ended - self.began if self.began is not None and self.ended is not None else timedelta()
        return self.at + took + timedelta(hours=1)


def dags(document: Mapping[str, Any], line: str) -> Iterator[tuple[str, datetime]]:
    """The DAGs of a page that are to run, and when."""
    for item in document["dags"]:
        at = _moment(item.get(NEXT[line]))
        if at is not None and not item.get("is_paused"):
            yield str(item["dag_id"]), at


def last(document: Mapping[str, Any]) -> tuple[datetime, datetime] | None:
    """Begin and end of the last run, in an answer that holds only that."""
    for item in document["dag_runs"]:
        began, ended = _moment(item.get("start_date")), _moment(item.get("end_date"))
        if began is not None and ended is not None and began <= ended:
            return began, ended
    return None


def _moment(text: object) -> datetime | None:
    at = datetime.fromisoformat(text) if isinstance(text, str) else None
    # No run was before Airflow; what no calendar holds would overflow what is counted from it.
    return at if at is not None and at.tzinfo is not None and YEARS[0] <= at.year <= YEARS[1] else None
