"""What a watch shows of one pod, from its creation to its end."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from testbed.controlplane import ControlPlane

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a pod with one container."""

    phase: str
    state: str
    """Of the container, with its reason."""
    restarts: int
    resize: tuple[str, ...]
    """The conditions of a resize, with their reasons."""
    limit: str
    """The memory limit in force; empty where the status names none."""
    last: str = ""
    """Why the life before ended."""

    @classmethod
    def at(cls, pod: Object) -> Self:
        """A look at this version of it."""
        status = pod["status"]
        (container,) = status.get("containerStatuses") or [{}]
        ((state, body),) = (container.get("state") or {"none": {}}).items()
        last = (container.get("lastState") or {}).get("terminated") or {}
        return cls(
            status["phase"],
            f"{state} {body.get('reason', '')}".strip(),
            container.get("restartCount", 0),
            tuple(
                f"{each['type']} {each.get('reason', '')}".strip()
                for each in status.get("conditions") or []
                if each["type"].startswith("PodResize")
            ),
            ((container.get("resources") or {}).get("limits") or {}).get("memory", ""),
            last.get("reason", ""),
        )


class PodHistory:
    """A watch of the pod `name` in the namespace `default`; as a context manager it lasts until the end of the block.

    Its file at `path` holds every version of the pod that the API server told of.
    """

    def __init__(self, control_plane: ControlPlane, name: str, path: Path) -> None:
        self._path = path
        self._argv = [
            *(str(control_plane.binary), "kubectl", f"--kubeconfig={control_plane.kubeconfig}", "get", "pods"),
            *("--watch", "--output=json", f"--field-selector=metadata.name={name}"),
        ]
        self._watch: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self._path.open("wb") as file:
            self._watch = subprocess.Popen(self._argv, stdout=file)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watch is not None:
            self._watch.terminate()
            self._watch.wait()

    def versions(self) -> list[tuple[Look, Object]]:
        """All looks so far, without repetitions, each with the last version of the pod that looked like that."""
        text, decoder, found = self._path.read_text(), json.JSONDecoder(), list[tuple[Look, Object]]()
        at = 0
        while (at := text.find("{", at)) >= 0:
            try:
                pod, at = decoder.raw_decode(text, at)
            except ValueError:  # the last one is still being written
                break
            look = Look.at(pod)
            if found and found[-1][0] == look:
                found.pop()
            found.append((look, pod))
        return found
