"""`airflow-tuner replay`: observations in, decisions out, as the operator would decide; and the form of both lines."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from airflow_tuner import api, form, replay, transcript
from airflow_tuner.__main__ import main
from airflow_tuner.autoscaler import Autoscaler
from airflow_tuner.due import DueRun
from airflow_tuner.errors import Misconfigured
from airflow_tuner.model import Eviction, Memory, Observation, Refusal, TaskPod
from airflow_tuner.task_runs import TaskName, TaskRuns
from airflow_tuner.telemetry import Pace, ParsedFile, Parsing
from airflow_tuner.triggers import Triggerer
from core.worlds import (
    NOW,
    airflow,
    applied,
    dag_processor,
    observed,
    pod,
    scheduler,
    slots,
    slots_spec,
    tasks,
    turn,
    usage,
    worker,
)

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "replay.md").read_text()
FULL = observed(
    worker(
        pod(
            died=NOW,
            usage=usage(kills=1, before=0, peak=900, cpu=0.5, growth_days=1.5),
            slots=slots(4, 2),
            started=NOW,
            eviction=Eviction(NOW, "The node was low on memory"),
            deferred=NOW,
            environment={api.EnvName.CONCURRENCY: "4"},
        ),
        referenced=frozenset({"AIRFLOW__CELERY__WORKER_CONCURRENCY"}),
        refusal=Refusal(NOW, "exceeded quota"),
    ),
    scheduler(pod("scheduler-0")),
    dag_processor(pod("dag-processor-0", usage=usage(cpu_of_rounds=0.5))),
    airflow=replace(
        airflow(
            tasks(3, 4, paces=(Pace("a", 3, None),)),
            Parsing(10, 0.5, 1.0, None, 3, 30.0, (ParsedFile("a", 1.0),)),
        ),
        triggerer=Triggerer(3, 4),
    ),
    autoscalers=(Autoscaler("VerticalPodAutoscaler", "a", "StatefulSet/airflow-worker", memory_of={"*": True}),),
    refusals={"airflow-worker-0": "no"},
    task_pods=(TaskPod("etl-load-abcd0123", "etl", "load", NOW, Memory()),),
    task_runs=(TaskRuns("etl-load", runs=3, looks=30, usual=2**28, most=2**29, limit=0),),
    task_groups=1,
    due=(DueRun("month_end", NOW, NOW, NOW),),
    calendar="It does not answer.",
    task_names={"etl-load": TaskName("etl", "load")},
)


def policy(spec: api.Spec | None = None, *, paused: bool = False) -> dict[str, Any]:
    """A policy as it is read from a file."""
    told = (spec or slots_spec()).model_dump(by_alias=True, mode="json", exclude_none=True)
    metadata = {"name": "p", "namespace": "n", "uid": "policy-uid", "annotations": {api.PAUSED: str(paused).lower()}}
    return {"metadata": metadata, "spec": told}


def replayed(*seen: Observation, spec: api.Spec | None = None, paused: bool = False) -> list[transcript.Answer]:
    """The answers to observations that were written and read."""
    lines = [transcript.written(one) for one in seen]
    found = replay.answers(policy(spec, paused=paused), lines, lambda _: None)
    return [transcript.read_answer(text) for text in found]


def run(text: str, file: Path) -> Result:
    return CliRunner().invoke(main, ["replay", "--policy", str(file)], input=text)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The policy of the page's example."""
    path = tmp_path / "policy.yaml"
    path.write_text(block("yaml")[0])
    return path


