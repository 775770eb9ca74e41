"""Airflow's options as the environment and the command line of a container."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_tuner import api
from airflow_tuner.environment import applied, concurrency_of, queues_of, stated, variables
from airflow_tuner.model import Memory, Values

CONCURRENCY, AUTOSCALE = str(api.EnvName.CONCURRENCY), str(api.EnvName.AUTOSCALE)


@pytest.mark.parametrize(
    ("environment", "slots"),
    [
        ({}, None),
        ({CONCURRENCY: "8"}, 8),
        ({CONCURRENCY: " 8 "}, 8),
        ({AUTOSCALE: "8,2"}, 8),
        ({CONCURRENCY: "16", AUTOSCALE: "8,2"}, 8),
        ({CONCURRENCY: "16", AUTOSCALE: "many"}, 16),
        ({CONCURRENCY: "0"}, None),
        ({CONCURRENCY: "-3"}, None),
        ({CONCURRENCY: "$(SLOTS)"}, None),
        ({CONCURRENCY: "1" * 40}, None),
        ({CONCURRENCY: ""}, None),
    ],
)
def test_slots_are_read_where_they_are_plain_numbers(environment: dict[str, str], slots: int | None) -> None:
    assert stated("worker", environment, None).concurrency == slots
    assert stated("scheduler", environment, "3") == Values()


@pytest.mark.parametrize(
    ("command", "slots"),
    [
        (["airflow", "celery", "worker"], None),
        (["airflow", "celery", "worker", "-c", "8"], 8),
        (["airflow", "celery", "worker", "--concurrency=8"], 8),
        (["bash", "-c", "exec \\\nairflow celery worker --concurrency 8 --queues a"], 8),
        (["airflow", "celery", "worker", "--autoscale", "8,2", "-c", "4"], 8),
        (["airflow", "celery", "worker", "-c"], None),
        (["bash", "-c", "exec \\\nairflow celery worker"], None),
        ([], None),
    ],
)
def test_slots_of_a_command_line(command: list[str], slots: int | None) -> None:
    assert concurrency_of(command) == slots


@pytest.mark.parametrize(
    ("command", "queues"),
    [
        ([], ("default",)),
        (["airflow", "celery", "worker", "--queues", "a,b"], ("a", "b")),
        (["airflow", "celery", "worker", "-q", "a"], ("a",)),
        (["bash", "-c", "exec airflow celery worker --queues=a,,b"], ("a", "b")),
    ],
)
def test_queues_of_a_command_line(command: list[str], queues: tuple[str, ...]) -> None:
    assert queues_of(command, "default") == queues


@pytest.mark.parametrize(("line", "section"), [("2", "SCHEDULER"), ("3", "DAG_PROCESSOR")])
def test_names_of_the_other_line_are_not_read(line: str, section: str) -> None:
    told = {f"AIRFLOW__{section}__MIN_FILE_PROCESS_INTERVAL": "70", f"AIRFLOW__{section}__PARSING_PROCESSES": "4"}
    assert stated("dag-processor", told, line) == Values(interval=70, processes=4)
    assert stated("dag-processor", told, {"2": "3", "3": "2"}[line]) == Values()
    assert stated("dag-processor", told, None) == Values()


def test_what_does_not_differ_from_the_template_needs_no_variable() -> None:
    template = Values(Memory(1, 2), concurrency=4, interval=30, processes=2)
    for component in ("worker", "dag-processor", "scheduler"):
        assert variables(component, template, template, "3") == ()
    assert variables("dag-processor", Values(interval=60), template, None) == ()


numbers = st.none() | st.integers(1, 999_999)


@given(st.sampled_from(["worker", "dag-processor"]), st.sampled_from(["2", "3"]), st.tuples(numbers, numbers, numbers))
def test_the_variables_say_what_they_were_made_of(
    component: str, line: str, values: tuple[int | None, int | None, int | None]
) -> None:
    template = Values(Memory(1, 2), concurrency=7, interval=7, processes=7)
    given_ = variables(component, Values(Memory(1, 2), *values), template, line)
    after = applied(template, given_, component, line)
    wanted = Values(Memory(1, 2), *(value or 7 for value in values))
    if component == "worker":
        assert after.concurrency == wanted.concurrency
    else:
        assert (after.interval, after.processes) == (wanted.interval, wanted.processes)
    for item in given_:
        assert api.EnvVar.model_validate(item.model_dump()) == item
