"""Containers of a compose project as the engine inspects them, out of few words."""

from typing import Any

MI = 2**20
STARTED = "2026-11-24T11:00:00.123456789Z"
ID = "5f1c" * 16


def inspected(service: str = "airflow-worker", limit: int | None = 700, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - any part of it
    """A container that runs; `limit` in MiB. The fields are parts of it."""
    labels = {
        "com.docker.compose.project": "airflow",
        "com.docker.compose.service": service,
        "com.docker.compose.config-hash": "abc",
    }
    state = {"Status": "running", "Running": True, "StartedAt": STARTED, "FinishedAt": "0001-01-01T00:00:00Z"}
    return {
        "Id": fields.get("id", ID),
        "Name": f"/airflow-{service}-1",
        "Created": "2026-11-24T10:59:59.000000001Z",
        "Image": "sha256:1",
        "RestartCount": fields.get("restarts", 0),
        "State": {**state, **fields.get("state", {})},
        "Config": {
            "Hostname": fields.get("id", ID)[:12],
            "Image": "apache/airflow:3.3.2",
            "Env": fields.get("env", ["AIRFLOW__CELERY__WORKER_CONCURRENCY=4", "OTHER=kept"]),
            "Entrypoint": ["/usr/bin/dumb-init", "--", "/entrypoint"],
            "Cmd": ["celery", "worker"],
            "Labels": {**labels, **fields.get("labels", {})},
            **fields.get("config", {}),
        },
        "HostConfig": {"Memory": (limit or 0) * MI, "NetworkMode": "airflow_default", **fields.get("host", {})},
        "NetworkSettings": {"Networks": fields.get("networks", {})},
        "Mounts": fields.get("mounts", []),
    }
