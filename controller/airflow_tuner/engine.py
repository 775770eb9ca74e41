"""The Docker engine's API over its socket, as plain dicts. Raw, as clients that know the fields lose those they do not.

Whoever may use the socket is root on that machine: nothing here reaches a container that was not listed by its labels.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp

from airflow_tuner.errors import Misconfigured, Refused, TunerError, Unavailable

DEFAULT = "unix:///var/run/docker.sock"
OLDEST, NEWEST = (1, 41), (1, 51)
"""Versions of the API that are spoken: a sample of memory without a wait of seconds came with the first."""
SECONDS = 20.0
"""Longest wait for an answer; to stop a container takes its grace period longer."""
LINE = 2**20
"""Most bytes of one event."""

_MISSING, _SERVER = 404, 500

Object = dict[str, Any]


class Gone(Refused):
    """The container is not there any more."""


class Engine:
    """One Docker engine; as a context manager it is connected and let go."""

    def __init__(self, address: str) -> None:
        self.address = address
        parts = urlsplit(address)
        if parts.scheme == "unix" and parts.path:
            self._host, self._socket = "http://docker", parts.path
        elif parts.scheme in {"tcp", "http"} and parts.hostname:
            self._host, self._socket = f"http://{parts.netloc}", ""
        else:
            raise Misconfigured(f"{address!r} is no address of a Docker engine such as {DEFAULT} (--docker-host).")
        self._version = ""
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.UnixConnector(self._socket) if self._socket else aiohttp.TCPConnector()
        self._session = aiohttp.ClientSession(connector=connector, read_bufsize=LINE)
        try:
            await self.greet()
        except BaseException:
            await self._session.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def greet(self) -> None:
        """Agree on a version; `Misconfigured` where the socket is missing or may not be opened."""
        told = await self._json("GET", "/version")
        newest = _numbers(str(told.get("ApiVersion", "")))
        oldest = _numbers(str(told.get("MinAPIVersion", ""))) or OLDEST
        if newest is None or newest < OLDEST or oldest > NEWEST:
            wanted = ".".join(map(str, OLDEST))
            raise Misconfigured(f"The Docker engine at {self.address} does not speak version {wanted} of the API.")
        self._version = "/v{}.{}".format(*min(newest, NEWEST))

    async def containers(self, labels: Mapping[str, str]) -> list[Object]:
        """All containers with these labels, stopped ones too, as `docker inspect` has them."""
        filters = json.dumps({"label": [f"{key}={value}" for key, value in labels.items()]})
        listed = await self.get("/containers/json", {"all": "1", "filters": filters})
        found = await asyncio.gather(*(self._inspected(str(item["Id"])) for item in listed))
        return [item for item in found if item is not None]

    async def _inspected(self, container: str) -> Object | None:
        try:
            found: Object = await self.get(f"/containers/{container}/json")
        except Gone:
            return None
        return found

    async def stats(self, container: str) -> Object:
        """Its memory and CPU at this moment."""
        found: Object = await self.get(f"/containers/{container}/stats", {"stream": "0", "one-shot": "1"})
        return found

    async def get(self, where: str, query: Mapping[str, str] | None = None) -> Any:  # noqa: ANN401 - JSON
        """What the engine answers to a question."""
        return await self._json("GET", f"{self._version}{where}", query)

    async def tell(
        self,
        method: str,
        where: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        seconds: float = SECONDS,
    ) -> Object:
        """Ask for a change; what it answers, where it says something."""
        found = await self._json(method, f"{self._version}{where}", query, body, seconds)
        return found if isinstance(found, dict) else {}

    async def events(self, since: float, filters: Mapping[str, list[str]]) -> AsyncIterator[Object]:
        """What happens to containers from a time on (seconds of Unix): what the engine still knows, then what comes."""
        query = {"since": f"{since:.9f}", "filters": json.dumps({"type": ["container"], **filters})}
        where = f"{self._version}/events"
        try:
            answer = await self._send("GET", where, query, None, aiohttp.ClientTimeout(None, connect=SECONDS))
            async with answer:
                async for line in answer.content:
                    yield json.loads(line)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._away(error) from error

    async def _json(
        self,
        method: str,
        where: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        seconds: float = SECONDS,
    ) -> Any:  # noqa: ANN401 - JSON
        try:
            async with await self._send(method, where, query, body, aiohttp.ClientTimeout(seconds)) as answer:
                text = await answer.text()
                return json.loads(text) if text.strip() else None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise self._away(error) from error

    async def _send(
        self,
        method: str,
        where: str,
        query: Mapping[str, str] | None,
        body: Object | None,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's own
    ) -> aiohttp.ClientResponse:
        if self._session is None:
            raise Unavailable("The Docker engine is not connected.")
        answer = await self._session.request(method, f"{self._host}{where}", params=query, json=body, timeout=timeout)
        if answer.ok:
            return answer
        async with answer:
            raise _refusal(method, where, answer.status, await answer.text())

    def _away(self, error: BaseException) -> TunerError:
        """What an engine that cannot be reached means."""
        cause = getattr(error, "os_error", error)
        if isinstance(cause, PermissionError):
            return Misconfigured(
                f"The Docker engine's socket {self.address} may not be opened by this user: run as root or as a member "
                "of its group (usually docker), or name another one with --docker-host."
            )
        if isinstance(cause, FileNotFoundError):
            return Misconfigured(
                f"There is no Docker engine at {self.address}: start it, or name its socket with --docker-host. In a "
                "container, mount it."
            )
        return Unavailable(f"The Docker engine at {self.address} does not answer: {type(cause).__name__}.")


def _refusal(method: str, where: str, status: int, text: str) -> TunerError:
    try:
        said = str(json.loads(text).get("message", ""))
    except (ValueError, AttributeError):
        said = ""
    told = f"The Docker engine answered {method} {where} with {status}: {said[:400] or 'no reason given'}"
    if status == _MISSING:
        return Gone(told)
    # 500 is also what it answers to a limit below what a container holds.
    return Unavailable(told) if status > _SERVER else Refused(told)


def _numbers(version: str) -> tuple[int, int] | None:
    major, _, minor = version.partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else None
