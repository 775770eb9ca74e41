"""What the operator would have done with the past that a Prometheus knows: `replay --from-prometheus`.

Moment by moment the operator's own questions are answered from the past, and go through the operator's own code.
"""

import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from airflow_tuner import api, chronicle, executor, observe, parsing, policies
from airflow_tuner.archive import Archive
from airflow_tuner.chronicle import Chronicle
from airflow_tuner.counterfactual import Counterfactual, remembered
from airflow_tuner.decide import bounds_of
from airflow_tuner.errors import Misconfigured, Unavailable
from airflow_tuner.executor import UNKNOWN
from airflow_tuner.history import History
from airflow_tuner.inventory import executors_of
from airflow_tuner.model import Observation, Workload
from airflow_tuner.observe import Heard
from airflow_tuner.outcome import Outcome, outcome
from airflow_tuner.prometheus import Prometheus, moment
from airflow_tuner.recording import PART, Moment, Recording
from airflow_tuner.replay import QUIET
from airflow_tuner.sentence import counted, listed, short
from airflow_tuner.settings import Source
from airflow_tuner.traces import Stated, Traces

Object = dict[str, Any]

PATIENCE = 60.0
"""Seconds that an answer may take: it may read a day of samples."""

LATER = 7200
"""Seconds by which the past may begin later than it was asked for without a word."""


@dataclass(slots=True)
class Hindsight:
    """One look back. `policy` as it is written; `times` in seconds since 1970; `stated`: by target."""

    policy: Object
    url: str
    times: range
    stated: Mapping[str, Stated]
    progress: Callable[[str], None]
    token: str | None = None
    """File with a bearer token."""
    chronicle: Chronicle = field(init=False)
    questions: int = 0
    """Questions that were asked."""
    _told: float = field(default_factory=time.monotonic)
    _history: Mapping[str, History] = field(default_factory=dict)

    async def turns(self) -> AsyncIterator[tuple[Observation, Outcome]]:
        """Each moment, as the operator would have seen it, and what would have come of it."""
        # What it would do is the question, also of a policy that only recommends yet.
        spec, prior = policies.parsed({**self.policy, "spec": {**self.policy["spec"], "mode": "Enforce"}})
        namespace = self.policy["metadata"]["namespace"]
        source = self._source()
        seen_by, shown_by = Traces(spec, self.stated), Counterfactual(live=spec.celery is not None)
        recording = await self._recording(source, spec, namespace)
        name, times = self.policy["metadata"].get("name", "policy"), recording.times
        begin, end = moment(times[0]), moment(times[-1])
        self.chronicle = Chronicle(
            f"{short(name)} in namespace {short(namespace)}",
            f"What airflow-tuner would have done from {begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC, from the "
            f"metrics that Prometheus has kept of that time: a look every {_span(times.step)}, through the operator's "
            "own code.",
            spec.objectives.queue_lag_seconds,
        )
        first = True
        async for known in recording.moments(lambda part: self._say(part, times)):
            seen = observation(spec, known, seen_by)
            if first and seen.workloads:
                first = False
                self._require(seen_by, seen.workloads)
                await self._remember(source, spec, namespace, seen)
            held = {item.labels.get("pod", ""): item.value for item in known.values.get("held", ())}
            shown, kills = shown_by.shown(seen, held)
            shown = replace(shown, histories=remembered(self._history, kills))
            came = outcome(spec, shown, prior, identity=self.policy["metadata"].get("uid", ""))
            prior, self._history = came.status, came.seen.histories
            shown_by.carry_out(came)
            looks = chronicle.looks(spec, seen, shown, held, seen)
            changes = [*came.decision.changes, *came.decision.released]
            self.chronicle.note(known.at, looks, changes, came.findings, kills)
            self.questions = source.calls
            yield shown, came
        if first:
            msg = (
                f"No container in namespace {short(namespace)} is named as one of Airflow's components, in a pod that "
                "is named as a Deployment or a StatefulSet names its own."
            )
            raise Misconfigured(msg)
        self.chronicle.notes += notes(spec, seen_by, recording, self.stated, self.times[0])
        self.chronicle.close()

    def _source(self) -> Prometheus:
        try:
            told = {"url": self.url, "timeoutSeconds": PATIENCE, "bearerTokenFile": self.token}
            return Prometheus("of --from-prometheus", Source.model_validate(told))
        except ValueError as error:
            msg = f"--from-prometheus {short(self.url)!r} is no address such as http://localhost:9090."
            raise Misconfigured(msg) from error

    async def _recording(self, source: Prometheus, spec: api.Spec, namespace: str) -> Recording:
        """The past that there is of what was asked for; an error says what to do where there is none."""
        told = [item.values.interval for item in self.stated.values() if item.values.interval]
        rounds = max(spec.metrics.window_seconds, parsing.ROUNDS * max(told, default=0))
        runs = executor.option(spec.airflow.executor, "spec.airflow.executor") if spec.airflow.executor else UNKNOWN
        asks = observe.asks_airflow(spec, runs)
        recording = Recording(source, spec, namespace, self.times, rounds, asks)
        try:
            begins = await recording.begins()
            there = ([], []) if begins is not None else await recording.namespaces()
        except Unavailable as error:
            msg = (
                f"{error} Check that {short(self.url)} is a Prometheus' address that this machine reaches; one in a "
                "cluster can be had with `kubectl port-forward service/<its name> 9090`."
            )
            raise Unavailable(msg) from error
        if begins is None:
            raise Misconfigured(_nothing(namespace, *there, self.times))
        if begins - self.times[0] > LATER:
            recording.times = self.times[(begins - self.times[0]) // self.times.step :]
        return recording

    def _require(self, known: Traces, workloads: tuple[Workload, ...]) -> None:
        """What nobody knows must be stated, and what is stated must be there."""
        targets = [item.target for item in workloads]
        if strange := sorted({*self.stated} - {*targets}):
            msg = f"--workload: there is no {listed(strange)}; there are: {', '.join(targets)}."
            raise Misconfigured(msg)
        if not any(_named(known.spec, item) for item in workloads):
            msg = f"The policy names none of the workloads that there are: {', '.join(targets)}."
            raise Misconfigured(msg)
        lacking = {
            item.target: sorted(parts)
            for item in workloads
            if (parts := known.unknown.get(item.target)) and _named(known.spec, item)
        }
        if lacking:
            examples = " ".join(
                f"--workload {target}={','.join(f'{part}:{_EXAMPLE[part]}' for part in parts)}"
                for target, parts in lacking.items()
            )
            msg = (
                "This Prometheus has no series of kube-state-metrics that say what memory and CPU the containers had. "
                f"State it as it was ('none' where none was set), e.g. {examples}."
            )
            raise Misconfigured(msg)

    async def _remember(self, source: Prometheus, spec: api.Spec, namespace: str, seen: Observation) -> None:
        """What the operator reads of the time before at its start."""
        archive = Archive()
        archive.begin(None, "", seen.at)
        archive.named(spec, seen.at)
        while archive.due(seen.at) and archive.next is not None:
            self._tell(f"reading the weeks before: {counted(len(archive.next.hours), 'hour', 'hours')} to go")
            await archive.read(source, spec, namespace, seen)
        self._history = archive.histories

    def _say(self, part: range, times: range) -> None:
        day, days = (part[0] - times[0]) // PART + 1, (times[-1] - times[0]) // PART + 1
        self._tell(f"{moment(part[0]):%Y-%m-%d}, day {day} of {days}: asking Prometheus and deciding")

    def _tell(self, text: str) -> None:
        if time.monotonic() - self._told >= QUIET:
            self._told = time.monotonic()
            self.progress(text)


_EXAMPLE = {"limit": "2Gi", "request": "1Gi", "cpu": "500m"}


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}

