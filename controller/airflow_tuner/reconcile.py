"""One turn of the loop: observe, diagnose, decide, record, act.

The status is written before anything is done: new pods are shaped by it at once, and whatever is killed afterwards, the
next turn finds the same desired state and finishes the work.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from airflow_tuner import (
    actuator,
    api,
    budget,
    checkpoint,
    learning,
    policies,
    restarts,
    rivals,
    status,
    task_page,
    witness,
)
from airflow_tuner.airflow_api import AirflowApi
from airflow_tuner.archive import Archive
from airflow_tuner.autoscaler import Autoscaler
from airflow_tuner.autoscalers import Autoscalers
from airflow_tuner.brokers import Brokers
from airflow_tuner.budget import Ledger
from airflow_tuner.calendars import Calendar
from airflow_tuner.cluster import Cluster, NotFound, policy_path
from airflow_tuner.due import DueRun
from airflow_tuner.errors import Refused, Stale, TunerError, Unavailable
from airflow_tuner.exporter import Exporter
from airflow_tuner.history import History
from airflow_tuner.model import Decision, Finding, Observation
from airflow_tuner.observe import Counts, counts, observe
from airflow_tuner.outcome import outcome
from airflow_tuner.prometheus import Prometheus
from airflow_tuner.recorder import Recorder
from airflow_tuner.rooms import Rooms

Clock = Callable[[], datetime]
Object = dict[str, Any]

AGAIN = timedelta(milliseconds=200)
"""After a write that lost against a newer one; three times as long after each one more in a row, up to `SOON`."""
USUAL = timedelta(seconds=30)
"""Between two turns when nothing happens."""
SOON = timedelta(seconds=5)
"""After a server did not answer, and while the past is being read."""
SLOW = timedelta(seconds=60)
"""After a refusal, or while the user must act."""
EVICT_AGAIN = timedelta(minutes=5)
"""After the API server refused to evict a pod, e.g. for a disruption budget."""
RESIZED = timedelta(seconds=1)
"""After a resize was asked for: the kubelet does it within half a second."""

log = logging.getLogger("airflow_tuner")


@dataclass(frozen=True, slots=True)
class Look:
    """One look at one policy, and what comes of it. Nothing is written."""

    policy: str
    """Its namespace and name."""
    spec: api.Spec
    prior: api.Status
    seen: Observation
    findings: tuple[Finding, ...]
    decision: Decision
    waiting: tuple[restarts.Waiting, ...]
    status: api.Status
    paused: bool
    witnessed: witness.Memory
    """What tasks were seen to run, for the next look."""


@dataclass(frozen=True, slots=True)
class Known:
    """What an operator knows beside a policy."""

    others: Sequence[Object] = ()
    """The policies of its namespace."""
    memory: api.Remembered | None = None
    """Its checkpoint."""
    refusals: Mapping[str, str] = field(default_factory=dict)
    """Changes of running pods that were refused in the last turn, by pod."""
    evictions: Mapping[str, str] = field(default_factory=dict)
    """Evictions that were refused of late, by pod."""
    autoscalers: tuple[Autoscaler, ...] = ()
    """What else changes workloads of its namespace."""
    histories: Mapping[str, History] = field(default_factory=dict)
    """The memory of past hours, by target."""
    reading: bool = False
    """The metrics source is still asked for more of it."""
    witnessed: witness.Memory = witness.NOTHING
    """What tasks were seen to run at the last looks."""
    rooms: Rooms | None = None
    """Where to ask what its namespace and nodes have room for; `None`: that is not looked at."""
    ledger: Ledger | None = None
    """The ordinary changes of the last hour, over all policies; `None`: they are not counted."""
    due: tuple[DueRun, ...] = ()
    """Rare runs of DAGs that are due."""
    calendar: str | None = None
    """What is wrong with Airflow's REST API; empty: it answers."""


NOTHING = Known()


