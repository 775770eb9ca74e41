"""DAG files that cost much: which they are, and what share of all parsing each takes."""

from collections.abc import Iterator

from airflow_tuner.diagnose.case import Case
from airflow_tuner.model import Finding, Severity, Workload
from airflow_tuner.sentence import short
from airflow_tuner.telemetry import ParsedFile, Parsing

LARGE = 0.25
"""Share of all parsing from which one file is worth a person's look: without it, parsing would cost a quarter less."""

SLOW = 1.0
"""Seconds of one parse below which a file is left in peace: the start of a parse and Airflow's own imports are part
of it."""

UNLIKE = 3.0
"""A file must take this times the mean of the others: where there are few, each has a large share."""

TIMEOUT_NEAR = 15.0
"""Seconds from which a file may fail on a busy machine: half of Airflow's default dagbag_import_timeout, 30 s."""


def parse_offenders(case: Case) -> Iterator[Finding]:
    """One or a few files take a large share of all parsing."""
    parsing, parser = case.seen.airflow.parsing, _parser(case)
    if parsing is None or parser is None:
        return
    found = [(file, share) for file in parsing.slowest if (share := _share(file, parsing)) is not None]
    # After a start the mean of all is of other minutes than that of a file; together they take no more than all.
    if not found or sum(share for _, share in found) > 1:
        return
    files = [f"{short(file.name)} {file.seconds:.1f} s ({share:.0%})" for file, share in found]
    near = any(file.seconds >= TIMEOUT_NEAR for file, _ in found)
    late = " Airflow gives a file 30 s by default, and then its DAGs are gone." if near else ""
    yield Finding(
        "ParseOffenders",
        Severity.WARNING if near else Severity.INFO,
        parser.target,
        f"Of all the time that parsing {parsing.files} DAG files takes, a large share goes to: "
        f"{', '.join(files)}. The mean of all is {parsing.seconds:.2f} s.{late} What stands at the top "
        "level of a file runs at each parse: move imports of large libraries, queries and calls of other services into "
        "the tasks.",
        case.seen.at,
    )


def _share(file: ParsedFile, parsing: Parsing) -> float | None:
    """The share of all parsing that a file takes; `None` where it is not worth telling.

    All files are parsed equally often, but for those that have just changed, and for one that takes very long: its
    interval begins when its parse has ended. One that seems to take more than all of them even so is parsed still more
    seldom, and its share is not known.
    """
    total = parsing.files * parsing.seconds
    if parsing.files <= 1 or file.seconds < SLOW:
        return None
    share = file.seconds / total
    if share > 1:
        share = file.seconds / (parsing.cycle + file.seconds) / (parsing.rate * parsing.seconds)
    if not LARGE <= share <= 1:
        return None
    others = (1 - share) * total / (parsing.files - 1)
    return share if file.seconds >= UNLIKE * others else None


def _parser(case: Case) -> Workload | None:
    """The workload that parses: the dag-processor, or on Airflow 2 without one the scheduler."""
    seen = {workload.component: workload for workload in case.covered()}
    there = {workload.component for workload in case.seen.workloads}
    if "dag-processor" in there or case.seen.line == "3":
        return seen.get("dag-processor")
    return seen.get("scheduler")