def block(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def objects(node: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:  # noqa: ANN401 - JSON
    """Where objects stand in a document."""
    if isinstance(node, dict):
        yield path
        for key, child in node.items():
            yield from objects(child, (*path, key))
    elif isinstance(node, list):
        for number, child in enumerate(node):
            yield from objects(child, (*path, number))


MAPS = {
    "podLabels",
    "requests",
    "limits",
    "environment",
    "queued",
    "running",
    "queuedLeast",
    "refusals",
    "memoryOf",
    "taskNames",
}


def test_what_is_written_reads_back_the_same() -> None:
    assert transcript.read(transcript.written(FULL), 1) == FULL


def test_an_unknown_field_is_told_with_its_line_and_its_place_wherever_it_stands() -> None:
    told = json.loads(transcript.written(FULL))
    places = [path for path in objects(told) if path[-1:] != () and path[-1] not in MAPS - {"running"}]
    places = [path for path in places if path[-3:] != ("airflow", "tasks", "running")]
    assert len(places) > 30
    for path in places:
        broken = json.loads(transcript.written(FULL))
        node = broken
        for key in path:
            node = node[key]
        node["surprise"] = 1
        with pytest.raises(Misconfigured) as caught:
            transcript.read(json.dumps(broken), 7)
        where = ".".join(str(key) for key in path)
        assert str(caught.value) == f"line 7: {where}.surprise: there is no such field"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"version": 2}, "line 3: version: Input should be 1"),
        ({"surprise": 1}, "line 3: surprise: there is no such field"),
        ({"observation": {}}, "line 3: observation.at: it must be there; observation.workloads: it must be there; "),
        ({"at": "2026-11-28T12:00:00"}, "line 3: observation.at: a time needs its offset, as in 2026-11-28T12:00:00Z"),
        ({"at": "yesterday"}, "line 3: observation.at: Input should be a valid datetime"),
        ({"line": 3}, "line 3: observation.line: Input should be a valid string"),
        ({"broker": True}, "line 3: observation.broker: Input should be a valid string"),
    ],
)
def test_what_is_wrong_in_a_line_is_told(change: dict[str, Any], told: str) -> None:
    document = json.loads(transcript.written(FULL))
    inner = {key: value for key, value in change.items() if key in document["observation"] or key in {"line", "broker"}}
    document["observation"] |= inner
    document |= {key: value for key, value in change.items() if key not in inner}
    with pytest.raises(Misconfigured) as caught:
        transcript.read(json.dumps(document), 3)
    assert str(caught.value).startswith(told)


def test_a_time_without_an_offset_is_found_deep_inside() -> None:
    text = transcript.written(FULL).replace('"growthDays":{"value":1572864.0,"at":"2026-11-24T12:00:00Z"', "!")
    assert "!" in text
    text = text.replace("!", '"growthDays":{"value":1572864.0,"at":"2026-11-24T12:00:00"')
    with pytest.raises(Misconfigured, match=r"line 1: observation\.workloads\.0\.pods\.0\.usage\.growthDays\.at: a "):
        transcript.read(text, 1)


def test_what_is_left_out_has_its_default() -> None:
    seen = observed(worker(pod()))
    assert '"usage"' not in transcript.written(seen)
    assert transcript.read(transcript.written(seen), 1).workloads[0].pods[0].usage == usage()


def test_replay_decides_as_the_operator_does_and_remembers_as_it_does() -> None:
    spec = slots_spec(2, 16)
    busy = airflow(tasks(200, 4))
    one = pod(usage=usage(kills=0, peak=900, anonymous=600, cpu=0.5), slots=slots(4))
    first = turn(spec, observed(worker(one), scheduler(pod("s")), airflow=busy, broker=""))
    seen = [first.seen]
    expected = [first]
    for _ in range(3):
        seen.append(replace(applied(expected[-1], seconds=70)))
        expected.append(turn(spec, seen[-1], expected[-1].status))
    assert any(last.reasons for last in expected[1:])
    answers = replayed(*seen, spec=spec)
    for answer, last in zip(answers, expected, strict=True):
        assert answer.at == last.seen.at
        assert [
            (item.target, item.desired, item.change, item.tuned, item.slots_decided) for item in answer.targets
        ] == [
            (item.workload.target, item.desired, item.change, item.tuned, item.slots_decided)
            for item in last.decision.targets
        ]
        assert answer.findings == last.findings


def test_a_policy_that_is_paused_holds() -> None:
    killed = observed(worker(pod(died=NOW)))
    assert replayed(killed)[0].targets[0].change is not None
    assert replayed(killed, paused=True)[0].targets[0].change is None