async def look(
    cluster: Cluster,
    sources: Mapping[str, Prometheus],
    brokers: Brokers | None,
    policy: Object,
    now: datetime,
    known: Known = NOTHING,
) -> Look:
    """Observe, diagnose and decide for a policy."""
    spec, prior = policies.parsed(policy)
    where = policy["metadata"]["namespace"]
    seen = await observe(cluster, sources.get(spec.metrics.source), brokers, spec, where, now, prior)
    if known.rooms is not None:
        seen = replace(seen, room=await known.rooms.of(where, seen.workloads, now))
    return concluded(policy, spec, prior, seen, known)


def concluded(policy: Object, spec: api.Spec, prior: api.Status, seen: Observation, known: Known) -> Look:
    """What comes of an observation, with what is known beside it."""
    metadata = policy["metadata"]
    seen = replace(
        seen,
        refusals=known.refusals,
        evictions=known.evictions,
        autoscalers=known.autoscalers,
        histories=known.histories,
        reading=known.reading,
        due=known.due,
        calendar=known.calendar,
    )
    witnessed = witness.noted(known.witnessed, seen)
    seen = replace(seen, ran=witnessed.ran, task_names={**task_page.names(prior), **witnessed.tasks})
    if known.memory is not None:
        prior = checkpoint.recalled(prior, known.memory, metadata["uid"], seen)
    if spec.mode is api.Mode.ENFORCE and (elder := rivals.elder(policy, known.others, seen.workloads)):
        seen, spec = replace(seen, elder=elder), spec.model_copy(update={"mode": api.Mode.RECOMMEND})
    paused, generation = policies.paused(policy), metadata.get("generation", 0)
    if known.ledger is not None:
        # From here to the first await of who called, nobody else spends of it.
        seen = replace(seen, budget=known.ledger.budget(seen.at))
    came = outcome(spec, seen, prior, identity=metadata.get("uid", ""), paused=paused, generation=generation)
    name = f"{metadata['namespace']}/{metadata.get('name', '')}".rstrip("/")
    return Look(
        name, spec, prior, came.seen, came.findings, came.decision, came.waiting, came.status, paused, witnessed
    )


