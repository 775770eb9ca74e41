"""The tuner beside a Docker engine: the same turn as the operator's, for the policy in a file.

What it would write into a policy's status stands in its state file, what it would tell in Events on standard error, as
lines of JSON.
"""

import asyncio
import fcntl
import json
import logging
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from airflow_tuner import api, checkpoint, compose, learning, override, policies, project, reconcile, status, witness
from airflow_tuner.budget import EXEMPT, Ledger
from airflow_tuner.database import database_of
from airflow_tuner.engine import Engine
from airflow_tuner.errors import Misconfigured, TunerError
from airflow_tuner.history import History
from airflow_tuner.model import Finding, Observation
from airflow_tuner.project import Project
from airflow_tuner.prometheus import Prometheus
from airflow_tuner.reconcile import Look
from airflow_tuner.recreation import Recreation
from airflow_tuner.settings import Source
from airflow_tuner.store import Store

SAMPLED = 5.0
"""Seconds between two samples of memory and CPU: a task's peak is often short."""
EVERY = timedelta(seconds=15)
"""Between two turns when nothing happens: nothing but a turn looks at the queues."""
AT_MOST_EVERY = timedelta(minutes=10)
"""The beginning of one finding is logged once in this time, and so is its end."""
GATHERED = 0.3
"""Seconds that a kill is waited with: whether its whole container died shows a moment later."""
AGAIN = 2.0
"""Seconds before the engine's events are asked for anew."""
WAKING, URGENT = {"oom", "die", "start"}, {"oom", "die"}
"""Events that are worth a turn, and those that are worth one that waits for nobody."""
STATUS, MEMORY, POLICY = "status", "memory", "policy"
"""Documents of the state file."""

Object = dict[str, Any]

log = logging.getLogger("airflow_tuner")


@dataclass(frozen=True, slots=True)
class Place:
    """Where everything is."""

    policy: Path
    engine: str
    """Address of the Docker engine."""
    state: Path
    sources: Mapping[str, Source]
    broker: Path | None = None
    """File with the broker's URL."""
    database: Path | None = None
    """File with the metadata database's URL."""
    override: Path | None = None
    """Where what was decided is written for docker compose."""


