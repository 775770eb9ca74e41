"""A container's successor: the same container with another environment, as the engine is asked to make it. Pure.

The engine changes no environment of a container that exists. What it inspects is sent back as it is, so that nothing is
lost of what is not known here; what belongs to the old container alone is taken out.
"""

from collections.abc import Mapping
from typing import Any

from airflow_tuner import api, compose, environment
from airflow_tuner.room import DECISION

OWN_NETWORK = ("host", "none", "container:")
"""Network modes without networks of the engine."""
KEPT = ("IPAMConfig", "Links", "DriverOpts")
"""Of a container's end of a network: what was asked for, and not what the engine gave it."""

Object = dict[str, Any]


def body(item: compose.Object, base: compose.Baseline, tuned: api.Tuned, image: str) -> Object:
    """What to create. `base`: what the service's definition says; `image`: the one that it runs."""
    config = {**item["Config"], "Image": image}
    others = [entry for entry in config.get("Env") or [] if entry.partition("=")[0] not in environment.NAMES]
    ours = {**base.environment, **{str(one.name): one.value for one in tuned.env}}
    config["Env"] = [*others, *(f"{name}={value}" for name, value in sorted(ours.items()))]
    labels = {DECISION: tuned.decision, compose.ORIGINAL: base.written}
    config["Labels"] = {**(config.get("Labels") or {}), **labels}
    if config.get("Hostname") == item["Id"][:12]:
        # The engine's own choice: the short id.
        config.pop("Hostname")
    # Where the machine lends its name, the engine refuses one.
    if (item["HostConfig"].get("UTSMode") or "") == "host":
        config.pop("Hostname", None)
    config["HostConfig"] = _host(item)
    first = next(iter(ends(item).items()), None)
    if first is not None:
        config["NetworkingConfig"] = {"EndpointsConfig": {first[0]: first[1]}}
    return config


def ends(item: compose.Object) -> dict[str, Object]:
    """The networks that it is in, the one it was born in first, with what it asked of each."""
    mode = str(item["HostConfig"].get("NetworkMode", ""))
    if mode.startswith(OWN_NETWORK):
        return {}
    found = (item.get("NetworkSettings") or {}).get("Networks") or {}
    order = sorted(found, key=lambda name: name != mode)
    return {name: _end(found[name], item["Id"]) for name in order}


def _end(told: Mapping[str, Any], container: str) -> Object:
    aliases = [alias for alias in told.get("Aliases") or [] if not container.startswith(alias)]
    return {"Aliases": aliases, **{key: told[key] for key in KEPT if told.get(key)}}


def _host(item: compose.Object) -> Object:
    """The same mounts: a volume without a name would be left behind, so it is named."""
    host = dict(item["HostConfig"])
    volumes = {str(one["Destination"]): one for one in item.get("Mounts") or [] if one.get("Type") == "volume"}
    binds, mounts = [*(host.get("Binds") or [])], [dict(one) for one in host.get("Mounts") or []]
    known = {bind.split(":")[1] for bind in binds if ":" in bind}
    for one in mounts:
        known.add(str(one.get("Target")))
        if one.get("Type") == "volume" and not one.get("Source") and one.get("Target") in volumes:
            one["Source"] = volumes[str(one["Target"])]["Name"]
    binds += [
        f"{one['Name']}:{place}" + ("" if one.get("RW", True) else ":ro")
        for place, one in volumes.items()
        if place not in known
    ]
    return {**host, "Binds": binds, "Mounts": mounts}


def patience(item: compose.Object) -> float:
    """Seconds within which a container should have become healthy: its start period, and all tries of its check."""
    check = item["Config"].get("Healthcheck") or {}

    def seconds(name: str, default: float) -> float:
        return float(check.get(name) or 0) / compose.SECOND or default

    tries = int(check.get("Retries") or 3) + 1
    return seconds("StartPeriod", 0.0) + tries * (seconds("Interval", 30.0) + seconds("Timeout", 30.0))


def checked(item: compose.Object) -> bool:
    """It has a health check."""
    test = (item["Config"].get("Healthcheck") or {}).get("Test") or ["NONE"]
    return bool(test[0] != "NONE")