MOST = 100_000
"""Looks; a month of one a minute has 43,200."""


def times_of(since: str, step: str, until: str | None, now: datetime) -> range:
    """The moments to look at, on whole steps; `Misconfigured` says what is wrong with them."""
    back, every = _seconds("--since", since), _seconds("--step", step)
    if not 30 <= every <= 3600:  # noqa: PLR2004 - as the message says
        msg = f"--step {short(step)}: it must be from 30s to 1h."
        raise Misconfigured(msg)
    if back < 2 * every or back // every > MOST:
        msg = f"--since {short(since)} --step {short(step)}: that must make 2 to {MOST} looks."
        raise Misconfigured(msg)
    try:
        end = now if until is None else datetime.fromisoformat(until)
    except ValueError as error:
        msg = f"--until {short(until or '')!r} is no time such as 2026-11-28T12:00Z."
        raise Misconfigured(msg) from error
    end = end if end.tzinfo else end.replace(tzinfo=UTC)
    last = int(min(end, now).timestamp()) // every * every
    return range(last - back // every * every + every, last + 1, every)


def _seconds(option: str, text: str) -> int:
    found = re.fullmatch(r"([1-9][0-9]{0,6})([smhdw])", text.strip())
    if found is None:
        msg = f"{option} {short(text)!r} is no time such as 14d, 36h or 5m."
        raise Misconfigured(msg)
    return int(found[1]) * _UNITS[found[2]]


def _named(spec: api.Spec, workload: Workload) -> bool:
    return bounds_of(spec, workload.component, workload.target, workload.name) is not None


def observation(spec: api.Spec, known: Moment, seen_by: Traces) -> Observation:
    """A moment as it was. Pure."""
    workloads = seen_by.workloads(known.at, known.values)
    stated = executor.option(spec.airflow.executor, "spec.airflow.executor") if spec.airflow.executor else UNKNOWN
    runs = stated or executors_of(workloads)
    asks = observe.asks_airflow(spec, runs)
    heard = Heard(known.values, naming=known.naming, of_airflow=asks)
    return observe.observed(spec, workloads, seen_by.line, heard, known.at, stated)


def _nothing(namespace: str, then: list[str], now: list[str], times: range) -> str:
    begin, end = moment(times[0]), moment(times[-1])
    told = f"between {begin:%Y-%m-%d %H:%M} and {end:%Y-%m-%d %H:%M} UTC"
    if namespace in now:
        return (
            f"This Prometheus has Airflow's containers in namespace {short(namespace)} now, but none {told}: it no "
            "longer keeps that time, or there was none. Ask for a later one with --since or --until."
        )
    if then or now:
        return (
            f"This Prometheus has no containers of an Airflow in namespace {short(namespace)} {told}; it has some in "
            f"{listed(sorted({*then, *now}), 5)}. Name the right one with --namespace, or correct "
            "spec.metrics.matchLabels."
        )
    return (
        f"This Prometheus has no containers of an Airflow {told} (container_memory_rss with the label container). "
        "Check that it scrapes the kubelets' cAdvisor metrics, and spec.metrics.matchLabels."
    )


def _span(seconds: int) -> str:
    if seconds == 60:  # noqa: PLR2004 - a minute
        return "minute"
    return f"{seconds // 60} minutes" if seconds % 60 == 0 else f"{seconds} s"


def notes(spec: api.Spec, seen: Traces, recording: Recording, stated: Mapping[str, Stated], wanted: int) -> list[str]:
    """What it cannot know, and what is assumed, in sentences."""
    found = [
        "The use is as it was: a decision does not change the past. This is no simulation. What changes is what would "
        "have been set, and that is held against what was used.",
        "Every decision is taken to be in force at the next look: memory in running pods, in place; a first limit, and "
        "how DAG files are parsed, in pods that were born later"
        + (" or that the policy lets be restarted" if spec.changes.restarts.allowed else "")
        + f"; slots {'while workers run' if spec.celery is not None else 'in workers that were born later'}. The mode "
        "is taken to be Enforce, and a pause is passed over.",
        "Memory is anonymous memory (container_memory_rss) as it was sampled: a spike between two samples is not seen. "
        "Where a container was killed at its limit, nobody knows how much it would have taken.",
        "A kill that happened is held against the limit that would have been in force. Where that is larger by a fifth "
        "or more (as much as a killed container is taken to have wanted), nobody knows whether it would have been "
        "enough: such a kill is counted apart, and the decisions after it see what was wanted, and no kill. All others "
        "are taken to have happened all the same.",
        "Where more slots would have been free, tasks that waited are taken to run; what they would have held there, "
        "and how much sooner they would have been done, is not known.",
        "Metrics do not say what the pod templates say: probes and the workers' grace period are taken as the official "
        "chart has them, environment variables as they are stated.",
    ]
    found.append(
        "Memory limits, requests and deaths of containers are kube-state-metrics'."
        if seen.objects_known
        else "Without kube-state-metrics, kills of whole containers are not known, and memory is taken as it is stated."
    )
    if spec.celery is not None:
        found.append(
            "What workers would say over the Celery broker is in no metric: they are taken to share evenly what runs."
        )
    if spec.tunes_slots and not any(item.values.concurrency for item in stated.values()):
        found.append(
            "How many slots the workers had is in no metric, so their slots are left alone. State it, as in "
            "--workload worker/default=slots:16."
        )
    if not recording.airflow:
        found.append("The policy tunes neither slots nor parsing: Airflow's own metrics were not looked at.")
    if (first := recording.times[0]) > wanted:
        found.append(f"Prometheus knows this Airflow only from {moment(first):%Y-%m-%d %H:%M} UTC on.")
    if seen.others:
        release = spec.airflow.release or ""
        found.append(f"Left out, as their names do not begin with {short(release)}: {listed(sorted(seen.others), 5)}.")
    found += [f"Could not be read: {name}. {told}" for name, told in recording.missing.items()]
    return found