class Lines(logging.Formatter):
    """Log records as JSON, one a line; what is given as `extra={"told": {...}}` is part of it."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": at, "level": record.levelname.lower(), "message": record.getMessage()}
        line |= getattr(record, "told", {})
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line)


async def run(place: Place, stop: asyncio.Event) -> None:
    """Run until `stop` is set; `Misconfigured` where it cannot begin.

    An engine that goes away later is waited for.
    """
    with Store(place.state) as store, _alone(place.state):
        async with _project(place, store) as there:
            turns = Turns(place, there)
            stopped = asyncio.create_task(stop.wait())
            tasks = {asyncio.create_task(work) for work in (turns.take(), turns.sample(), turns.listen())}
            try:
                await asyncio.wait({stopped, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (stopped, *tasks):
                    task.cancel()
                for ended in await asyncio.gather(*tasks, return_exceptions=True):
                    if isinstance(ended, Exception):
                        raise ended


async def look_once(place: Place) -> Look:
    """One look, with what the state file remembers; nothing is written to it, nor changed."""
    with Store.copied(place.state) as store:
        async with _project(place, store) as there:
            return await Turns(place, there).look(datetime.now(UTC))


@asynccontextmanager
async def _project(place: Place, store: Store) -> AsyncIterator[Project]:
    broker, metadata = project.broker_of(place.broker), database_of(place.database)
    try:
        async with Engine(place.engine) as engine:
            source = policies.parsed(_read(place))[0].metrics.source
            known = place.sources.get(source)
            asked = None if known is None else Prometheus(source, known)
            yield Project(engine, store, source=asked, broker=broker, database=metadata)
    finally:
        if broker is not None:
            broker.close()
        if metadata is not None:
            await metadata.close()


def _read(place: Place) -> Object:
    return policies.read(place.policy, "docker")


@contextmanager
def _alone(state: Path) -> Iterator[None]:
    """No other process acts with this state file."""
    with state.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Misconfigured(
                f"Another airflow-tuner runs with the state file {state}: stop it, or name another one with --state."
            ) from error
        yield


@dataclass
class Turns:
    """The turns of one policy beside one engine."""

    place: Place
    project: Project
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    spec: api.Spec | None = None
    refusals: dict[str, str] = field(default_factory=dict)
    """Changes of containers that were refused in the last turn, by container."""
    witnessed: witness.Memory = witness.NOTHING
    histories: dict[str, History] | None = None
    """`None`: not read yet."""
    ledger: Ledger = field(default_factory=Ledger)
    """The ordinary changes of the last hour."""
    told: str = ""
    """The last problem that was logged."""
    begun: dict[tuple[str, str], datetime] = field(default_factory=dict)
    """When it was last logged that a finding began, by reason and target."""
    ended: dict[tuple[str, str], datetime] = field(default_factory=dict)
    """The same of its end."""
    unwritten: str = ""
    """Why the override file was not written in the last turn."""

    @property
    def recreation(self) -> Recreation:
        """What makes containers anew."""
        return Recreation(self.project.engine, self.project.store)

    async def take(self) -> None:
        """Take turns for ever."""
        while True:
            self.wake.clear()
            delay = await self._attempt()
            with suppress(TimeoutError):
                async with asyncio.timeout(delay.total_seconds()):
                    await self.wake.wait()
                    await asyncio.sleep(GATHERED)

    async def sample(self) -> None:
        """Sample memory and CPU between the turns."""
        while True:
            await asyncio.sleep(SAMPLED)
            try:
                await self.project.sample(datetime.now(UTC))
            except TunerError as error:
                log.debug("%s", error)
            except Exception:
                log.exception("a sample failed")

    async def listen(self) -> None:
        """Wake the turns when something is killed, ends or starts."""
        while True:
            try:
                if self.spec is not None:
                    labels = compose.labels(self.spec)
                    async for what in self.project.kills(labels):
                        if what in WAKING:
                            self.wake.set()
                        if what in URGENT:
                            self.project.hurry.set()
                        if labels != compose.labels(self.spec):
                            # The policy names another project now.
                            break
            except TunerError as error:
                log.debug("%s", error)
            except Exception:
                log.exception("an event could not be read")
            await asyncio.sleep(AGAIN if self.spec is not None else GATHERED)

    async def _attempt(self) -> timedelta:
        """One turn; every error becomes a condition and a delay."""
        try:
            delay = await self._turn()
        except TunerError as error:
            # Also an engine that is being restarted: its socket is gone for a moment.
            return self._failed(error, reconcile.SOON)
        except Exception as error:
            # A bug in one turn must not end the loop: it is told, with its trace in the log, and tried again.
            log.exception("the turn failed")
            return self._failed(TunerError(f"{type(error).__name__}; see the log."), reconcile.SLOW)
        self.told = ""
        return delay

    def _failed(self, error: TunerError, delay: timedelta) -> timedelta:
        if str(error) != self.told:
            log.warning("%s", error, extra={"told": {"event": "TurnFailed", "reason": type(error).__name__}})
        self.told = str(error)
        prior = self._prior()
        new = status.failed(prior, type(error).__name__, str(error), prior.observed_generation, datetime.now(UTC))
        with suppress(TunerError):
            self.project.store.write(**{STATUS: status.as_written(new)})
        return delay

    def _prior(self) -> api.Status:
        try:
            return api.Status.model_validate(self.project.store.document(STATUS))
        except ValidationError:
            log.warning("the status in the state file cannot be read and is built anew")
            return api.Status()

    def _memory(self) -> api.Remembered | None:
        try:
            return api.Remembered.model_validate(self.project.store.document(MEMORY))
        except ValidationError:
            return None

    async def look(self, now: datetime) -> Look:
        """Observe, diagnose and decide."""
        policy = _read(self.place)
        identity = str(policy["metadata"].get("name", "airflow"))
        policy["metadata"]["uid"] = identity
        spec, prior = policies.parsed(policy)[0], self._prior()
        self.spec = spec
        memory = self._memory()
        if self.histories is None:
            self.histories = checkpoint.histories(memory, identity)
            self.ledger.recall([prior.history], now)
        seen = await self.project.observe(spec, prior, now)
        known = reconcile.Known(
            memory=memory,
            refusals=self.refusals,
            evictions=self._undone(prior, seen),
            histories=self.histories,
            witnessed=self.witnessed,
            ledger=self.ledger,
        )
        return reconcile.concluded(policy, spec, prior, seen, known)

    def _undone(self, prior: api.Status, seen: Observation) -> dict[str, str]:
        """Containers that are not made anew again for what has failed, and why."""
        tuned = {entry.target: entry for entry in prior.tuned}
        return {
            pod.name: why
            for workload in seen.workloads
            for pod in workload.living
            if workload.target in tuned and (why := self.recreation.failed(pod.name, tuned[workload.target]))
        }

    async def _turn(self) -> timedelta:
        now, hurried = datetime.now(UTC), self.project.hurry.is_set()
        if why := await self.recreation.settle(now):
            log.warning("%s", why, extra={"told": {"event": "RolledBack"}})
        told = await self.look(now)
        self.witnessed, self.histories = told.witnessed, dict(told.seen.histories)
        acts = told.spec.mode is api.Mode.ENFORCE and not told.paused
        self.ledger.spend(sum(change.reason not in EXEMPT for change in told.decision.changes) if acts else 0, now)
        # From here on it counts: a tuner that is killed now finds it, and finishes the work.
        self._write(told, now)
        asked = 0
        if acts:
            known = self.refusals.keys()
            asked, self.refusals = await self.project.act(told.decision, told.seen.refusals)
            asked += len(self.refusals.keys() - known)
            if not asked:
                asked = await self._restart(told, now)
            if self.place.override is not None:
                before, self.unwritten = self.unwritten, _write_override(self.place.override, told)
                if self.unwritten and self.unwritten != before:
                    log.warning("%s", self.unwritten)
        _tell(told)
        self._tell_findings(told)
        if hurried:
            # What came since has a turn of its own.
            self.project.hurry.clear()
        return reconcile.RESIZED if asked or hurried or self.recreation.step else EVERY

    async def _restart(self, told: Look, now: datetime) -> int:
        """Make one container anew, where that is allowed now and nothing else is under way."""
        first = next(iter(told.waiting), None)
        if first is None or first.blocked or self.recreation.step is not None:
            return 0
        line: Object = {"event": "Recreated", "target": first.target.workload.target, "container": first.pod.name}
        log.info("%s, and is made anew with it.", first, extra={"told": line})
        if why := await self.recreation.begin(first, now):
            log.warning("%s is not made anew: %s.", first.pod.name, why, extra={"told": {"event": "RolledBack"}})
        return 1

    def _tell_findings(self, told: Look) -> None:
        """What has begun and what is over, as lines of the log; what comes and goes all the time, once in a while."""
        before = {(item.reason, item.target) for item in told.prior.findings}
        present = {(item.reason, item.target): item for item in told.findings[: status.FINDINGS]}
        for key in present.keys() - before:
            if told.seen.at - self.begun.get(key, datetime.min.replace(tzinfo=UTC)) >= AT_MOST_EVERY:
                self.begun[key] = told.seen.at
                _finding(present[key])
        for reason, target in before - present.keys():
            if told.seen.at - self.ended.get((reason, target), datetime.min.replace(tzinfo=UTC)) >= AT_MOST_EVERY:
                self.ended[reason, target] = told.seen.at
                line = {"event": "FindingEnded", "target": target, "reason": reason}
                log.info("%s is over.", reason, extra={"told": line})

    def _write(self, told: Look, now: datetime) -> None:
        remembered = checkpoint.remembered(
            told.status, told.policy.partition("/")[2], learning.complete(told.seen.histories, now)
        )
        self.project.store.write(
            **{
                STATUS: status.as_written(told.status),
                MEMORY: remembered.model_dump(by_alias=True, exclude_none=True, exclude_defaults=True, mode="json"),
                POLICY: {
                    "name": told.policy,
                    "mode": str(told.spec.mode),
                    "paused": told.paused,
                    "looked": now.isoformat(timespec="seconds"),
                },
            }
        )


def _write_override(file: Path, told: Look) -> str:
    """What was decided, for the next `docker compose up`; why it was not written, as over a file of somebody's own."""
    text = override.text(told.decision.targets)
    try:
        before = file.read_text(encoding="utf-8") if file.exists() else ""
        if before and not before.startswith(override.HEAD):
            return f"The file {file} was not written by airflow-tuner, and is left alone (--override-file)."
        if text != before:
            new = file.with_name(f".{file.name}.new")
            new.write_text(text, encoding="utf-8")
            new.replace(file)
    except (OSError, UnicodeDecodeError) as error:
        return f"The file {file} cannot be written (--override-file): {type(error).__name__}."
    return ""


def _tell(told: Look) -> None:
    """What is new, as lines of the log."""
    enforced = told.spec.mode is api.Mode.ENFORCE
    for change in told.decision.changes if enforced or told.status != told.prior else ():
        kind = "Tuned" if enforced else "Recommended"
        line: Object = {"event": kind, "target": change.target, "reason": change.reason, "decision": change.decision}
        values = {"from": change.before, "to": change.after}
        line |= {name: status.written(one).model_dump(by_alias=True, exclude_none=True) for name, one in values.items()}
        log.info("%s", change.message, extra={"told": line})


def _finding(found: Finding) -> None:
    line = {"event": "Finding", "target": found.target, "reason": found.reason, "severity": str(found.severity)}
    log.warning("%s", found.message, extra={"told": line})


def log_to_stderr(level: str) -> None:
    """Log as lines of JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