@dataclass
class Turn:
    """The turns of one policy, by one operator process."""

    cluster: Cluster
    recorder: Recorder
    sources: Mapping[str, Prometheus]
    brokers: Brokers
    namespace: str
    name: str
    clock: Clock
    autoscalers: Autoscalers | None = None
    """`None`: they are not looked at."""
    rooms: Rooms | None = None
    """`None`: it is not looked at."""
    exporter: Exporter = field(default_factory=Exporter)
    ledger: Ledger = field(default_factory=Ledger)
    """The ordinary changes of the last hour, over all policies."""
    spec: api.Spec | None = None
    """The spec of the last turn."""
    first: bool = True
    refused: bool = False
    """The last turn was refused something it cannot do without."""
    lost: int = 0
    """Turns in a row whose write lost against a newer one."""
    refusals: dict[str, str] = field(default_factory=dict)
    """Changes of running pods that were refused in the last turn, by pod."""
    evictions: dict[str, tuple[datetime, str]] = field(default_factory=dict)
    """Evictions that were refused of late, by pod: when, and why."""
    waits: dict[str, datetime] = field(default_factory=dict)
    """Since when there was no room on the node for a pod's request, by UID."""
    pods: frozenset[str] = frozenset()
    """The pods of the last turn."""
    witnessed: witness.Memory = witness.NOTHING
    """What tasks were seen to run at the last looks."""
    told: set[tuple[str, int]] = field(default_factory=set)
    """Counts of killed processes that a turn has seen, or was begun for."""
    archive: Archive = field(default_factory=Archive)
    """The memory of past hours."""
    apis: Mapping[str, AirflowApi] = field(default_factory=dict)
    calendar: Calendar = field(default_factory=Calendar)
    """What is due in its Airflow."""

    def news(self, counts: Counts) -> bool:
        """Whether these counts of killed processes are worth a turn; each is so once."""
        fresh = {count for count in counts if count[0] in self.pods} - self.told
        self.told |= fresh
        return bool(fresh)

    async def attempt(self) -> timedelta:
        """One turn, with every error turned into a condition and a delay. Returns when to come again."""
        begun, outcome = asyncio.get_running_loop().time(), "stopped"
        try:
            delay = await self.run()
        except TunerError as error:
            outcome = type(error).__name__
            return await self._failed(error)
        except Exception as error:
            # A bug in one turn must not end the loop: it is told, with its trace in the log, and tried again.
            outcome = "InternalError"
            log.exception("policy %s/%s: the turn failed", self.namespace, self.name)
            return await self._report("InternalError", f"{type(error).__name__}; see the operator's log.", SLOW)
        else:
            outcome = "done"
            return delay
        finally:
            seconds = asyncio.get_running_loop().time() - begun
            self.exporter.turned(self.namespace, self.name, outcome, seconds)

    async def _failed(self, error: TunerError) -> timedelta:
        """What an error of ours means for the next turn."""
        if isinstance(error, Stale):
            self.lost += 1
            return min(AGAIN * float(3 ** min(self.lost - 1, 9)), SOON)
        if isinstance(error, NotFound):
            return SLOW
        # A first refusal may be passing: an API server that has just started refuses everything for a moment.
        again, self.refused = self.refused, isinstance(error, Refused)
        soon = isinstance(error, Unavailable) or (self.refused and not again)
        return await self._report(type(error).__name__, str(error), SOON if soon else SLOW)

    async def run(self) -> timedelta:
        """One turn."""
        present = await self.cluster.list(policy_path(self.namespace), {})
        policy = self._own(present)
        if policy is None or "deletionTimestamp" in policy["metadata"]:
            return SLOW
        if self.first:
            await self.recorder.recall(policy)
            self.archive.begin(self.recorder.memory(policy), policy["metadata"]["uid"], self.clock())
        self.spec = policies.parsed(policy)[0]
        now = self.clock()
        self.archive.named(self.spec, now)
        self.evictions = {pod: told for pod, told in self.evictions.items() if now - told[0] < EVICT_AGAIN}
        evictions = {pod: why for pod, (_, why) in self.evictions.items()}
        others = () if self.autoscalers is None else await self.autoscalers.of(self.namespace, now)
        known = Known(
            present,
            self.recorder.memory(policy),
            self.refusals,
            evictions,
            others,
            histories=self.archive.histories,
            reading=bool(self.archive.next) or self.calendar.reading(self.spec),
            witnessed=self.witnessed,
            rooms=self.rooms,
            ledger=self.ledger,
            due=self.calendar.due(now),
            calendar=self.calendar.problem,
        )
        told = await look(self.cluster, self.sources, self.brokers, policy, now, known)
        acts = told.spec.mode is api.Mode.ENFORCE and not told.paused
        spent = sum(change.reason not in budget.EXEMPT for change in told.decision.changes) if acts else 0
        self.ledger.spend(spent, now)
        self.exporter.spent(self.ledger.budget(now))
        self.witnessed = told.witnessed
        self.pods = frozenset(pod.name for workload in told.seen.workloads for pod in workload.pods)
        self.told = {count for count in self.told if count[0] in self.pods} | counts(told.seen)
        self.archive.histories = told.seen.histories
        try:
            policy = await self.recorder.commit(policy, told.status)
        except (Stale, Refused):
            # One policy whose status is refused in every turn would else spend what all have.
            self.ledger.refund(spent)
            raise
        await self.recorder.remember(policy, told.status, learning.complete(told.seen.histories, now))
        self.exporter.looked(self.namespace, self.name, now, told.findings)
        asked = 0
        if acts:
            self.exporter.changed(self.namespace, self.name, told.decision.changes)
            asked = await self._act(policy, told)
        await self._tell(policy, told)
        await self.recorder.tell_findings(policy, told.prior, told.findings, now, first=self.first)
        self.first, self.refused, self.lost = False, False, 0
        log.info("policy %s/%s: %s", self.namespace, self.name, _sentence(told.decision, told.status))
        self.calendar.begin(self.apis, told.spec, self.namespace, told.seen.line, now)
        await self.archive.read(self.sources.get(told.spec.metrics.source), told.spec, self.namespace, told.seen)
        return RESIZED if asked else SOON if self.archive.due(now) else USUAL

    def _own(self, policies: Sequence[Object]) -> Object | None:
        # The items of a list carry neither kind nor version.
        kind = {"apiVersion": f"{api.GROUP}/{api.VERSION}", "kind": api.KIND}
        return next(({**item, **kind} for item in policies if item["metadata"]["name"] == self.name), None)

    async def _act(self, policy: Object, told: Look) -> int:
        """Change the running pods; how many were asked for something."""
        known = self.refusals.keys()
        asked, self.refusals = await actuator.resize(
            self.cluster, self.namespace, told.decision, self.waits, told.seen.at
        )
        if asked and self.rooms is not None:
            self.rooms.changed(self.namespace)
        self.waits = {uid: at for uid, at in self.waits.items() if told.seen.at - at < actuator.ROOM_AGAIN}
        celery = told.spec.celery if not told.seen.broker else None
        broker = None if celery is None else self.brokers.last(self.namespace, celery.broker_secret_ref)
        more, refused = await actuator.set_slots(broker, told.decision, told.seen.refusals)
        self.refusals |= refused
        first = next(iter(told.waiting), None)
        if first is not None and not first.blocked:
            more += await self._restart(policy, first, told.seen.at)
        # A refusal that is new is worth another turn: its reason stands in the next status.
        return asked + more + len(self.refusals.keys() - known)

    async def _restart(self, policy: Object, first: restarts.Waiting, now: datetime) -> int:
        """Evict a pod, if the API server lets us. The Event comes first: it must not be lost."""
        why = await actuator.evict(self.cluster, self.namespace, first, trial=True)
        if not why:
            await self.recorder.tell_restart(policy, first, now)
            why = await actuator.evict(self.cluster, self.namespace, first)
        if why:
            # What holds for one pod of a workload, such as a disruption budget, holds for the others.
            self.evictions |= {pod.name: (now, why) for pod in first.target.workload.living}
        # Also a refusal is worth another turn: its reason stands in the next status.
        return 1

    async def _tell(self, policy: Object, told: Look) -> None:
        made = status.made(told.spec, told.seen, told.decision)
        await self.recorder.tell_changes(policy, told.status, told.seen.at, made)
        if told.spec.mode is api.Mode.RECOMMEND and told.status != told.prior:
            for change in told.decision.changes:
                if change not in told.decision.released:
                    await self.recorder.tell_advice(
                        policy, change.target, change.decision, change.message, told.seen.at
                    )

    async def _report(self, reason: str, message: str, delay: timedelta) -> timedelta:
        """Say in the status that this turn could not be finished, if the API server lets us."""
        log.warning("policy %s/%s: %s: %s", self.namespace, self.name, reason, message)
        try:
            policy = await self.cluster.get(policy_path(self.namespace, self.name))
            prior = policies.status(policy)
            new = status.failed(prior, reason, message, policy["metadata"]["generation"], self.clock())
            await self.recorder.commit(policy, new)
        except TunerError as error:
            log.warning("policy %s/%s: the status could not be written: %s", self.namespace, self.name, error)
        return delay


def _sentence(decision: Decision, new: api.Status) -> str:
    if decision.changes:
        return " ".join(change.message for change in decision.changes)
    return f"no change. {new.summary}"
