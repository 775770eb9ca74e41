"""`replay --from-prometheus`: two weeks of a story in a real Prometheus, told again with the operator in it."""

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import yaml
from click.testing import CliRunner, Result

from airflow_tuner import api, digest, observe, page, replay, transcript
from airflow_tuner.__main__ import main
from airflow_tuner.chronicle import Chronicle, Course, Sums, sums
from airflow_tuner.errors import Misconfigured, Unavailable
from airflow_tuner.fleet.loads import OFFICE, Burst, Load
from airflow_tuner.fleet.scenarios import Scenario
from airflow_tuner.hindsight import Hindsight, times_of
from airflow_tuner.prometheus import Prometheus as Client
from airflow_tuner.recording import Recording
from airflow_tuner.settings import Source
from airflow_tuner.traces import stated
from edges.servers import serving
from testbed import browser
from testbed.commands import run
from testbed.processes import Area, free_port
from testbed.programs import program
from testbed.prometheus import Prometheus
from testbed.weeks_past import CORES, MI, Past

DAY, HOUR = 86400, 3600
SPAN = {"start", "end", "step"}
STORY = Scenario(
    "fortnight",
    "Two weeks of a small Airflow.",
    (
        Load("etl", 200, 60, daily=420, hours=OFFICE, memory_spread=0.4, seconds_spread=0.5),
        Load("night", 300, 60, bursts=(Burst(24, hour=2.0),), memory_spread=0.2, seconds_spread=0.2),
        # On day 11 one takes much, and on day 13 one takes more than there is.
        Load("large", 900, 2200, bursts=(Burst(1, hour=4.0, first=11.0, last=12.0),), memory_spread=0.0),
        Load("monster", 900, 5000, bursts=(Burst(1, hour=9.5, first=13.0),), memory_spread=0.0, most=5000, retries=1),
    ),
    workers=3,
    slots=4,
    warm_up=0,
    days=14,
)
LIMIT = 4096
STEP = 1800
POLICY = """\
apiVersion: airflow-tuner.dev/v1alpha1
kind: TuningPolicy
metadata: {name: fortnight, namespace: airflow}
spec:
  airflow: {release: airflow, version: "3"}
  workers:
  - {name: default, memory: {min: 512Mi, max: 8Gi}, cpu: {min: 100m, max: "4"}, concurrency: {min: 2, max: 16}}
  scheduler: {memory: {min: 256Mi, max: 2Gi}}
  celery: {brokerSecretRef: {name: broker-url}}
  changes: {releases: true}
"""


@pytest.fixture(scope="module")
def past() -> Past:
    return Past(STORY, LIMIT)


@pytest.fixture(scope="module")
def source(area: Area, needs: Callable[..., None], past: Past) -> Iterator[Prometheus]:
    """It knows the fortnight, and a day of another Airflow without kube-state-metrics."""
    needs("prometheus", "promtool")
    running = Prometheus(area, [])
    written = running.config.with_suffix(".openmetrics")
    with written.open("w") as file:
        file.writelines(past.lines())
        file.writelines(Past(replace(STORY, days=1), LIMIT, bare=True, namespace="bare").lines())
        file.write("# EOF\n")
    blocks = ["tsdb", "create-blocks-from", "--max-block-duration=486h", "openmetrics", "--quiet"]
    run([program("promtool"), *blocks, written, running.data], timeout=300)
    with running:
        yield running


@dataclass(frozen=True)
class Told:
    """One look back: its lines, and its chronicle."""

    seen: list[str]
    answers: list[str]
    chronicle: Chronicle

    @property
    def workers(self) -> Course:
        """The target that all is about."""
        return self.chronicle.courses["worker/default"]

    @property
    def sums(self) -> Sums:
        """It in numbers."""
        return sums(self.chronicle, self.workers)


def looked_back(url: str, times: range, namespace: str = "airflow", *said: str) -> Told:
    document: dict[str, Any] = yaml.safe_load(POLICY)
    document["metadata"]["namespace"] = namespace
    back = Hindsight(document, url, times, dict(stated(text) for text in said), lambda _: None)

    async def turns() -> list[tuple[str, str]]:
        return [(transcript.written(seen), transcript.answered(seen, came)) async for seen, came in back.turns()]

    found = asyncio.run(turns())
    return Told([seen for seen, _ in found], [answer for _, answer in found], back.chronicle)


@pytest.fixture(scope="module")
def fortnight(source: Prometheus, past: Past) -> Told:
    times = range(past.begin + STEP, past.begin + 14 * DAY + 1, STEP)
    return looked_back(source.url, times, "airflow", "worker/default=slots:4")


def command(source: str, tmp_path: Path, *words: str, policy: str = POLICY) -> Result:
    file = tmp_path / "policy.yaml"
    file.write_text(policy)
    return CliRunner().invoke(main, ["replay", "--from-prometheus", source, "--policy", str(file), *words])


