"""How often, and by how many processes, DAG files are parsed."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_tuner import api, decide, parsing
from airflow_tuner.model import Memory, Observation, Values
from airflow_tuner.telemetry import ParsedFile, Parsing
from core.worlds import NOW, Turn, airflow, dag_processor, observed, parsing_spec, pod, reborn, turn, usage

SECOND = timedelta(seconds=1)
INTERVAL, PROCESSES = api.EnvName.INTERVAL, api.EnvName.PROCESSES
SLOW = tuple(ParsedFile(f"dags_folder_slow_{number}", 2.0 - number / 10) for number in range(5))


def parsed(files: int = 40, *, every: float = 30, seconds: float = 2.0, **fields: Any) -> Parsing:  # noqa: ANN401 - any field of the parsing
    """Each file is parsed every so many seconds, and a parse takes so long."""
    known: dict[str, Any] = {"loop": None, "queue": None, "oldest": every, "slowest": SLOW}
    return Parsing(files, files / every, seconds, **{**known, **fields})


def looked(
    found: Parsing | None,
    cpu: float | None = 0.3,
    *,
    interval: int | None = None,
    processes: int | None = None,
    line: str | None = "3",
    **fields: Any,  # noqa: ANN401 - any field of the workload
) -> Observation:
    """A dag-processor that takes so many cores; its environment states interval and processes."""
    given = {INTERVAL: interval, PROCESSES: processes}
    told = {str(name): str(value) for name, value in given.items() if value is not None}
    living = pod("airflow-dag-processor-1", usage=usage(cpu_of_rounds=cpu), environment=told)
    stated = Values(interval=interval, processes=processes)
    workload = dag_processor(living, environment=told, stated=stated, **fields)
    return observed(workload, airflow=airflow(parsing=found), line=line)


def overloaded(**fields: Any) -> Observation:  # noqa: ANN401 - any argument of `looked`
    """One round costs 60 CPU seconds, every 30 s."""
    return looked(parsed(), 2.0, **fields)


def stale(**fields: Any) -> Observation:  # noqa: ANN401 - any argument of `looked`
    """Ten quick files, parsed every ten minutes."""
    return looked(parsed(10, every=600, seconds=0.5), 0.03, interval=600, **fields)


def env(last: Turn) -> dict[str, str]:
    return {} if last.target.tuned is None else {item.name.value: item.value for item in last.target.tuned.env}


def later(last: Turn, found: Parsing, cpu: float, *, seconds: float = 900, born: bool = True) -> Observation:
    """So much later, the pod created anew with what was decided, and Airflow says this."""
    seen = reborn(last) if born else last.seen
    (workload,) = seen.workloads
    pods = tuple(replace(one, usage=usage(cpu_of_rounds=cpu)) for one in workload.pods)
    at = last.seen.at + timedelta(seconds=seconds)
    return replace(seen, at=at, workloads=(replace(workload, pods=pods),), airflow=airflow(parsing=found))


def test_where_parsing_takes_more_than_its_cpu_the_interval_grows_to_what_fits() -> None:
    last = turn(parsing_spec(), overloaded())
    assert last.reasons == ["ParsingOverloaded"]
    assert (last.target.desired.interval, env(last)) == (120, {INTERVAL: "120"})
    assert last.target.why.startswith(
        "Parsing interval as configured (every 30 s) -> 120 s for Deployment/airflow-dag-processor: 40 DAG files are "
        "parsed every 30 s (the oldest parse was 30 s ago), 2.0 s each; Deployment/airflow-dag-processor takes 2.00 "
        "cores"
    )
    assert "one round costs 60 CPU seconds, which fit 0.5 cores every 120 s." in last.target.why


def test_the_slowest_files_are_named() -> None:
    last = turn(parsing_spec(), overloaded())
    assert "Slowest: dags_folder_slow_0 2.0 s, dags_folder_slow_1 1.9 s, dags_folder_slow_2 1.8 s." in last.target.why
    (finding,) = last.findings
    assert (finding.reason, finding.target) == ("DagParsingOverloaded", "dag-processor")
    assert "dags_folder_slow_0" in finding.message
    unnamed = turn(parsing_spec(), looked(parsed(slowest=()), 2.0))
    assert "Which files are slow is not known." in unnamed.target.why


def test_where_dags_are_stale_the_interval_falls_to_what_keeps_them_fresh() -> None:
    last = turn(parsing_spec(), stale())
    assert (last.reasons, last.target.desired.interval) == (["DagsStale"], 60 - 12)


def test_freshness_asks_for_no_more_cpu_than_the_share() -> None:
    last = turn(parsing_spec(), looked(parsed(10, every=600), 0.1, interval=600))
    assert (last.reasons, last.target.desired.interval) == (["DagsStale"], 120)


def test_where_nothing_is_wrong_nothing_changes() -> None:
    for interval in (None, 42, 48, 600):
        last = turn(parsing_spec(), looked(parsed(every=50), 0.5, interval=interval))
        assert (last.reasons, last.found, last.target.tuned) == ([], [], None)


def test_files_that_are_parsed_more_often_than_the_objective_asks_for_are_parsed_more_seldom() -> None:
    last = turn(parsing_spec(), looked(parsed(every=30, seconds=0.5), 0.5, interval=30))
    assert (last.reasons, last.target.desired.interval, last.found) == (["ParsingEager"], 48, [])
    assert "The objective of 60 s asks for no more." in last.target.why
    rest = turn(parsing_spec(), later(last, parsed(every=48), 0.31, seconds=90000), last.status)
    assert rest.reasons == []


def test_a_container_that_has_not_run_for_an_hour_is_not_restarted_for_it() -> None:
    seen = looked(parsed(every=30, seconds=0.5), 0.5, interval=30)
    (found,) = (item for item in seen.workloads if item.component == "dag-processor")
    for minutes, reasons in ((59, []), (60, ["ParsingEager"])):
        pods = tuple(replace(one, started=seen.at - timedelta(minutes=minutes)) for one in found.pods)
        workloads = tuple(replace(found, pods=pods) if item is found else item for item in seen.workloads)
        assert turn(parsing_spec(), replace(seen, workloads=workloads)).reasons == reasons


def test_a_few_quick_files_are_not_worth_a_restart_nor_is_one_soon_after_another() -> None:
    assert turn(parsing_spec(), looked(parsed(every=30), 0.13, interval=30)).reasons == []
    first = turn(parsing_spec(), stale())
    short = turn(
        parsing_spec(objectives={"dagFreshnessSeconds": 200}),
        later(first, parsed(every=48), 0.4, seconds=3600),
        first.status,
    )
    assert short.reasons == []
    day = turn(
        parsing_spec(objectives={"dagFreshnessSeconds": 200}),
        later(first, parsed(every=48), 0.4, seconds=86400),
        first.status,
    )
    assert day.reasons == ["ParsingEager"]


@pytest.mark.parametrize(("objective", "interval"), [(30, 24), (60, 48), (600, 588)])
def test_a_fifth_of_the_objective_but_no_more_than_twelve_seconds_is_left_for_a_files_turn(
    objective: int, interval: int
) -> None:
    policy = parsing_spec(objectives={"dagFreshnessSeconds": objective})
    last = turn(policy, looked(parsed(10, every=900, seconds=0.5), 0.01, interval=900))
    assert (last.reasons, last.target.desired.interval) == (["DagsStale"], interval)


@pytest.mark.parametrize(("cpu", "oldest"), [(0.6, 30), (0.3, 72)])
def test_a_little_too_much_or_too_late_is_tolerated(cpu: float, oldest: float) -> None:
    assert turn(parsing_spec(), looked(parsed(oldest=oldest), cpu)).found == []
    assert turn(parsing_spec(), looked(parsed(oldest=oldest * 1.01), cpu * 1.01)).found == ["DagParsingOverloaded"]


def test_a_change_of_less_than_a_fifth_is_not_worth_a_restart() -> None:
    assert turn(parsing_spec(high=35), overloaded(interval=30)).reasons == []
    assert turn(parsing_spec(high=36), overloaded(interval=30)).reasons == ["ParsingOverloaded"]
    assert turn(parsing_spec(low=500), stale()).reasons == []
    assert turn(parsing_spec(low=480), stale()).reasons == ["DagsStale"]


def test_rates_of_parsing_are_averaged_over_two_rounds_at_least() -> None:
    policy = parsing_spec(metrics={"windowSeconds": 300})
    for interval, seconds in ((None, 300), (150, 300), (151, 302), (600, 1200)):
        assert parsing.rounds(policy, looked(None, interval=interval).workloads, "3") == seconds
    first = turn(policy, looked(parsed(), 2.5))
    assert parsing.rounds(policy, later(first, parsed(every=160), 0.5).workloads, "3") == 300
    assert parsing.rounds(policy, [], "3") == 300


def test_a_container_that_has_run_for_less_than_two_rounds_is_not_parsed_more_often() -> None:
    policy = parsing_spec(metrics={"windowSeconds": 300})
    (workload,) = stale().workloads
    for seconds, reasons in ((1199, []), (1200, ["DagsStale"])):
        pods = (replace(workload.pods[0], started=NOW - seconds * SECOND),)
        last = turn(policy, replace(stale(), workloads=(replace(workload, pods=pods),)))
        assert last.reasons == reasons
        if not reasons:
            assert last.findings[0].message.endswith(": what a round costs is known 1200 s after that.")


def test_overloaded_files_are_never_parsed_more_often_whatever_the_bounds_are() -> None:
    assert turn(parsing_spec(high=20), overloaded()).reasons == []


def test_the_next_change_waits_for_the_cooldown_and_then_comes() -> None:
    first = turn(parsing_spec(), overloaded())
    waits = turn(parsing_spec(), later(first, parsed(80, every=120), 1.0, seconds=899), first.status)
    assert waits.reasons == []
    assert waits.found == ["DagParsingOverloaded"]
    then = turn(parsing_spec(), later(first, parsed(80, every=120), 1.0), first.status)
    assert (then.reasons, then.target.desired.interval) == (["ParsingOverloaded"], 240)


def test_what_was_decided_is_not_changed_again_before_it_is_in_force() -> None:
    first = turn(parsing_spec(), overloaded())
    again = turn(parsing_spec(), later(first, parsed(80), 4.0, seconds=9000, born=False), first.status)
    assert (again.reasons, again.target.desired.interval) == ([], 120)


def test_what_was_decided_and_is_in_force_changes_nothing_more() -> None:
    first = turn(parsing_spec(), overloaded())
    after = turn(parsing_spec(), later(first, parsed(every=120), 0.5, seconds=9000), first.status)
    assert after.reasons == []
    assert after.waiting == ()


def test_after_the_slow_files_are_gone_the_interval_comes_back_to_what_freshness_needs() -> None:
    first = turn(parsing_spec(), overloaded())
    after = turn(parsing_spec(), later(first, parsed(3, every=120, seconds=0.2), 0.02), first.status)
    assert (after.reasons, after.target.desired.interval) == (["DagsStale"], 48)
    rest = turn(parsing_spec(), later(after, parsed(3, every=48, seconds=0.2), 0.04), after.status)
    assert (rest.reasons, rest.found) == ([], [])


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("2", "AIRFLOW__SCHEDULER__MIN_FILE_PROCESS_INTERVAL"),
        ("3", "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL"),
    ],
)
def test_each_line_has_its_own_names(line: str, name: str) -> None:
    last = turn(parsing_spec(), looked(parsed(), 2.0, line=line))
    assert env(last) == {name: "120"}


def test_an_unknown_line_changes_nothing() -> None:
    last = turn(parsing_spec(), looked(parsed(), 2.0, line=None))
    assert (last.reasons, last.found) == ([], [])
    bounds = decide.bounds_of(parsing_spec(), "dag-processor", "dag-processor")
    assert bounds is not None
    item = decide.item_of(parsing_spec(), bounds, last.seen.workloads[0], last.seen, api.Status())
    assert "state spec.airflow.version" in item.parsing.hold


def test_parsing_by_reference_is_the_users_alone() -> None:
    assert turn(parsing_spec(), overloaded(referenced=frozenset({INTERVAL}))).reasons == []


@pytest.mark.parametrize("seen", [looked(None), looked(parsed(), None), replace(overloaded(), workloads=())])
def test_what_is_not_known_changes_nothing(seen: Observation) -> None:
    assert turn(parsing_spec(), seen).reasons == []


def test_a_policy_without_parsing_changes_nothing() -> None:
    policy = parsing_spec(dagProcessor={"memory": {"min": "512Mi", "max": "4Gi"}})
    assert turn(policy, overloaded()).reasons == []


def test_a_container_without_a_limit_gets_one_first() -> None:
    bare = dag_processor(
        pod(request=None, limit=None, usage=usage(cpu_of_rounds=2.0)), request=None, limit=None, template=Memory()
    )
    last = turn(parsing_spec(), observed(bare, airflow=airflow(parsing=parsed())))
    assert (last.reasons, last.target.tuned) == ([], None)
    sized = replace(bare, pods=(replace(bare.pods[0], usage=usage(cpu_of_rounds=2.0, working_set=300)),))
    first = turn(parsing_spec(), replace(last.seen, workloads=(sized,)), last.status)
    assert first.reasons == ["LimitsMissing"]


def test_memory_outside_the_bounds_moves_inside_with_the_interval_as_admission_asks() -> None:
    last = turn(
        parsing_spec(),
        observed(
            dag_processor(pod(request=100, usage=usage(cpu_of_rounds=2.0)), request=100),
            airflow=airflow(parsing=parsed()),
        ),
    )
    assert (last.reasons, last.request, last.limit) == (["ParsingOverloaded"], 512, 1024)


# Processes


def crawling(cpu: float = 0.1) -> Observation:
    """200 files that wait for something else than CPU, a second each: two processes take 100 s for a round."""
    return looked(parsed(200, every=100, seconds=1.0, oldest=100), cpu, interval=30)


def test_more_processes_come_before_a_smaller_interval() -> None:
    last = turn(parsing_spec(processes=(1, 8)), crawling())
    assert last.reasons == ["DagsStale"]
    assert (last.target.desired.interval, last.target.desired.processes) == (30, 5)
    assert last.target.why.startswith("Parsing processes 2 -> 5 for Deployment/airflow-dag-processor: ")
    assert env(last) == {PROCESSES: "5"}


def test_processes_stay_inside_their_bounds_and_where_none_are_named() -> None:
    assert turn(parsing_spec(processes=(1, 3)), crawling()).target.desired.processes == 3
    assert turn(parsing_spec(processes=(1, 2)), crawling()).reasons == []
    assert turn(parsing_spec(), crawling()).reasons == []


def test_processes_do_not_rise_where_cpu_does_not_allow_it() -> None:
    assert turn(parsing_spec(processes=(1, 8)), crawling(0.4)).reasons == []


# What the user does


def test_changed_bounds_hold_at_once_for_what_was_decided() -> None:
    last = turn(parsing_spec(), overloaded())
    lower = turn(parsing_spec(high=100), later(last, parsed(every=120), 0.5, seconds=1), last.status)
    assert (lower.reasons, env(lower)) == (["BoundsChanged"], {INTERVAL: "100"})


def test_parsing_taken_from_the_policy_is_given_back() -> None:
    last = turn(parsing_spec(processes=(1, 8)), crawling())
    policy = parsing_spec(dagProcessor={"memory": {"min": "512Mi", "max": "4Gi"}})
    gone = turn(policy, replace(last.seen, at=NOW + SECOND), last.status)
    assert (gone.reasons, gone.target.tuned) == (["BoundsChanged"], None)
    without = turn(parsing_spec(), replace(last.seen, at=NOW + SECOND), last.status)
    assert (without.reasons, without.target.tuned) == (["BoundsChanged"], None)


def test_an_interval_changed_in_the_template_wins() -> None:
    last = turn(parsing_spec(), overloaded())
    seen = replace(overloaded(interval=200), at=NOW + 5 * SECOND)
    changed = turn(parsing_spec(), seen, last.status)
    assert (changed.reasons, changed.target.tuned) == (["TemplateChanged"], None)
    assert "(parsing interval not stated -> 200 s): the new template counts." in changed.target.why


def test_an_upgrade_of_airflow_keeps_the_interval_under_its_new_name() -> None:
    last = turn(parsing_spec(), looked(parsed(), 2.0, line="2"))
    after = turn(parsing_spec(), replace(later(last, parsed(every=120), 0.5), line="3"), last.status)
    assert env(after) == {INTERVAL: "120"}


def test_mode_recommend_recommends_once() -> None:
    policy = parsing_spec(mode="Recommend")
    last = turn(policy, overloaded())
    assert (last.reasons, last.target.tuned, last.target.desired.interval) == (["ParsingOverloaded"], None, 120)
    assert turn(policy, replace(last.seen, at=NOW + 9000 * SECOND), last.status).reasons == []
    assert "min_file_process_interval: 120" in last.status.helm_values


# Whatever the signals say


@st.composite
def worlds(draw: st.DrawFn) -> tuple[api.Spec, Observation]:
    low = draw(st.integers(1, 100))
    policy = parsing_spec(
        low,
        draw(st.integers(low, 900)),
        processes=draw(st.sampled_from([None, (1, 4), (3, 3)])),
        cpu=draw(st.sampled_from(["100m", "500m", "3"])),
        mode=draw(st.sampled_from(["Enforce", "Recommend"])),
        objectives={"dagFreshnessSeconds": draw(st.integers(10, 900))},
    )
    every = draw(st.floats(0.5, 5000))
    found = parsed(
        draw(st.integers(1, 2000)),
        every=every,
        seconds=draw(st.floats(0.001, 60)),
        oldest=draw(st.floats(0, 5000)),
    )
    stated = draw(st.sampled_from([None, 1, 30, 4000]))
    number = draw(st.sampled_from([None, 1, 9]))
    return policy, looked(found, draw(st.floats(0, 16)), interval=stated, processes=number)


@given(worlds())
def test_interval_and_processes_are_inside_their_bounds_or_as_they_were(world: tuple[api.Spec, Observation]) -> None:
    policy, seen = world
    last = turn(policy, seen)
    wanted = policy.dag_processor.parsing if policy.dag_processor else None
    assert wanted is not None
    desired, stated = last.target.desired, seen.workloads[0].stated
    if desired.interval != stated.interval:
        assert desired.interval is not None
        assert wanted.interval_seconds.min <= desired.interval <= wanted.interval_seconds.max
    if desired.processes != stated.processes:
        assert wanted.processes is not None
        assert wanted.processes.min <= (desired.processes or 0) <= wanted.processes.max
        assert (desired.processes or 0) > (stated.processes or parsing.DEFAULT_PROCESSES)
    if last.reasons == ["ParsingOverloaded"] and stated.interval:
        assert (desired.interval or 0) >= stated.interval
    if last.reasons == ["DagsStale"] and stated.interval:
        assert (desired.interval or 0) <= stated.interval
    assert turn(policy, seen).decision == last.decision


@given(st.integers(1, 500), st.floats(0.01, 5), st.floats(0.1, 1), st.sampled_from([None, 10, 30, 3000]))
def test_a_dag_processor_comes_to_rest(files: int, seconds: float, share: float, interval: int | None) -> None:
    """`share` of a parse is CPU. The world answers each decision as a real loop does."""
    policy = parsing_spec(1, 3600, processes=(1, 8))

    def world(wanted: int | None, processes: int | None) -> tuple[Parsing, float]:
        every = max(wanted or 30, files * seconds / (processes or 2))
        return parsed(files, every=every, seconds=seconds), files * seconds * share / every + 0.02

    found, cpu = world(interval, None)
    last = turn(policy, looked(found, cpu, interval=interval))
    changes = len(last.reasons)
    for _ in range(12):
        desired = last.target.desired
        found, cpu = world(desired.interval, desired.processes)
        last = turn(policy, later(last, found, cpu), last.status)
        changes += len(last.reasons)
    assert changes <= 5
    assert last.reasons == []


# Units that cannot be right.


def doubted(found: Parsing | None, **fields: Any) -> str:  # noqa: ANN401 - any argument of `looked`
    seen = looked(found, **fields)
    return parsing.doubt(found, seen.workloads, seen.line)


def test_more_files_at_once_than_processes_by_far_are_a_wrong_unit_and_both_numbers_are_told() -> None:
    told = doubted(parsed(40, seconds=200.0))
    assert told == (
        "By airflow_dag_processing_last_duration 1.33 parses of 200.0 s begin each second, so 267 DAG files would be "
        "parsed at once; there are 2 processes for it."
    )


@pytest.mark.parametrize("line", ["2", "3"])
@pytest.mark.parametrize("seconds", [0.1, 0.5, 2.0, 30.0])
@pytest.mark.parametrize("processes", [None, 1, 8])
def test_what_processes_can_do_is_never_doubted(line: str, seconds: float, processes: int | None) -> None:
    # All of them parse all the time.
    busy = processes or 2
    found = parsed(40, every=40 * seconds / busy, seconds=seconds)
    assert doubted(found, processes=processes, line=line) == ""


@pytest.mark.parametrize("seconds", [0.06, 0.15, 0.5, 2.0])
@pytest.mark.parametrize("files", [5, 40, 400])
def test_an_airflow_that_sends_true_milliseconds_is_noticed(files: int, seconds: float) -> None:
    right = parsed(files, seconds=seconds)
    assert doubted(right, processes=32) == ""
    assert doubted(replace(right, seconds=1000 * seconds)) != ""


def test_long_parses_under_a_longer_timeout_are_believed() -> None:
    assert doubted(parsed(4, every=480, seconds=240.0)) == ""
    assert doubted(parsed(40, every=100, seconds=49.0)) == "", "processes that only airflow.cfg knows"


def test_nothing_is_doubted_without_parsing_or_a_dag_processor() -> None:
    assert doubted(None) == ""
    assert parsing.doubt(parsed(seconds=2000.0), (), "3") == ""
    on_2 = (replace(dag_processor(pod()), component="scheduler"),)
    assert parsing.doubt(parsed(seconds=2000.0), on_2, "2") != "", "where the scheduler parses"
    assert parsing.doubt(parsed(seconds=2000.0), on_2, "3") == ""


def test_what_is_doubted_is_told_and_parsing_is_left_alone() -> None:
    says = replace(airflow(), doubt=doubted(parsed(40, seconds=200.0)))
    seen = replace(overloaded(), airflow=says)
    last = turn(parsing_spec(), seen)
    (finding,) = last.findings
    assert (finding.reason, finding.target) == ("MetricsUnitSuspicious", "dag-processor")
    assert finding.message.startswith(
        "By airflow_dag_processing_last_duration 1.33 parses of 200.0 s begin each second"
    )
    assert "most likely the seconds, which it takes 1000 times on Airflow 3. Neither is believed" in finding.message
    assert (last.reasons, last.target.desired.interval) == ([], None)
    assert "MetricsUnitSuspicious" not in turn(parsing_spec(), overloaded()).found
