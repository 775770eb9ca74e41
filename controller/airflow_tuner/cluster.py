"""Kubernetes: get, list, watch, create, patch and replace on plain dicts, over the official asyncio client.

Its errors leave this module as ours: no answer is `Unavailable`, a conflict `Stale`, everything else `Refused`.
"""

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import yaml
from kubernetes.aio import client, config

from airflow_tuner import api
from airflow_tuner.errors import Misconfigured, Refused, Stale, Unavailable
from airflow_tuner.inventory import FIELD_MANAGER
from airflow_tuner.sentence import short

Object = dict[str, Any]

TIMEOUT = 10.0
"""Seconds for one call; the API server's own limit for a list is 60."""

WATCH_SECONDS = 240
"""How long one watch lasts before it is asked for anew."""

STRATEGIC = "application/strategic-merge-patch+json"
MERGE = "application/merge-patch+json"
_LABEL = re.compile(r"([a-z0-9][-a-z0-9.]{0,252}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_OPERATOR = re.compile(r"[,=!<>()]")
_CONFLICT, _GONE, _NOT_FOUND, _TOO_MANY, _SERVER = 409, 410, 404, 429, 500


def path(group: str, plural: str, namespace: str = "", name: str = "", subresource: str = "") -> str:
    """The path of a resource; `group` is `v1` or `<group>/<version>`."""
    root = f"/api/{group}" if "/" not in group else f"/apis/{group}"
    scope = f"/namespaces/{namespace}" if namespace else ""
    return "/".join(part for part in (f"{root}{scope}/{plural}", name, subresource) if part)


def policy_path(namespace: str, name: str = "", subresource: str = "") -> str:
    """The path of a TuningPolicy."""
    return path(f"{api.GROUP}/{api.VERSION}", api.PLURAL, namespace, name, subresource)


def checkpoint_path(namespace: str, name: str = "") -> str:
    """The path of a TuningCheckpoint."""
    return path(f"{api.GROUP}/{api.VERSION}", api.CHECKPOINT_PLURAL, namespace, name)


class Cluster:
    """A connection to one API server."""

    calls: int = 0
    """Requests sent so far, watches included."""

    def __init__(self, settings: client.Configuration) -> None:
        self.settings = settings
        self._client = client.ApiClient(settings)

    @classmethod
    async def connect(cls, kubeconfig: Path | None = None) -> Self:
        """Connect as the pod's ServiceAccount, or by a kubeconfig; `Misconfigured` when there is neither."""
        settings = client.Configuration()
        try:
            if kubeconfig is None and _in_cluster():
                # The client is half typed.
                config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
            else:
                await config.load_kube_config(  # type: ignore[no-untyped-call] # as above
                    config_file=str(kubeconfig) if kubeconfig else None, client_configuration=settings
                )
            # Every policy's watch holds a connection, and the client's pool of 100 would make all other calls wait.
            settings.connection_pool_maxsize = 0
            return cls(settings)
        except (config.ConfigException, OSError, yaml.YAMLError, TypeError, ValueError) as error:
            known = isinstance(error, config.ConfigException | OSError)
            why = str(error).rstrip(".") if known else "the kubeconfig cannot be understood"
            msg = f"No way into a cluster: {why}. Give --kubeconfig or set KUBECONFIG."
            raise Misconfigured(msg) from error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()  # type: ignore[no-untyped-call] # as above

    async def get(self, where: str) -> Object:
        """One object."""
        return await self._json("GET", where)

    async def list(
        self, where: str, labels: Mapping[str, str], fields: Mapping[str, str] | None = None
    ) -> list[Object]:
        """All objects with these labels and fields."""
        query = {"labelSelector": selector(labels)}
        if fields:
            query["fieldSelector"] = ",".join(f"{key}={value}" for key, value in fields.items())
        answer = await self._json("GET", where, query)
        return list(answer.get("items") or [])

    async def create(self, where: str, body: Object) -> bool:
        """Create an object; false when one of that name exists."""
        try:
            await self._json("POST", where, {"fieldManager": FIELD_MANAGER}, body)
        except Stale:
            return False
        return True

    async def patch(self, where: str, body: Object, kind: str = STRATEGIC) -> Object:
        """Merge into an object."""
        return await self._json("PATCH", where, {"fieldManager": FIELD_MANAGER}, body, kind)

    async def replace(self, where: str, body: Object) -> Object:
        """Replace an object if it still has the resourceVersion that `body` carries; else `Stale`."""
        return await self._json("PUT", where, {"fieldManager": FIELD_MANAGER}, body)

    async def watch(self, where: str, labels: Mapping[str, str]) -> AsyncIterator[Object]:
        """Changes of the objects with these labels as `{type, object}`, from now on, until the server ends it."""
        start = await self._json("GET", where, {"labelSelector": selector(labels), "limit": "1"})
        query = {
            "labelSelector": selector(labels),
            "watch": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
            "resourceVersion": start["metadata"]["resourceVersion"],
        }
        answer = await self._send("GET", where, query, None, "application/json", WATCH_SECONDS + TIMEOUT)
        try:
            async for line in answer.content:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return
                yield event
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            msg = f"The watch of {where} broke off: {_short(error)}"
            raise Unavailable(msg) from error
        finally:
            answer.close()

    async def _json(
        self,
        method: str,
        where: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        kind: str = "application/json",
    ) -> Object:
        answer = await self._send(method, where, query or {}, body, kind, TIMEOUT)
        try:
            result: Object = await answer.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            msg = f"The API server's answer to {method} {where} could not be read: {_short(error)}"
            raise Unavailable(msg) from error
        return result

    async def _send(
        self, method: str, where: str, query: Mapping[str, str], body: Object | None, kind: str, seconds: float
    ) -> aiohttp.ClientResponse:
        self.calls += 1
        try:
            async with asyncio.timeout(seconds):
                request = await self._client.param_serialize(
                    method,
                    where,
                    query_params=list(query.items()),
                    header_params={"Accept": "application/json", "Content-Type": kind},
                    body=body,
                    auth_settings=["BearerToken"],
                )
                answer = await self._client.call_api(*request, _request_timeout=seconds)
                response: aiohttp.ClientResponse = answer.response
                if response.ok:
                    return response
                text = await response.text()
        except (aiohttp.ClientError, TimeoutError, ssl.SSLError, OSError) as error:
            msg = f"The API server does not answer {method} {where}: {_short(error)}"
            raise Unavailable(msg) from error
        raise _translated(method, where, response.status, text)


def _in_cluster() -> bool:
    return Path("/var/run/secrets/kubernetes.io/serviceaccount/token").exists()


def selector(labels: Mapping[str, str]) -> str:
    """Labels as a selector for the API server; `Misconfigured` for what would select something else than labels.

    A name that is none and has no operator in it is left to the API server, which refuses it.
    """
    for key, value in labels.items():
        if not _LABEL_VALUE.fullmatch(value) if _LABEL.fullmatch(key) else _OPERATOR.search(key):
            msg = f"spec.airflow: no label can be {short(key)!r} with the value {short(value)!r}: correct it."
            raise Misconfigured(msg)
    return ",".join(f"{key}={value}" for key, value in labels.items())


class NotFound(Refused):
    """The object is not there."""


def _translated(method: str, where: str, status: int, text: str) -> Exception:
    try:
        answer = json.loads(text)
        said = str(answer.get("message", ""))
        told = (answer.get("details") or {}).get("causes") or []
        causes = [cause.get("field") for cause in told] + [cause.get("reason") for cause in told]
    except (ValueError, AttributeError):
        said, causes = "", []
    msg = f"{method} {where} was answered with {status}: {said[:400] or 'no reason given'}"
    if status == _NOT_FOUND:
        return NotFound(msg)
    # A uid that differs: another object has taken the name since.
    if status in {_CONFLICT, _GONE} or "metadata.uid" in causes:
        return Stale(msg)
    if "DisruptionBudget" in causes:
        return Refused(msg)
    if status == _TOO_MANY or status >= _SERVER:
        return Unavailable(msg)
    return Refused(msg)


def _short(error: BaseException) -> str:
    return f"{type(error).__name__} {error}".strip()[:200]
