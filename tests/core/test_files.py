"""Files that take a large share of all parsing are named; few, small or equal ones are not."""

from dataclasses import replace

import pytest

from airflow_tuner import api
from airflow_tuner.model import Finding, Severity, Workload
from airflow_tuner.telemetry import ParsedFile, Parsing
from core.worlds import airflow, dag_processor, observed, parsing_spec, pod, scheduler, spec, turn

BOUNDS = {"memory": {"min": "512Mi", "max": "4Gi"}}
ALL = spec(workers=[], scheduler=BOUNDS, dagProcessor=BOUNDS)


def parsed(*seconds: float, rest: int = 20, each: float = 0.1) -> Parsing:
    """These files, and `rest` others; in rounds of 60 s."""
    files = len(seconds) + rest
    slowest = sorted([*seconds, *[each] * rest], reverse=True)[:5]
    return Parsing(
        files=files,
        rate=files / 60,
        seconds=(sum(seconds) + rest * each) / files,
        loop=10.0,
        queue=0,
        oldest=60.0,
        slowest=tuple(ParsedFile(f"dags_folder_file_{number}", one) for number, one in enumerate(slowest)),
    )


def offenders(parsing: Parsing, *workloads: Workload, policy: api.Spec = ALL, line: str | None = "3") -> list[Finding]:
    seen = observed(*(workloads or (dag_processor(pod()),)), airflow=airflow(None, parsing), line=line)
    return [one for one in turn(policy, seen).findings if one.reason == "ParseOffenders"]


def test_a_file_that_takes_most_of_all_parsing_is_named_with_its_share() -> None:
    (finding,) = offenders(parsed(4.0))
    assert (finding.severity, finding.target) == (Severity.INFO, "dag-processor")
    assert finding.message == (
        "Of all the time that parsing 21 DAG files takes, a large share goes to: dags_folder_file_0 4.0 s (67%). The "
        "mean of all is 0.29 s. What stands at the top level of a file runs at each parse: move imports of large "
        "libraries, queries and calls of other services into the tasks."
    )


def test_several_are_named_the_slowest_first() -> None:
    (finding,) = offenders(parsed(4.0, 5.0, 0.9))
    assert "goes to: dags_folder_file_0 5.0 s (42%), dags_folder_file_1 4.0 s (34%). The" in finding.message


def test_a_file_near_airflows_timeout_is_a_warning() -> None:
    (finding,) = offenders(parsed(15.0))
    assert finding.severity is Severity.WARNING
    assert "Airflow gives a file 30 s by default, and then its DAGs are gone." in finding.message
    assert offenders(parsed(14.9))[0].severity is Severity.INFO


@pytest.mark.parametrize(
    "parsing",
    [
        pytest.param(parsed(rest=200), id="many small ones"),
        pytest.param(parsed(0.99, rest=5), id="less than a second"),
        pytest.param(parsed(1.5, rest=100), id="a small share"),
        pytest.param(parsed(rest=1, each=20.0), id="the only one"),
        pytest.param(parsed(rest=2, each=20.0), id="two like each other"),
        pytest.param(parsed(4.0, rest=3, each=1.4), id="not three times the others"),
    ],
)
def test_what_every_airflow_has_is_no_finding(parsing: Parsing) -> None:
    assert offenders(parsing) == []


def test_files_that_seem_to_take_more_than_all_together_are_not_named() -> None:
    # Airflow 2.11.2, a minute after its start: 3.7, 3.2 and 3.1 s of six files whose mean was 1.34 s.
    three = parsed(3.7, 3.2, 3.1, rest=3, each=0.2)
    assert len(three.slowest) == 5
    assert offenders(replace(three, seconds=1.34)) == []
    assert offenders(replace(three, seconds=1.34, slowest=three.slowest[:1])), "one alone is"


def test_each_threshold_is_met_from_its_number_on() -> None:
    assert offenders(parsed(4.2, rest=3, each=1.4)), "three times the others"
    assert offenders(parsed(1.0, rest=30)), "a quarter"
    assert offenders(parsed(1.0, rest=31)) == []


def test_without_samples_nothing_is_said() -> None:
    seen = observed(scheduler(pod("s")), dag_processor(pod("d")), airflow=airflow())
    assert turn(ALL, seen).found == []


def test_a_file_so_slow_that_it_is_parsed_more_seldom_than_the_others_is_told_with_its_share() -> None:
    # 24 files of 0.15 s every 30 s, and one of 16 s, whose next 30 s begin when its parse has ended.
    rate = 24 / 30 + 1 / 46
    found = replace(parsed(), files=25, rate=rate, seconds=(24 / 30 * 0.15 + 16 / 46) / rate)
    (finding,) = offenders(replace(found, slowest=(ParsedFile("slow", 16.0), ParsedFile("usual", 0.15))))
    assert "goes to: slow 16.0 s (74%). The" in finding.message


def test_a_file_that_seems_to_take_more_than_all_is_parsed_more_seldom_and_not_told() -> None:
    found = parsed(rest=20)
    assert offenders(replace(found, slowest=(ParsedFile("rare", 9.0),))) == []


def test_it_is_about_the_workload_that_parses_if_the_policy_names_it() -> None:
    parsing, both = parsed(4.0), (scheduler(pod("s")), dag_processor(pod("d")))
    assert [one.target for one in offenders(parsing, *both)] == ["dag-processor"]
    assert [one.target for one in offenders(parsing, both[0], line="2")] == ["scheduler"]
    assert [one.target for one in offenders(parsing, *both, line="2")] == ["dag-processor"]
    alone = spec(workers=[], scheduler=BOUNDS)
    assert offenders(parsing, *both, policy=alone) == []
    assert offenders(parsing, *both, policy=parsing_spec())


def test_names_of_any_length_fit_into_the_message() -> None:
    found = parsed(5.0, 5.0, 5.0, rest=1)
    long = tuple(ParsedFile("x" * 400, one.seconds) for one in found.slowest)
    messages = [one.message for one in offenders(Parsing(4, 1.0, 4.0, None, None, 60.0, long))]
    assert all(len(message) <= 1024 for message in messages)
