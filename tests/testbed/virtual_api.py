"""The API server as a virtual node talks to it: a small client of its own, apart from the operator's."""

import json
import ssl
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Self

import aiohttp

from testbed.controlplane import ControlPlane

Object = dict[str, Any]

SECONDS = 10.0
WATCH_SECONDS = 300
MANAGER = "virtual-kubelet"

JSON = "application/json"
STRATEGIC = "application/strategic-merge-patch+json"
MERGE = "application/merge-patch+json"

BROKEN = (aiohttp.ClientError, TimeoutError, OSError, ssl.SSLError)
"""What a call raises when the API server does not answer."""


class ApiRefused(Exception):  # noqa: N818 - it reads as what happened
    """The API server answered with an error; `status` is that of HTTP."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text[:500]}")
        self.status = status


class Api:
    """A connection as the administrator of a control plane."""

    def __init__(self, control_plane: ControlPlane) -> None:
        trust = ssl.create_default_context(cafile=str(control_plane.ca))
        trust.load_cert_chain(control_plane.pki / "admin.crt", control_plane.pki / "admin.key")
        self._session = aiohttp.ClientSession(
            control_plane.url, connector=aiohttp.TCPConnector(ssl=trust, limit=0), raise_for_status=False
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def call(self, method: str, path: str, body: Object | None = None, kind: str = JSON) -> Object:
        """One request and its answer; raises ApiRefused, or one of BROKEN."""
        query = {"fieldManager": MANAGER} if method in {"POST", "PUT", "PATCH"} else {}
        async with self._session.request(
            method,
            path,
            params=query,
            data=None if body is None else json.dumps(body),
            headers={"Content-Type": kind},
            timeout=aiohttp.ClientTimeout(total=SECONDS),
        ) as answer:
            text = await answer.text()
            if not answer.ok:
                raise ApiRefused(answer.status, text)
            found: Object = json.loads(text)
            return found

    async def list(self, path: str, query: Mapping[str, str]) -> Object:
        """A list with its resourceVersion."""
        async with self._session.get(path, params=query, timeout=aiohttp.ClientTimeout(total=SECONDS)) as answer:
            if not answer.ok:
                raise ApiRefused(answer.status, await answer.text())
            found: Object = await answer.json()
            return found

    async def watch(self, path: str, query: Mapping[str, str], version: str) -> AsyncIterator[Object]:
        """Changes since `version` as `{type, object}`, until the server ends it."""
        asked = {**query, "watch": "true", "resourceVersion": version, "timeoutSeconds": str(WATCH_SECONDS)}
        patience = aiohttp.ClientTimeout(total=WATCH_SECONDS + SECONDS, sock_connect=SECONDS)
        async with self._session.get(path, params=asked, timeout=patience) as answer:
            if not answer.ok:
                raise ApiRefused(answer.status, await answer.text())
            rest = b""  # lines may be longer than the client's own reader takes
            async for chunk in answer.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield json.loads(line)
