"""The calendar of one policy's Airflow, as an operator holds it: asked beside the turns, so that none waits for it."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from airflow_tuner import api
from airflow_tuner.airflow_api import AirflowApi
from airflow_tuner.due import DueRun
from airflow_tuner.errors import TunerError

EVERY = timedelta(minutes=30)
"""Between two looks at what is due."""

AGAIN = timedelta(minutes=5)
"""After it did not answer."""

AT_ONCE = 200
"""DAGs whose last run is asked for in one look, one after another: the soonest, of those that are not known yet."""

FREQUENT = timedelta(days=7)
"""So long a DAG that ran lately is taken to do so."""

LASTS = timedelta(hours=6)
"""So long what was due is believed though nobody answers."""

log = logging.getLogger("airflow_tuner")


@dataclass
class Calendar:
    """What is due in one Airflow."""

    problem: str | None = None
    """What is wrong with the API; empty: it answers; `None`: none is named, or it was not asked yet."""
    _name: str = ""
    """The API that it is of; empty: none."""
    _rare: dict[str, DueRun] = field(default_factory=dict)
    """What is due, or under way, of DAGs that the last days do not show."""
    _frequent: dict[str, datetime] = field(default_factory=dict)
    """The other DAGs, and when that was seen."""
    _begun: datetime | None = None
    """When it was last asked."""
    _answered: datetime | None = None
    _more: bool = False
    """It was not asked about all that is due yet."""
    _task: asyncio.Task[None] | None = None

    def reading(self, spec: api.Spec) -> bool:
        """The API that the policy names is still asked for more: what is due is not all that is known."""
        named = spec.airflow.api
        return named is not None and (named != self._name or self.problem is None or self._more)

    def due(self, now: datetime) -> tuple[DueRun, ...]:
        """The rare runs that are due or under way, the soonest first."""
        if self._answered is None or now - self._answered > LASTS:
            return ()
        found = (run for run in self._rare.values() if run.over >= now)
        return tuple(sorted(found, key=lambda run: (run.at, run.dag)))

    def begin(
        self, apis: Mapping[str, AirflowApi], spec: api.Spec, namespace: str, line: str | None, now: datetime
    ) -> None:
        """Ask, where the policy names an API and unless that is under way, while others do their work."""
        if spec.airflow.api is None:
            self._begin_anew("")
        elif self._task is None or self._task.done():
            self._task = asyncio.create_task(self.read(apis, spec, namespace, line, now))

    async def read(
        self, apis: Mapping[str, AirflowApi], spec: api.Spec, namespace: str, line: str | None, now: datetime
    ) -> None:
        """Ask for what is due, where it is time for it."""
        name = spec.airflow.api or ""
        source = apis.get(name)
        if name != self._name:
            self._begin_anew(name)
        if not name:
            return
        if source is None or source.api.namespace != namespace:
            # Whoever may write a policy in one namespace learns nothing of the Airflow in another.
            self.problem = f"The operator knows no REST API {name} for the namespace {namespace} (airflow.apis)."
        elif line is None:
            self.problem = "Airflow's version is not known: state spec.airflow.version."
        elif self._begun is None or now - self._begun >= (AGAIN if self.problem else EVERY):
            self._begun = now
            try:
                await self._read(source, line, now)
                self.problem = ""
            except TunerError as error:
                log.info("namespace %s: the DAG calendar is not known: %s", namespace, error)
                self.problem = str(error)
            except Exception:
                log.exception("namespace %s: the DAG calendar could not be read", namespace)
                self.problem = "It could not be read; see the operator's log."

    def _begin_anew(self, name: str) -> None:
        """Nothing is known of another Airflow."""
        self._name, self.problem, self._begun, self._answered = name, None, None, None
        self._rare, self._frequent, self._more = {}, {}, False

    async def _read(self, source: AirflowApi, line: str, now: datetime) -> None:
        found = await source.due(line, now)
        due = {dag for dag, _ in found}
        under_way = {dag for dag, run in self._rare.items() if run.at <= now <= run.over}
        self._rare = {dag: run for dag, run in self._rare.items() if dag in due | under_way}
        self._frequent = {dag: at for dag, at in self._frequent.items() if now - at < FREQUENT}
        self._answered = now
        known = {(run.dag, run.at) for run in self._rare.values()}
        asked = [one for one in found if one not in known and one[0] not in under_way | self._frequent.keys()]
        self._more = len(asked) > AT_ONCE
        for dag, at in asked[:AT_ONCE]:
            began, ended = await source.last(line, dag) or (None, None)
            run = DueRun(dag, at, began, ended)
            if run.rare:
                self._rare[dag] = run
            else:
                self._rare.pop(dag, None)
                self._frequent[dag] = now
