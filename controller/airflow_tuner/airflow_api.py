"""Airflow's REST API: which DAGs run next, and when they ran last."""

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

import requests
from urllib3.exceptions import HTTPError

from airflow_tuner import due
from airflow_tuner.errors import Misconfigured, Unavailable
from airflow_tuner.session import Session
from airflow_tuner.settings import Api

ROOTS = {"2": "/api/v1", "3": "/api/v2"}
PAGE, PAGES = 100, 30
"""DAGs of a page, as Airflow allows by default, and most pages."""

_CREATED = 201
_REFUSED = (401, 403)


class AirflowApi:
    """One Airflow, asked one question after another: Airflow 3 with a token, Airflow 2 with name and password."""

    def __init__(self, name: str, api: Api) -> None:
        self.name = name
        self.api = api
        self._session = Session(api.timeout_seconds)
        # Neither the environment nor a .netrc may send anything else.
        self._session.trust_env = False
        self._token = ""

    async def due(self, line: str, now: datetime) -> list[tuple[str, datetime]]:
        """The DAGs that run within the coming day, and when, the soonest first."""
        return await asyncio.to_thread(self._due, line, now)

    async def last(self, line: str, dag: str) -> tuple[datetime, datetime] | None:
        """Begin and end of the last run of a DAG that ended; `None`: there was none."""
        query = "limit=1&order_by=-start_date&state=success&state=failed"
        path = f"/dags/{quote(dag, safe='')}/dagRuns?{query}"
        return await asyncio.to_thread(self._told, line, path, due.last)

    def _due(self, line: str, now: datetime) -> list[tuple[str, datetime]]:
        found: list[tuple[str, datetime]] = []
        for page in range(PAGES):
            path = f"/dags?limit={PAGE}&offset={page * PAGE}&order_by=dag_id&paused=false"
            answer = self._told(line, path, lambda document: (len(document["dags"]), [*due.dags(document, line)]))
            found += [one for one in answer[1] if now <= one[1] <= now + due.AHEAD]
            if answer[0] < PAGE:
                break
        return sorted(found, key=lambda one: (one[1], one[0]))

    def _told(self, line: str, path: str, read: Any) -> Any:  # noqa: ANN401 - what `read` makes of the answer
        try:
            return read(self._get(line, path))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise Unavailable(f"Airflow's REST API {self.name} answers in another form.") from error
        except (requests.RequestException, HTTPError, TimeoutError) as error:
            raise Unavailable(f"Airflow's REST API {self.name} does not answer.") from error

    def _get(self, line: str, path: str) -> Any:  # noqa: ANN401 - JSON
        known, kept = self._account(), self._token
        answer = self._session.get(f"{self.api.url}{ROOTS[line]}{path}", **self._proof(line, known))
        if answer.status_code in _REFUSED and kept:
            # Tokens end; which of the two Airflow says then depends on its version.
            self._token = ""
            answer = self._session.get(f"{self.api.url}{ROOTS[line]}{path}", **self._proof(line, known))
        if answer.status_code in _REFUSED:
            raise Misconfigured(
                f"Airflow's REST API {self.name} does not let the operator read DAGs and their runs (status "
                f"{answer.status_code}): mend the Secret of its credentials, or the rights of that user."
            )
        if not answer.ok or answer.is_redirect:
            raise Unavailable(f"Airflow's REST API {self.name} answers with status {answer.status_code}.")
        return answer.json()

    def _account(self) -> tuple[str, str] | None:
        """Name and password, as their files have them now."""
        folder = self.api.credentials
        if folder is None:
            return None
        try:
            name, password = ((folder / file).read_text().strip() for file in ("username", "password"))
        except (OSError, UnicodeDecodeError) as error:
            raise Misconfigured(
                f"The credentials of Airflow's REST API {self.name} cannot be read: its Secret needs the keys username "
                "and password."
            ) from error
        return name, password

    def _proof(self, line: str, known: tuple[str, str] | None) -> Mapping[str, Any]:
        options: dict[str, Any] = {"timeout": self.api.timeout_seconds, "allow_redirects": False}
        if known is None:
            return options
        if line == "2":
            return {**options, "auth": tuple(text.encode() for text in known)}
        if not self._token:
            body = dict(zip(("username", "password"), known, strict=True))
            answer = self._session.post(f"{self.api.url}/auth/token", json=body, **options)
            if answer.status_code != _CREATED:
                raise Misconfigured(
                    f"Airflow's REST API {self.name} gives no token for the name and password of its Secret (status "
                    f"{answer.status_code})."
                )
            self._token = str(answer.json()["access_token"])
        return {**options, "headers": {"Authorization": f"Bearer {self._token}"}}