def test_what_was_set_and_used_is_told_as_it_was(fortnight: Told, past: Past) -> None:
    told = fortnight.sums
    assert len(fortnight.answers) == 14 * DAY // STEP
    assert told.hours == pytest.approx(14 * 24)
    assert told.requested[0] == pytest.approx(14 * 24 * 3 * LIMIT / 1024)
    assert told.peak is not None
    # A scrape may have caught a probe.
    assert max(past.held) <= told.peak / MI < max(past.held) + 160
    for number, look in list(fortnight.workers.looks.items())[::50]:
        minutes = slice(number * STEP // 60, (number + 1) * STEP // 60)
        assert look.held is not None
        assert max(past.held[minutes]) <= look.held / MI + 1 < max(past.held[minutes]) + 160
        assert look.busy == past.busy[minutes][-1]
        assert look.waiting == past.waiting[minutes][-1]


def test_a_week_on_less_is_requested_and_the_rest_of_the_policy_is_told_too(fortnight: Told) -> None:
    assert fortnight.sums.requested[1] < 0.7 * fortnight.sums.requested[0]
    reasons = dict(reversed([(change.reason, number) for number, change in fortnight.workers.changes]))
    assert min(reasons.values()) > 6 * DAY // STEP, "nothing before a week is known"
    assert {"MemoryReleased", "SlotsReleased", "OutOfMemory"} <= reasons.keys()
    assert {*fortnight.chronicle.courses} == {"worker/default", "scheduler"}, "the policy names no other"


def test_less_cpu_is_requested_where_the_policy_names_it(fortnight: Told) -> None:
    cores = fortnight.sums.cores
    assert cores is not None
    assert cores[0] == pytest.approx(14 * 24 * 3 * CORES)
    assert cores[1] < 0.9 * cores[0]
    scheduler = fortnight.chronicle.courses["scheduler"]
    assert sums(fortnight.chronicle, scheduler).cores is None
    (moved, *_) = [change for _, change in fortnight.workers.changes if change.before.cpu != change.after.cpu]
    assert moved.before.cpu.request == 1000 * CORES
    assert f"instead of {cores[0]:,.0f} (" in digest.text(fortnight.chronicle)
    assert "CPU of one pod" in page.rendered(fortnight.chronicle)


def test_the_kills_that_happened_are_those_of_the_story(fortnight: Told, past: Past) -> None:
    happened = [kill for kill in fortnight.workers.kills if kill.happened]
    assert len(past.kills) == len(happened) == 2
    assert {kill.pod for kill in happened} == {f"airflow-worker-{worker}" for _, worker in past.kills}
    assert {kill.limit for kill in happened} == {LIMIT * MI}
    for kill, (second, _) in zip(happened, past.kills, strict=True):
        assert 0 < kill.at.timestamp() - past.begin - second < STEP + 300


def test_where_more_was_held_than_was_decided_a_kill_would_have_been_and_its_answer(
    fortnight: Told, past: Past
) -> None:
    (kill, *_) = imagined = [kill for kill in fortnight.workers.kills if not kill.happened]
    assert kill.held is not None
    assert kill.then is not None
    assert kill.then < kill.held < LIMIT * MI
    day = (kill.at.timestamp() - past.begin) / DAY
    assert 11.1 < day < 11.3
    answers = [
        change
        for number, change in fortnight.workers.changes
        if fortnight.chronicle.moments[number] == kill.at and change.reason == "OutOfMemory"
    ]
    assert len(answers) == 1
    assert (answers[0].after.memory.limit or 0) > kill.then
    assert fortnight.sums.imagined == len(imagined) <= 2
    assert fortnight.sums.over <= len(imagined) * STEP / HOUR
    assert any(one.reason == "OutOfMemory" for one in fortnight.chronicle.said)


def test_plain_replay_of_its_observations_decides_the_same(fortnight: Told) -> None:
    policy = yaml.safe_load(POLICY)
    policy["spec"]["mode"] = "Enforce"
    # The days on which anything happens.
    assert [*replay.answers(policy, fortnight.seen[:400], lambda _: None)] == fortnight.answers[:400]


def test_a_queue_in_the_night_is_seen_and_would_have_got_slots(source: Prometheus, past: Past) -> None:
    night = past.begin + 3 * DAY + 2 * HOUR
    told = looked_back(source.url, range(night - 600, night + 900, 60), "airflow", "worker/default=slots:4")
    assert told.sums.late is not None
    waited = [past.waiting[(night - past.begin) // 60 + minute - 1] for minute in range(-10, 15)]
    assert [look.waiting for look in told.workers.looks.values()] == waited
    assert max(waited) > 3
    # The nights before are known, too: it may be foreseen.
    assert {change.reason for _, change in told.workers.changes} & {"SlotsExhausted", "SlotsForecast"}
    slots = [look.slots for look in told.workers.looks.values()]
    assert {before for before, _ in slots} == {12}
    assert slots[0][1] == 12
    assert 12 < (slots[-1][1] or 0) <= 33
    assert len(told.workers.changes) < 4, "what was answered is not answered again and again"


def test_without_kube_state_metrics_it_asks_for_what_it_cannot_know(
    source: Prometheus, past: Past, tmp_path: Path
) -> None:
    until = datetime.fromtimestamp(past.begin + DAY, UTC).isoformat()
    words = ("-n", "bare", "--since", "6h", "--step", "30m", "--until", until)
    result = command(source.url, tmp_path, *words)
    assert result.exit_code == 2
    assert "State it as it was" in result.stderr
    assert "--workload worker/default=cpu:500m,limit:2Gi,request:1Gi" in result.stderr
    assert "--workload scheduler=limit:2Gi,request:1Gi" in result.stderr, "its CPU is not named"
    own = ["--workload", "worker/default=limit:4Gi,request:2Gi,cpu:2", "--workload", "scheduler=limit:1Gi,request:none"]
    result = command(source.url, tmp_path, *words, *own)
    assert result.exit_code == 0, result.stderr
    assert "instead of 36.0 (" in result.stdout, "6 hours of 3 x 2 GiB"
    assert "kills of whole containers are not known" in result.stdout
    assert "worker/default=slots:16" in result.stdout


def test_the_command_writes_lines_or_a_summary_and_a_report(source: Prometheus, past: Past, tmp_path: Path) -> None:
    until = datetime.fromtimestamp(past.begin + 14 * DAY, UTC).isoformat()
    words = ("--since", "16h", "--step", "30m", "--until", until, "--workload", "worker/default=slots:4")
    lines = command(source.url, tmp_path, *words, "-o", "decisions").stdout.splitlines()
    assert [transcript.read_answer(line).at.minute for line in lines] == [30, 0] * 16
    seen = command(source.url, tmp_path, *words, "-o", "observations").stdout.splitlines()
    assert transcript.read(seen[0], 1).at == transcript.read_answer(lines[0]).at
    report = tmp_path / "report.html"
    result = command(source.url, tmp_path, *words, "--html", str(report))
    assert "In 15.5 hours (32 looks) airflow-tuner would have made" in result.stdout
    assert "2 kills for memory happened." in result.stdout
    assert "2 kills for memory happened." in report.read_text()


@pytest.mark.skipif(not browser.there(), reason="there is no chromium: make system installs it")
def test_a_browser_opens_the_report_without_an_error_and_without_a_network(fortnight: Told, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    report.write_text(page.rendered(fortnight.chronicle))
    opened = browser.opened(report, tmp_path)
    assert (opened.console, opened.requests) == ((), ())
    assert opened.dom.count("<svg") == opened.dom.count("</svg>") >= 3
    for sentence in digest.sentences(fortnight.chronicle):
        assert sentence.partition("(")[0] in opened.dom
    assert opened.dom.count('class="kill imagined"') == fortnight.sums.imagined
    assert opened.dom.count('class="kill happened"') == 2
    assert len(re.findall(r'<path class="change"', opened.dom)) >= len(fortnight.workers.changes)


@pytest.mark.skipif(not browser.there(), reason="there is no chromium: make system installs it")
def test_the_browser_would_tell_of_errors_and_of_a_network(tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text("<img src='http://127.0.0.1:9/x.png'><script>nothing()</script>")
    opened = browser.opened(bad, tmp_path)
    assert "nothing is not defined" in opened.console[0]
    assert opened.requests == ("http://127.0.0.1:9/x.png",)


def test_who_does_not_answer_is_said_to_be_so(tmp_path: Path) -> None:
    result = command(f"http://127.0.0.1:{free_port()}", tmp_path)
    assert result.exit_code == 2
    assert "no connection" in result.stderr
    assert "kubectl port-forward" in result.stderr
    token = tmp_path / "token"
    token.write_text("let-me-in\n")
    with serving("<html>a login</html>") as server:
        result = command(server.url, tmp_path, "--token-file", str(token))
        assert "does not answer as a Prometheus does" in result.stderr
        assert server.asked[0][1]["Authorization"] == "Bearer let-me-in"


def test_a_past_that_is_not_there_is_said_to_be_so(source: Prometheus, past: Past, tmp_path: Path) -> None:
    until = datetime.fromtimestamp(past.begin + DAY, UTC).isoformat()
    result = command(source.url, tmp_path, "-n", "nowhere", "--until", until)
    assert result.exit_code == 2
    assert "no containers of an Airflow in namespace nowhere between 2026-" in result.stderr
    assert "it has some in airflow and bare" in result.stderr or "it has some in airflow, bare" in result.stderr
    # What begins within the time is told from there on.
    words = ("--since", "2d", "--step", "1h", "--until", until, "--workload", "worker/default=slots:4")
    result = command(source.url, tmp_path, *words)
    assert result.exit_code == 0, result.stderr
    assert f"knows this Airflow only from {datetime.fromtimestamp(past.begin, UTC):%Y-%m-%d}" in result.stdout


def test_what_is_too_much_at_once_is_asked_for_by_halves() -> None:
    answer = json.dumps({"status": "success", "data": {"resultType": "matrix", "result": []}})
    spec = api.Spec.model_validate({"airflow": {"release": "airflow"}})
    times = range(3600, 86400, 600)
    asked: list[int] = []
    with serving() as server:

        def body() -> str:
            found = {key: float(value[0]) for key, value in parse_qs(server.asked[-1][0]).items() if key in SPAN}
            looks = int((found["end"] - found["start"]) / found["step"]) + 1
            server.status = 422 if looks > 40 else 200
            asked.extend(range(int(found["start"]), int(found["end"]) + 1, 600) if looks <= 40 else ())
            return answer

        server.body = body
        source = Client("default", Source(url=server.url))
        recording = Recording(source, spec, "airflow", times, 300, airflow=False)

        async def read() -> int:
            return len([known async for known in recording.moments(lambda _: None)])

        assert asyncio.run(read()) == len(times)
        questions = len([*observe.wanted(airflow=False)]) + 1
        assert sorted(asked) == sorted([*times] * questions), "each moment once"
        server.body, server.status = answer, 401
        with pytest.raises(Unavailable, match="status 401"):
            asyncio.run(read())


def test_what_is_there_now_and_was_not_then_is_said_to_be_so() -> None:
    bodies = {
        "query_range": {"resultType": "matrix", "result": []},
        "query?": {"resultType": "vector", "result": [{"metric": {"namespace": "airflow"}, "value": [1, "3"]}]},
    }
    with serving() as server:
        server.body = lambda: json.dumps(
            {"status": "success", "data": next(body for key, body in bodies.items() if key in server.asked[-1][0])}
        )
        with pytest.raises(Misconfigured, match="in namespace airflow now, but none between 1970-01-01"):
            looked_back(server.url, range(3600, 86400, 3600))
        bodies["query?"] = {"resultType": "vector", "result": []}
        with pytest.raises(Misconfigured, match="Check that it scrapes the kubelets"):
            looked_back(server.url, range(3600, 86400, 3600))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--since", "yesterday"], "--since 'yesterday' is no time such as 14d, 36h or 5m."),
        (["--step", "1s"], "--step 1s: it must be from 30s to 1h."),
        (["--since", "5m"], "that must make 2 to 100000 looks"),
        (["--until", "noon"], "--until 'noon' is no time such as 2026-11-28T12:00Z."),
        (["--workload", "worker/default=slots:many"], "It has the form worker/default=limit:2Gi,request:1Gi,slots:16."),
        (["--workload", "worker/default=colour:red"], "there is no 'colour'; there are limit, request, cpu"),
        (["--html", "/nowhere/report.html"], "/nowhere is no folder that can be written to"),
    ],
)
def test_what_cannot_be_read_is_said_before_anything_is_asked(words: list[str], told: str, tmp_path: Path) -> None:
    with serving() as server:
        result = command(server.url, tmp_path, *words)
        assert result.exit_code == 2
        assert told in result.stderr
        assert server.asked == []


def test_an_address_that_is_none_and_targets_that_are_not_there_are_named(
    source: Prometheus, past: Past, tmp_path: Path
) -> None:
    assert "is no address such as http://localhost:9090" in command("localhost", tmp_path).stderr
    until = datetime.fromtimestamp(past.begin + DAY, UTC).isoformat()
    words = ("--since", "2h", "--step", "30m", "--until", until)
    result = command(source.url, tmp_path, *words, "--workload", "worker/heavy=slots:4")
    assert "there is no worker/heavy; there are: scheduler, dag-processor, worker/default." in result.stderr
    triggerer = POLICY.replace("scheduler:", "triggerer:").replace("name: default", "name: heavy")
    result = command(source.url, tmp_path, *words, policy=triggerer)
    assert "The policy names none of the workloads that there are: scheduler, dag-processor" in result.stderr


def test_moments_are_whole_steps_and_end_no_later_than_now() -> None:
    now = datetime(2026, 11, 28, 12, 3, tzinfo=UTC)
    times = times_of("1h", "5m", None, now)
    assert (len(times), times[-1]) == (12, int(datetime(2026, 11, 28, 12, tzinfo=UTC).timestamp()))
    assert times_of("1h", "5m", "2027-01-01T00:00Z", now) == times
    assert times_of("1h", "5m", "2026-11-28T12:00", now) == times