def test_the_example_of_the_page_comes_out_as_told(file: Path) -> None:
    given, expected = block("jsonl")
    result = run(given, file)
    assert (result.exit_code, result.stdout) == (0, expected)
    assert len(expected.splitlines()) == 3


def test_a_line_that_cannot_be_read_ends_it_after_whole_answers(file: Path) -> None:
    given, expected = block("jsonl")
    first, second, third = given.splitlines()
    result = run(f"{first}\n\n{second[:-5]}\n{third}\n", file)
    assert (result.exit_code, result.stdout) == (2, expected.splitlines()[0] + "\n")
    assert re.fullmatch(r"Error: line 3: Invalid JSON: EOF while parsing .*\n", result.stderr)


def test_time_does_not_go_back(file: Path) -> None:
    first, second, _ = block("jsonl")[0].splitlines()
    result = run(f"{second}\n{first}\n", file)
    assert result.exit_code == 2
    assert result.stderr == (
        "Error: line 2: observation.at: 2026-11-28T12:00:00+00:00 is before the time of the line before it\n"
    )


def test_bytes_that_are_no_text_and_policies_that_are_none_are_told(file: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["replay", "--policy", str(file)], input=b"\xff\n")
    assert (result.exit_code, result.stdout) == (2, "")
    none = tmp_path / "none.yaml"
    result = run("", none)
    assert (result.exit_code, result.stderr) == (2, f"Error: {none} cannot be read: No such file or directory.\n")
    none.write_text(yaml.safe_dump({"kind": "TuningPolicy", "spec": {"mode": "Enforc"}}))
    result = run("", none)
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: The policy cannot be read: spec.mode: ")
    assert CliRunner().invoke(main, ["replay"]).exit_code == 2


def test_what_the_api_server_would_refuse_or_drop_of_a_policy_is_told_before_anything_rests_on_it(
    tmp_path: Path,
) -> None:
    file = tmp_path / "policy.yaml"
    workers = [{"name": "*", "memory": {"min": "1500Mi", "max": "1Gi"}, "concurrency": {"min": 3, "max": 2}}]
    written = {"airflow": {}, "workers": workers, "changes": {"releeses": False}}
    file.write_text(yaml.safe_dump({"kind": "TuningPolicy", "spec": written}))
    result = run("", file)
    assert (result.exit_code, result.stderr) == (
        2,
        f"Error: The policy in {file} would be refused: spec.airflow needs one of release and selector; "
        "spec.changes has no field releeses; spec.workers.0.concurrency.min is above spec.workers.0.concurrency.max; "
        "spec.workers.0.memory.min is above spec.workers.0.memory.max.\n",
    )


def test_each_answer_is_there_before_the_next_line_is_asked_for(file: Path) -> None:
    command = [sys.executable, "-m", "airflow_tuner", "replay", "--policy", str(file)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line, expected in zip(*(text.splitlines() for text in block("jsonl")), strict=True):
            process.stdin.write(line + "\n")
            process.stdin.flush()
            assert process.stdout.readline() == expected + "\n"
        process.stdin.close()
        assert process.wait(30) == 0


def test_long_replays_say_how_far_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "QUIET", 0.0)
    told: list[str] = []
    seen = [observed(worker(pod()), at=NOW + timedelta(minutes=number)) for number in range(2)]
    assert len([*replay.answers(policy(), map(transcript.written, seen), told.append)]) == 2
    assert re.fullmatch(r"1 observation so far, as of 2026-11-24 12:00, \d+ per second", told[0])


def test_the_page_of_the_lines_is_as_generated() -> None:
    assert (ROOT / "docs" / "replay-lines.md").read_text() == form.rendered()


def test_every_line_is_valid_by_its_schema() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    told = CliRunner().invoke(main, ["replay", "--schema"]).stdout
    given, expected = block("jsonl")
    for name, text in (("observation", given), ("decision", expected)):
        for line in text.splitlines():
            jsonschema.validate(json.loads(line), json.loads(told)[name])
