"""A container that dies again and again, as the kubelet tells it in a pod's status. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

Object = Mapping[str, Any]

BACK_OFF = "CrashLoopBackOff"
SIGKILLED = 137
"""Exit code of a process that SIGKILL ended."""

OUT_OF_MEMORY = "OOMKilled"

_PUT_OFF = re.compile(r"back-off (?:(\d+)m)?(\d+)s ")
"""The kubelet's words: `back-off 1m20s restarting failed container=...`."""

CELERY = re.compile(
    r"The module/attribute could not be loaded\b.*:CeleryExecutor:"
    r"|Failed to import providers_configuration_loaded|celery\.backends\.database\.retry",
    re.DOTALL,
)
"""Last words of a scheduler and of a worker that cannot load Celery: those of celery 5.7 with the celery provider
3.26.0 (read on Airflow 3.3.2). Kubernetes has them only where `terminationMessagePolicy` is `FallbackToLogsOnError`;
the official chart leaves it at `File`."""


@dataclass(frozen=True, slots=True)
class Crash:
    """A container of a pod that has died before, and of what."""

    container: str
    restarts: int
    code: int | None
    """Exit code of the last death."""
    reason: str
    """In the kubelet's word, such as `Error` or `Completed`."""
    at: datetime
    """When it last died."""
    lasted: timedelta | None
    """How long it ran before."""
    put_off: timedelta | None = None
    """How long its restart is put off: twice as long after each death in a row. `None`: it is not put off."""
    started: datetime | None = None
    """Since when it runs again."""
    before: datetime | None = None
    """When it had died before that; known while it waits for its next start."""
    of_celery: bool = False
    """Its last words are those of an Airflow that cannot load Celery."""


def read(status: Object, main: str) -> Crash | None:
    """The container of a pod whose restart is put off, else the main one where it has died; none for memory."""
    told = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    found = [crash for state in told if (crash := _crash(state)) is not None]
    # An init container that has done its work may have died before.
    found = [crash for crash in found if crash.put_off is not None or crash.container == main]
    return max(found, key=lambda crash: (crash.put_off is not None, crash.container == main), default=None)


def _crash(state: Object) -> Crash | None:
    now, earlier = state.get("state") or {}, (state.get("lastState") or {}).get("terminated") or {}
    # A kubelet of 1.36 puts a restart off and says no word of it: the container is one that has ended, until then.
    ended = now.get("terminated") or {}
    last = ended if ended.get("finishedAt") else earlier
    if not last.get("finishedAt") or last.get("reason") == OUT_OF_MEMORY:
        return None
    at, begun = datetime.fromisoformat(last["finishedAt"]), last.get("startedAt")
    waiting, running = now.get("waiting") or {}, (now.get("running") or {}).get("startedAt")
    return Crash(
        container=str(state["name"]),
        restarts=int(state.get("restartCount", 0)),
        code=last.get("exitCode"),
        reason=str(last.get("reason", "")),
        at=at,
        lasted=at - datetime.fromisoformat(begun) if begun else None,
        put_off=_put_off(str(waiting.get("message", ""))) if waiting.get("reason") == BACK_OFF else None,
        started=datetime.fromisoformat(running) if running else None,
        before=datetime.fromisoformat(earlier["finishedAt"]) if last is ended and earlier.get("finishedAt") else None,
        of_celery=CELERY.search(str(last.get("message", ""))) is not None,
    )


def _put_off(message: str) -> timedelta:
    found = _PUT_OFF.search(message)
    return timedelta(minutes=int(found[1] or 0), seconds=int(found[2])) if found else timedelta()
