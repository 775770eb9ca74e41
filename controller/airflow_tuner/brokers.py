"""The brokers of the policies: each one's URL comes from a Secret that the policy names."""

import base64
import binascii
from urllib.parse import urlsplit, urlunsplit

from airflow_tuner import api
from airflow_tuner.broker import Broker
from airflow_tuner.cluster import Cluster, NotFound, path
from airflow_tuner.errors import Misconfigured, Refused


class Brokers:
    """Connections to brokers, one for each Secret in use. A Secret that changes is noticed at the next turn."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._known: dict[tuple[str, str, str], tuple[str, Broker]] = {}

    async def of(self, namespace: str, ref: api.SecretKeyRef) -> Broker:
        """The broker whose URL stands in this Secret; `Misconfigured` says what to do where it cannot be read."""
        url = await self._url(namespace, ref)
        key = (namespace, ref.name, ref.key)
        known = self._known.get(key)
        if known is not None and known[0] == url:
            return known[1]
        if known is not None:
            known[1].close()
        broker = Broker(_qualified(url, namespace))
        self._known[key] = (url, broker)
        return broker

    def last(self, namespace: str, ref: api.SecretKeyRef) -> Broker | None:
        """The broker as it was last read."""
        known = self._known.get((namespace, ref.name, ref.key))
        return None if known is None else known[1]

    async def _url(self, namespace: str, ref: api.SecretKeyRef) -> str:
        where = f"the Secret {ref.name} (spec.celery.brokerSecretRef)"
        try:
            secret = await self._cluster.get(path("v1", "secrets", namespace, ref.name))
        except NotFound as error:
            msg = f"There is no {where.removeprefix('the ')} in the namespace {namespace}."
            raise Misconfigured(msg) from error
        except Refused as error:
            msg = (
                f"The operator may not read {where}: name it in the chart's value celery.brokerSecrets "
                f"({{namespace: {namespace}, name: {ref.name}}})."
            )
            raise Misconfigured(msg) from error
        encoded = (secret.get("data") or {}).get(ref.key)
        if not encoded:
            msg = f"There is no key {ref.key} in {where}."
            raise Misconfigured(msg)
        try:
            return base64.b64decode(encoded).decode().strip()
        except (binascii.Error, UnicodeDecodeError) as error:
            msg = f"The key {ref.key} in {where} holds no URL."
            raise Misconfigured(msg) from error

    def close(self) -> None:
        """End all connections."""
        for _, broker in self._known.values():
            broker.close()
        self._known.clear()


def _qualified(url: str, namespace: str) -> str:
    """`url` as it is meant in Airflow's namespace: a bare name there is a Service of it, and of no other.

    The official chart writes its Redis so. A URL that cannot be taken apart is left as it is.
    """
    return ";".join(_of_namespace(part, namespace) for part in url.split(";"))


def _of_namespace(url: str, namespace: str) -> str:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return url
    if not host or set(host) & {".", ":"} or host == "localhost":
        return url
    account, at, _ = parts.netloc.rpartition("@")
    place = f"{host}.{namespace}" + (f":{port}" if port is not None else "")
    return urlunsplit(parts._replace(netloc=f"{account}{at}{place}"))
