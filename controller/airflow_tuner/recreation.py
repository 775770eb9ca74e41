"""Puts a container's successor in its place, and the container back where the successor does not become healthy.

What is under way stands in the state file before each step, so that a tuner which is killed in between finds it, and
finishes it or undoes it. One at a time.
"""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from airflow_tuner import api, compose, successor
from airflow_tuner.engine import SECONDS, Engine, Gone
from airflow_tuner.errors import Refused, Unavailable
from airflow_tuner.restarts import Waiting
from airflow_tuner.store import Store

SETTLED = 30.0
"""Seconds for which a successor without a health check must run."""
UNDER_WAY, FAILED = "recreation", "rolledback"
"""Documents of the state file."""
KEPT = 20
"""Most failures that are remembered."""

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Step:
    """A recreation under way."""

    name: str
    """Of the container, and then of its successor."""
    old: str
    """The id of the container."""
    aside: str
    """Its name while its successor has its own."""
    variables: str
    """What the successor is for, as text."""
    since: float
    """Seconds of Unix."""
    patience: float
    """Seconds within which the successor must be healthy."""
    checked: bool
    """It has a health check."""


@dataclass(slots=True)
class Recreation:
    """The recreations of one project."""

    engine: Engine
    store: Store

    @property
    def step(self) -> Step | None:
        """What is under way."""
        told = self.store.document(UNDER_WAY)
        return Step(**told) if told else None

    def failed(self, name: str, tuned: api.Tuned) -> str:
        """Why a container's recreation for these variables was undone; empty: it was not."""
        key = (name, variables(tuned))
        return next((str(told["why"]) for told in self._failures() if (told["name"], told["variables"]) == key), "")

    def _failures(self) -> list[Object]:
        return list(self.store.document(FAILED).get("failures", []))

    async def begin(self, waiting: Waiting, now: datetime) -> str:
        """Put the successor in the place of a container; why not, where that was refused."""
        pod, tuned = waiting.pod, waiting.target.tuned
        if tuned is None:
            return ""
        item: Object = await self.engine.get(f"/containers/{pod.uid}/json")
        if why := self.failed(pod.name, tuned) or await self._obstacle(item):
            return why
        base = self.store.known().baselines.get(compose.key(item)) or compose.baseline(item)
        made = successor.body(item, base, tuned, await self._image(item))
        step = Step(
            name=pod.name,
            old=pod.uid,
            aside=f"{pod.name}.before-{tuned.decision[-8:]}",
            variables=variables(tuned),
            since=now.timestamp(),
            patience=successor.patience(item),
            checked=successor.checked(item),
        )
        self._write(step)
        try:
            await self._replace(item, made, step)
        except Unavailable:
            # The next turn sees how far it came.
            raise
        except Refused as error:
            await self._undo(step, str(error))
            return str(error)
        return ""

    async def settle(self, now: datetime) -> str:
        """Look after what is under way: done, to be waited for, or undone (then: why)."""
        step = self.step
        if step is None:
            return ""
        item = await self._named(step.name)
        if item is None or item["Id"] == step.old:
            # Killed before the successor was there.
            return await self._undo(step, "it was interrupted")
        state = item["State"]
        health = (state.get("Health") or {}).get("Status", "")
        age = now.timestamp() - max(step.since, compose.moment(state.get("StartedAt")).timestamp())
        runs = bool(state.get("Running")) and not state.get("Restarting") and not item.get("RestartCount")
        if runs and (health == "healthy" or (not step.checked and age >= SETTLED)):
            await self._remove(step.old)
            self.store.write(**{UNDER_WAY: {}})
            return ""
        if not runs and (state.get("Status") != "created" or age > SETTLED):
            return await self._undo(step, f"its successor ended with exit code {state.get('ExitCode')}")
        if health == "unhealthy" or age > step.patience:
            return await self._undo(step, f"its successor was not healthy after {age:.0f} s")
        return ""

    async def _obstacle(self, item: Object) -> str:
        if item["HostConfig"].get("AutoRemove"):
            return "it is removed when it ends (--rm), and could not be put back"
        project = compose.project(item)
        for other in await self.engine.containers({compose.PROJECT: project} if project else {}):
            if other["HostConfig"].get("NetworkMode") == f"container:{item['Id']}":
                return f"{other['Name'].lstrip('/')} lives in its network"
        return ""

    async def _image(self, item: Object) -> str:
        """The name of its image, where that is still the one that it runs, else that image itself."""
        name, runs = str(item["Config"]["Image"]), str(item["Image"])
        try:
            found = await self.engine.get(f"/images/{name}/json")
        except Refused:
            return runs
        return name if found.get("Id") == runs else runs

    async def _replace(self, item: Object, made: Object, step: Step) -> None:
        grace = int(item["Config"].get("StopTimeout") or 10)
        where = f"/containers/{step.old}"
        await self.engine.tell("POST", f"{where}/stop", {"t": f"{grace}"}, seconds=grace + SECONDS)
        await self.engine.tell("POST", f"{where}/rename", {"name": step.aside})
        new = str((await self.engine.tell("POST", "/containers/create", {"name": step.name}, made))["Id"])
        if limit := item["HostConfig"].get("Memory"):
            self.store.give(new, limit)
        for name, end in [*successor.ends(item).items()][1:]:
            told = {"Container": new, "EndpointConfig": end}
            await self.engine.tell("POST", f"/networks/{name}/connect", body=told)
        await self.engine.tell("POST", f"/containers/{new}/start")

    async def _undo(self, step: Step, why: str) -> str:
        """Put the container back in its place."""
        item = await self._named(step.name)
        if item is not None and item["Id"] != step.old:
            await self._remove(item["Id"])
        try:
            old = await self.engine.get(f"/containers/{step.old}/json")
            if old["Name"].lstrip("/") != step.name:
                await self.engine.tell("POST", f"/containers/{step.old}/rename", {"name": step.name})
            if not old["State"].get("Running"):
                await self.engine.tell("POST", f"/containers/{step.old}/start")
        except Gone:
            why = f"{why}, and the container itself is gone"
        failure = {"name": step.name, "variables": step.variables, "why": f"{why}: the container was put back"}
        failures = [failure, *self._failures()][:KEPT]
        self.store.write(**{UNDER_WAY: {}, FAILED: {"failures": failures}})
        return f"{step.name}: {failure['why']}."

    async def _named(self, name: str) -> Object | None:
        try:
            found: Object = await self.engine.get(f"/containers/{name}/json")
        except Gone:
            return None
        return found

    async def _remove(self, container: str) -> None:
        """Remove a container; its volumes stay."""
        try:
            await self.engine.tell("DELETE", f"/containers/{container}", {"force": "1"}, seconds=2 * SECONDS)
        except Gone:
            return

    def _write(self, step: Step) -> None:
        self.store.write(**{UNDER_WAY: asdict(step)})


def variables(tuned: api.Tuned) -> str:
    """What a container is made anew for."""
    return ", ".join(f"{one.name}={one.value}" for one in tuned.env)
