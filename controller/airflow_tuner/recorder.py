"""Writes what happened where people look, the policy's status and Events; and what must not be forgotten.

The status write is the commit point of a change. Events follow from the history in it, under names made from the
decision, so that an operator killed in between writes the missing ones at its next start and none twice.
"""

import hashlib
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ValidationError

from airflow_tuner import api, checkpoint, status
from airflow_tuner.checkpoint import NONE
from airflow_tuner.cluster import MERGE, Cluster, checkpoint_path, path, policy_path
from airflow_tuner.errors import Refused, Stale, Unavailable
from airflow_tuner.history import History
from airflow_tuner.inventory import FIELD_MANAGER
from airflow_tuner.model import Finding, Severity
from airflow_tuner.restarts import Waiting
from airflow_tuner.sentence import plain

EVENTS = "events.k8s.io/v1"
EVENT_LIFETIME = timedelta(minutes=50)
"""The API server forgets Events after an hour; an older change gets no new one."""
NOTE = 1024
"""Largest note of an Event, in bytes (the API server's own rule)."""
NAME = 253
"""Longest name of an Event, in characters."""

Object = dict[str, Any]

log = logging.getLogger("airflow_tuner")


class Recorder:
    """The one that writes, for one operator."""

    def __init__(self, cluster: Cluster, identity: str) -> None:
        self._cluster = cluster
        self._identity = identity
        self._told: set[str] = set()
        self._checkpoints: dict[str, Object | None] = {}
        self._warned: set[str] = set()

    async def commit(self, policy: Object, new: api.Status) -> Object:
        """Replace the status if it differs; `Stale` when somebody wrote since `policy` was read."""
        written = status.as_written(new)
        if written == policy.get("status"):
            return policy
        metadata = policy["metadata"]
        where = policy_path(metadata["namespace"], metadata["name"], "status")
        return await self._cluster.replace(where, {**policy, "status": written})

    def memory(self, policy: Object) -> api.Remembered | None:
        """What the policy's checkpoint says, as it was last read or written."""
        try:
            return api.Remembered.model_validate((self._checkpoints.get(policy["metadata"]["uid"]) or {}).get("memory"))
        except ValidationError:
            return None

    async def recall(self, policy: Object) -> None:
        """Read the policy's checkpoint; none is no error, and one that cannot be read is as good as none."""
        metadata = policy["metadata"]
        try:
            found = await self._cluster.get(checkpoint_path(metadata["namespace"], metadata["name"]))
        except Refused:
            found = None
        self._checkpoints[metadata["uid"]] = found

    async def remember(self, policy: Object, new: api.Status, histories: Mapping[str, History] = NONE) -> None:
        """Bring the checkpoint up to a status that is written, and to the hours that are over.

        A checkpoint that cannot be written stops nothing.
        """
        metadata = policy["metadata"]
        known = self._checkpoints.get(metadata["uid"])
        memory = checkpoint.remembered(new, metadata["uid"], histories).model_dump(
            by_alias=True, exclude_none=True, exclude_defaults=True, mode="json"
        )
        if known is not None and known.get("memory") == memory:
            return
        try:
            self._checkpoints[metadata["uid"]] = await self._write_checkpoint(policy, known, memory)
        except Stale:
            with suppress(Unavailable):
                await self.recall(policy)
        except Unavailable as error:
            # So the API server answers, too, where it is too large for etcd. What was written is found out by the next.
            log.warning("policy %s: its checkpoint is not written now: %s", metadata["name"], error)
        except Refused as error:
            # Where there was one, it has been deleted: the next turn writes it anew.
            self._checkpoints[metadata["uid"]] = None
            if known is None and metadata["uid"] not in self._warned:
                log.warning("policy %s has no checkpoint: %s", metadata["name"], error)
                self._warned.add(metadata["uid"])

    async def _write_checkpoint(self, policy: Object, known: Object | None, memory: Object) -> Object:
        metadata = policy["metadata"]
        body: Object = {
            "apiVersion": f"{api.GROUP}/{api.VERSION}",
            "kind": api.CHECKPOINT_KIND,
            "metadata": {
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "ownerReferences": [
                    {
                        "apiVersion": f"{api.GROUP}/{api.VERSION}",
                        "kind": api.KIND,
                        "name": metadata["name"],
                        "uid": metadata["uid"],
                    }
                ],
            },
            "memory": memory,
        }
        if known is None:
            if not await self._cluster.create(checkpoint_path(metadata["namespace"]), body):
                msg = "a checkpoint of that name exists"
                raise Stale(msg)
            return await self._cluster.get(checkpoint_path(metadata["namespace"], metadata["name"]))
        version = {"resourceVersion": known["metadata"]["resourceVersion"]}
        where = checkpoint_path(metadata["namespace"], metadata["name"])
        return await self._cluster.replace(where, {**body, "metadata": {**body["metadata"], **version}})

    async def tell_changes(
        self, policy: Object, new: api.Status, now: datetime, made: Iterable[api.Change] = ()
    ) -> None:
        """One Event for every change in the history that has none yet, and for what was `made` beyond its length."""
        older = [change for change in made if change not in new.history]
        for change in reversed([*new.history, *older]):
            name = _name(policy, change.decision)
            if name in self._told or now - datetime.fromisoformat(change.time) > EVENT_LIFETIME:
                continue
            released = change.reason in {"Released", "TemplateChanged", "PodsRefused"}
            reason, action = ("Released", "Release") if released else ("Tuned", "Tune")
            note = f"{change.target}: {change.message}"
            at = _micro(datetime.fromisoformat(change.time))
            await self._event(policy, name, reason, action, "Normal", note, at)

    async def tell_restart(self, policy: Object, waiting: Waiting, now: datetime) -> None:
        """An Event for a pod that is asked to end, so that its successor is born with what it waits for."""
        name = _name(policy, f"restarted.{waiting.pod.uid}")
        note = f"{waiting.target.workload.target}: {waiting}, and is evicted for it."
        await self._event(policy, name, "Restarted", "Restart", "Normal", note, _micro(now))

    async def tell_advice(self, policy: Object, target: str, decision: str, message: str, now: datetime) -> None:
        """An Event for a new recommendation."""
        name = _name(policy, decision)
        await self._event(policy, name, "Recommended", "Recommend", "Normal", f"{target}: {message}", _micro(now))

    async def tell_findings(
        self, policy: Object, old: api.Status, found: tuple[Finding, ...], now: datetime, *, first: bool
    ) -> None:
        """An Event when a finding begins and one when it ends; one that comes again counts up.

        In the first turn of a process (`first`) Events that an earlier process may not have come to write are made
        up for, and none is counted up.
        """
        before = {(item.reason, item.target): item for item in old.findings}
        # As many as the status holds: what is not in it would begin anew with every turn.
        present = {(item.reason, item.target): item for item in found[: status.FINDINGS]}
        for key, finding in present.items():
            if first or key not in before:
                kind = "Normal" if finding.severity is Severity.INFO else "Warning"
                note = f"{finding.target}: {finding.message}"
                name = _finding_name(policy, *key, "began")
                again = key not in before
                await self._event(policy, name, finding.reason, "Diagnose", kind, note, _micro(now), again=again)
        for key in before.keys() - {(item.reason, item.target) for item in found}:
            ended = before[key]
            note = f"{ended.target}: {ended.reason} is over."
            name = _finding_name(policy, *key, "ended")
            await self._event(policy, name, "FindingEnded", "Diagnose", "Normal", note, _micro(now), again=True)

    async def _event(  # noqa: PLR0913 - the parts of an Event
        self,
        policy: Object,
        name: str,
        reason: str,
        action: str,
        kind: str,
        note: str,
        at: str,
        *,
        again: bool = False,
    ) -> None:
        metadata = policy["metadata"]
        where = path(EVENTS, "events", metadata["namespace"])
        body = {
            "apiVersion": EVENTS,
            "kind": "Event",
            "metadata": {"name": name, "namespace": metadata["namespace"]},
            "eventTime": at,
            "reportingController": FIELD_MANAGER,
            "reportingInstance": self._identity[:128],
            "action": action,
            "reason": reason,
            "type": kind,
            "note": _fitted(plain(note)),
            "regarding": {
                "apiVersion": f"{api.GROUP}/{api.VERSION}",
                "kind": api.KIND,
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
            },
        }
        if not await self._cluster.create(where, body) and again:
            there = path(EVENTS, "events", metadata["namespace"], name)
            count = ((await self._cluster.get(there)).get("series") or {}).get("count", 1)
            # Its note stays that of the first time: the API server lets nothing else of an Event change.
            await self._cluster.patch(there, {"series": {"count": count + 1, "lastObservedTime": at}}, MERGE)
        self._told.add(name)


def _finding_name(policy: Object, reason: str, target: str, what: str) -> str:
    told = hashlib.sha256(f"{policy['metadata']['uid']}|{target}".encode()).hexdigest()[:8]
    return _name(policy, f"{reason.lower()}-{what}.{told}")


def _name(policy: Object, what: str) -> str:
    """The name of an Event; `what` makes it unique, so that the policy's may be cut."""
    return f"{policy['metadata']['name'][: NAME - 1 - len(what)].rstrip('-.')}.{what}"


def _fitted(note: str) -> str:
    """`note`, cut where it is longer than an Event's may be."""
    if len(note.encode()) <= NOTE:
        return note
    return f"{note.encode()[: NOTE - len('…'.encode())].decode(errors='ignore')}…"


def _micro(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
