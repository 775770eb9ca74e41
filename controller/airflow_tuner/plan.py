"""One turn against a cluster for a person to read: with that person's own rights, and nothing written."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from airflow_tuner import api, checkpoint, policies, reconcile
from airflow_tuner.airflow_api import AirflowApi
from airflow_tuner.autoscalers import Autoscalers
from airflow_tuner.brokers import Brokers
from airflow_tuner.calendars import Calendar
from airflow_tuner.cluster import Cluster, NotFound, checkpoint_path, policy_path
from airflow_tuner.errors import Misconfigured, Refused
from airflow_tuner.prometheus import Prometheus
from airflow_tuner.rooms import Rooms
from airflow_tuner.settings import Api, Source

Object = dict[str, Any]

DEFAULT = "default"
"""The namespace where none is named."""


async def look_once(
    kubeconfig: Path | None,
    namespace: str | None,
    name: str | None,
    file: Path | None,
    sources: Mapping[str, Source],
    apis: Mapping[str, Api],
    *,
    broker: bool,
) -> reconcile.Look:
    """Look at a policy of the cluster, or at one in a file; `Misconfigured` says what to name."""
    asked = {key: Prometheus(key, source) for key, source in sources.items()}
    async with await Cluster.connect(kubeconfig) as cluster:
        brokers = Brokers(cluster) if broker else None
        try:
            where = namespace or DEFAULT
            policy = policies.read(file, where) if file else await _found(cluster, where, name)
            if namespace not in {None, policy["metadata"]["namespace"]}:
                msg = (
                    f"{file} is for the namespace {policy['metadata']['namespace']}, and --namespace says {namespace}."
                )
                raise Misconfigured(msg)
            others = [] if file else await cluster.list(policy_path(where), {})
            now = datetime.now(UTC)
            found = await Autoscalers(cluster).of(policy["metadata"]["namespace"], now)
            memory = None if file else await _memory(cluster, policy)
            histories = checkpoint.histories(memory, policy["metadata"].get("uid", ""))
            calendar = await _calendar(apis, policy, now)
            known = reconcile.Known(
                others,
                memory,
                autoscalers=found,
                histories=histories,
                rooms=Rooms(cluster),
                due=calendar.due(now),
                calendar=calendar.problem,
            )
            return await reconcile.look(cluster, asked, brokers, policy, now, known)
        finally:
            if brokers is not None:
                brokers.close()


async def _calendar(apis: Mapping[str, Api], policy: Object, now: datetime) -> Calendar:
    """What is due in its Airflow, as far as the first questions tell it."""
    spec, prior = policies.parsed(policy)
    calendar = Calendar()
    line = str(spec.airflow.version or prior.airflow_version) or None
    asked = {name: AirflowApi(name, api) for name, api in apis.items()}
    if asked:
        await calendar.read(asked, spec, policy["metadata"]["namespace"], line, now)
    return calendar


async def _memory(cluster: Cluster, policy: Object) -> api.Remembered | None:
    """What the operator remembers of the policy, where it may be read."""
    metadata = policy["metadata"]
    try:
        found = await cluster.get(checkpoint_path(metadata["namespace"], metadata["name"]))
        return api.Remembered.model_validate(found.get("memory"))
    except (Refused, ValidationError):
        return None


async def _found(cluster: Cluster, namespace: str, name: str | None) -> Object:
    if name is not None:
        try:
            return await cluster.get(policy_path(namespace, name))
        except NotFound as error:
            msg = f"There is no {api.KIND} {name} in the namespace {namespace}."
            raise Misconfigured(msg) from error
    try:
        policies = await cluster.list(policy_path(namespace), {})
    except NotFound as error:
        msg = f"The cluster has no {api.KIND} resource: install the chart, or give --file."
        raise Misconfigured(msg) from error
    if len(policies) != 1:
        names = ", ".join(item["metadata"]["name"] for item in policies)
        told = f"has several {api.KIND} resources ({names}): name one with --policy"
        told = told if policies else f"has no {api.KIND}: name another with --namespace, or a file with --file"
        msg = f"The namespace {namespace} {told}."
        raise Misconfigured(msg)
    return policies[0]
