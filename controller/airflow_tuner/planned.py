"""Memory for rare runs of DAGs that are due: what was held the last time they ran. Pure.

Which memory a DAG took is not known: a worker's is that of all its tasks. What is known is the peak of each hour in
which the DAG ran last, and that peak is taken to come again.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

from airflow_tuner.due import DueRun
from airflow_tuner.forecast import LEAST_MARGIN, Forecast
from airflow_tuner.history import History, hour_of
from airflow_tuner.sentence import short

LONGEST = 24
"""Hours of a run that count: as far as memory is foreseen."""


def kept(ahead: tuple[Forecast, ...], history: History, hour: int, due: tuple[DueRun, ...]) -> tuple[Forecast, ...]:
    """What is foreseen for the hours from `hour` on, and no less than at the last run of what is due in them."""
    found = list(ahead)
    for run in due:
        for number, one in enumerate(found):
            peak = _peak(history, hour + number, run)
            if peak is not None and (peak > one.usual or peak * (1 + LEAST_MARGIN) > one.safe):
                rule = f"the run of {short(run.dag)} of {run.began:%Y-%m-%d}"
                safe = max(one.safe, peak * (1 + LEAST_MARGIN))
                found[number] = replace(one, usual=max(one.usual, peak), safe=safe, rule=rule)
    return tuple(found)


def told(history: History, due: tuple[DueRun, ...]) -> Iterator[str]:
    """Each run that is due, with what was held the last time."""
    for run in due:
        if run.began is None or run.ended is None:
            yield f"{short(run.dag)} at {run.at:%Y-%m-%d %H:%M}: it never ran"
            continue
        last = range(hour_of(run.began), hour_of(run.ended) + 1)
        peaks = [peak for hour in last if (peak := history.at(hour)) is not None]
        held = f"{max(peaks)} MiB were held" if peaks else "what was held is not known"
        lasted = (run.ended - run.began) / timedelta(minutes=1)
        yield (
            f"{short(run.dag)} at {run.at:%Y-%m-%d %H:%M}; when it ran last, from {run.began:%Y-%m-%d %H:%M} on for "
            f"{lasted:.0f} minutes, {held}"
        )


def new(due: tuple[DueRun, ...]) -> str:
    """A DAG that never ran and is due; empty where there is none."""
    return next((short(run.dag) for run in due if run.began is None), "")


def _peak(history: History, hour: int, run: DueRun) -> int | None:
    """The peak, in MiB, of the hour of its last run that is to come again in this hour; it may begin an hour late."""
    if run.began is None or run.ended is None:
        return None
    first, end = hour_of(run.began), hour_of(run.ended)
    then = hour - (hour_of(run.at) - first)
    hours = [one for one in (then - 1, then) if first <= one <= min(end, first + LONGEST)]
    return max((peak for one in hours if (peak := history.at(one)) is not None), default=None)
