"""One pod on a virtual node: what its kubelet does to it, step by step. No I/O, and time is an argument."""

import json
from collections.abc import Iterator
from typing import Any

from testbed.virtual_containers import Containers
from testbed.virtual_habits import Event, Habits, Now
from testbed.virtual_resources import (
    Misfit,
    Room,
    both,
    cpu_limit,
    lowers,
    memory_limit,
    qos_class,
    requested,
    resources_of,
    together,
)
from testbed.virtual_statuses import KILLED, ContainerRecord, condition, conditions, init_statuses, timed

Object = dict[str, Any]

FOREVER = float("inf")
USUAL_GRACE = 30.0
"""The grace period in seconds where a pod names none."""


class VirtualPod:
    """A pod bound to the node. `statuses` and `events` are what is to be written to the API, in order.

    `component` is the Airflow component that the pod's main container is in the model; with None, no container of it
    is in the model.
    """

    def __init__(
        self, item: Object, containers: Containers, component: str | None, habits: Habits, address: str
    ) -> None:
        self.item = item
        self.uid: str = item["metadata"]["uid"]
        self.name: str = item["metadata"]["name"]
        self.namespace: str = item["metadata"]["namespace"]
        self.component = component
        self.records = [
            ContainerRecord(self.uid, each["name"], each["image"], resources_of(each), resources_of(each))
            for each in item["spec"]["containers"]
        ]
        self.main = self._main_record()
        self.statuses: list[Object] = []
        self.events: list[Event] = []
        self.over = False
        """Whether it has ended for good: all that is left is to delete it where that was asked."""
        self._containers = containers
        self._habits = habits
        self._address = address
        self._phase = "Pending"
        self._refusal: Object = {}
        self._born: str | None = None
        self._started: str | None = None
        self._start_at = FOREVER
        self._restart_at: dict[str, float] = {}
        self._notice_at: dict[str, float] = {}
        self._back_off: dict[str, tuple[float, float]] = {}  # seconds to wait, and since when that counts
        self._job_done_at = FOREVER
        self._kill_at: float | None = None  # set from the moment it is told to end
        self._renew: dict[str, float] = {}  # containers that a resize restarts, and when they are killed
        self._pending: Object | None = None
        self._progress: Object | None = None
        self._error = ""  # why the last try to put a resize in force failed
        self._act_at = FOREVER
        self._told: dict[str, Object] = {
            each["type"]: each for each in (item.get("status") or {}).get("conditions") or []
        }
        self._dirty = False

    @property
    def spec(self) -> Object:
        """As the API server has it now."""
        return dict(self.item["spec"])

    @property
    def generation(self) -> int:
        """Of the spec."""
        return int(self.item["metadata"].get("generation") or 1)

    @property
    def alive(self) -> bool:
        """Whether its main container is in the model now."""
        return self.component is not None and self.main.running

    @property
    def used(self) -> Room:
        """What the node has granted to it."""
        return requested(self.spec, {each.name: each.allocated for each in self.records})

    @property
    def asked(self) -> Room:
        """What its spec asks for."""
        return requested(self.spec, {})

    @property
    def resizing(self) -> bool:
        """Whether its spec asks for other resources than were granted."""
        return not self.over and any(each.allocated != wanted for each, wanted in self._wanted())

    def admit(self, why_not: Misfit | None, now: Now) -> None:
        """Take it in, or refuse it for want of room."""
        self._born = now.text
        if why_not is None:
            self._start_at = now.seconds + self._habits.start
        else:
            reason = f"OutOf{why_not.resource}"
            self._refusal = {"reason": reason, "message": f"Pod was rejected: {why_not.message}"}
            self._phase, self.over = "Failed", True
            self._tell("Warning", reason, why_not.message)
        self._publish(now)

    def update(self, item: Object, now: Now) -> None:
        """The API server has this version of the pod now."""
        seen, self.item = self.generation, item
        self._dirty = self._dirty or (self.generation != seen and not self.over)
        grace = item["metadata"].get("deletionGracePeriodSeconds")
        if item["metadata"].get("deletionTimestamp") and self._kill_at is None:
            self._kill_at = now.seconds + (USUAL_GRACE if grace is None else grace)
            if self.alive:
                self._containers.stop(self.name)
            if self._dirty:
                self._publish(now)

    def grant(self, why_not: Misfit | None, now: Now) -> None:
        """Put the resize that the spec asks for on its way, or keep it waiting for room."""
        if why_not is not None:
            new = condition("PodResizePending", "True", self.generation, "Deferred", why_not.message)
            if self._pending is None or self._pending["observedGeneration"] != self.generation:
                self._tell("Warning", "ResizeDeferred", "Pod resize Deferred", error=why_not.message)
            self._dirty = self._dirty or new != self._pending
            self._pending = new
            return
        self._pending = None
        for record, wanted in self._wanted():
            record.allocated = wanted
        self._progress, self._error = condition("PodResizeInProgress", "True", self.generation), ""
        lowered = any(lowers(record.in_force, record.allocated) for record in self.records)
        self._act_at = now.seconds + (self._habits.lowered if lowered else self._habits.raised)
        self._tell("Normal", "ResizeStarted", "Pod resize started")
        self._publish(now)

    def withdraw(self) -> None:
        """The spec asks for nothing else than what was granted: no resize waits."""
        self._dirty = self._dirty or self._pending is not None
        self._pending = None

    def killed(self, now: Now) -> None:
        """The kernel has killed the main container for memory; the model has forgotten it already."""
        self._die(self.main, KILLED, "OOMKilled", now)

    def step(self, now: Now) -> None:
        """Do what is due by now."""
        if self.over:
            return
        if self._kill_at is not None:
            self._step_to_the_end(now)
        else:
            if now.seconds >= self._start_at:
                self._start_all(now)
            self._step_restarts(now)
            self._step_renewals(now)
            self._step_resize(now)
            if now.seconds >= self._job_done_at:
                self._finish(0, "Completed", now)
        if self._dirty:
            self._publish(now)

    def forget(self) -> None:
        """It is gone from the API server, whatever it was doing."""
        if self.alive:
            self._containers.end(self.name)
        self.over = True

    def _main_record(self) -> ContainerRecord:
        """The container named for the component, as in the official chart; else the first."""
        return next((each for each in self.records if each.name == self.component), self.records[0])

    def _wanted(self) -> Iterator[tuple[ContainerRecord, Object]]:
        wanted = {each["name"]: resources_of(each) for each in self.item["spec"]["containers"]}
        for record in self.records:
            yield record, wanted[record.name]

    def _start_all(self, now: Now) -> None:
        self._start_at = FOREVER
        self._phase = "Running"
        self._started = now.text
        for record in self.records:
            self._start(record, now)
        if self.component is None and self.spec.get("restartPolicy", "Always") != "Always":
            self._job_done_at = now.seconds + self._habits.job

    def _start(self, record: ContainerRecord, now: Now) -> None:
        record.start(now.text)
        self._dirty = True
        if record is self.main and self.component is not None:
            limits = memory_limit(record.in_force), cpu_limit(record.in_force)
            self._containers.start(self.name, self.component, self._environment(), *limits)
        if self._progress and all(each.in_force == each.allocated for each in self.records):
            self._complete()

    def _environment(self) -> dict[str, str]:
        """The variables with a plain value."""
        container = next(each for each in self.item["spec"]["containers"] if each["name"] == self.main.name)
        return {each["name"]: each.get("value", "") for each in container.get("env") or [] if "valueFrom" not in each}

    def _die(self, record: ContainerRecord, exit_code: int, reason: str, now: Now) -> None:
        record.end(now.text, exit_code, reason)
        self._renew.pop(record.name, None)
        policy = self.spec.get("restartPolicy", "Always")
        if self._kill_at is not None:
            pass
        elif policy == "Always" or (policy == "OnFailure" and exit_code):
            self._plan_restart(record, now)
        elif not any(each.running for each in self.records):
            failed = any(each.dead and each.dead["exitCode"] for each in self.records)
            self._phase, self.over = ("Failed" if failed else "Succeeded"), True
        self._publish(now)

    def _plan_restart(self, record: ContainerRecord, now: Now) -> None:
        """The first restart comes at once, later ones after a back-off that doubles, and is forgotten in good time."""
        wait, since = self._back_off.get(record.name, (0.0, -FOREVER))
        if now.seconds - since > 2 * self._habits.longest_back_off:
            wait = 0.0
        if wait:
            self._notice_at[record.name] = now.seconds + self._habits.notice
        after = wait * 2 if wait else self._habits.first_back_off
        self._back_off[record.name] = (min(after, self._habits.longest_back_off), now.seconds + wait)
        self._restart_at[record.name] = now.seconds + max(wait, self._habits.notice)

    def _step_restarts(self, now: Now) -> None:
        for record in self.records:
            if now.seconds >= self._restart_at.get(record.name, FOREVER):
                del self._restart_at[record.name]
                self._start(record, now)
            elif now.seconds >= self._notice_at.get(record.name, FOREVER):
                del self._notice_at[record.name]
                wait = round(self._restart_at[record.name] - (now.seconds - self._habits.notice))
                whose = f"container={record.name} pod={self.name}_{self.namespace}({self.uid})"
                minutes = f"{wait // 60}m" if wait >= 60 else ""
                message = f"back-off {minutes}{wait % 60}s restarting failed {whose}"
                record.waiting = {"reason": "CrashLoopBackOff", "message": message}
                self._dirty = True

    def _step_renewals(self, now: Now) -> None:
        for name, deadline in list(self._renew.items()):
            record = next(each for each in self.records if each.name == name)
            in_time = not self.alive or record is not self.main or self._containers.idle(self.name)
            if in_time or now.seconds >= deadline:
                self._renew_now(record, now, in_time=in_time)

    def _step_resize(self, now: Now) -> None:
        if now.seconds < self._act_at:
            return
        if self._error:
            self._progress = condition("PodResizeInProgress", "True", self.generation, "Error", self._error)
            self._dirty = True
        if why_not := self._below_usage():
            if why_not != self._error:
                self._tell("Warning", "ResizeError", "Pod resize error", error=why_not)
            self._error = why_not  # a kubelet shows it at its next try
            self._act_at = now.seconds + self._habits.resize_retry
            return
        self._act_at = FOREVER
        for record in self.records:
            if not record.running:
                record.in_force = record.allocated
            elif record.in_force != record.allocated:
                self._put_in_force(record, now)
        if not self._renew:
            self._complete()

    def _below_usage(self) -> str:
        """Why a limit of memory cannot be lowered; empty where it can. Like a kubelet it names the pod's usage."""
        if not self.alive or self._needs_restart(self.main):
            return ""
        old, new = memory_limit(self.main.in_force), memory_limit(self.main.allocated)
        usage = int(self._containers.reading(self.name).usage)
        if new is None or (old is not None and new >= old) or usage < new:
            return ""
        what = f'attempting to set container "{self.main.name}" memory limit ({new}) below current usage ({usage})'
        return f"cannot decrease memory limits: {what}"

    def _put_in_force(self, record: ContainerRecord, now: Now) -> None:
        in_model = record is self.main and self.alive
        if self._needs_restart(record):
            self._renew[record.name] = now.seconds + float(self.spec.get("terminationGracePeriodSeconds", USUAL_GRACE))
            if in_model:
                self._containers.stop(self.name)
            return
        record.in_force = record.allocated
        self._dirty = True
        if in_model:
            self._containers.resize(self.name, memory_limit(record.in_force), cpu_limit(record.in_force))

    def _needs_restart(self, record: ContainerRecord) -> bool:
        """Whether its resizePolicy has it restarted for what changes now."""
        container = next(each for each in self.item["spec"]["containers"] if each["name"] == record.name)
        return any(
            each["restartPolicy"] == "RestartContainer"
            and both(record.in_force, each["resourceName"]) != both(record.allocated, each["resourceName"])
            for each in container.get("resizePolicy") or []
        )

    def _renew_now(self, record: ContainerRecord, now: Now, *, in_time: bool) -> None:
        """Start the container again, for the sake of its resize."""
        del self._renew[record.name]
        if record is self.main and self.alive:
            self._containers.end(self.name)
        record.end(now.text, *((0, "Completed") if in_time else (KILLED, "Error")))
        self._start(record, now)

    def _complete(self) -> None:
        self._progress, self._error, self._act_at = None, "", FOREVER
        self._dirty = True
        self._tell("Normal", "ResizeCompleted", "Pod resize completed")

    def _step_to_the_end(self, now: Now) -> None:
        deadline = self._kill_at is not None and now.seconds >= self._kill_at
        if not self.alive or self._containers.idle(self.name):
            self._finish(0, "Completed", now)
        elif deadline:
            self._finish(KILLED, "Error", now)

    def _finish(self, exit_code: int, reason: str, now: Now) -> None:
        """All its containers end, the main one like this."""
        if self.alive:
            self._containers.end(self.name)
        for record in self.records:
            if record.running:
                record.end(now.text, *((exit_code, reason) if record is self.main else (0, "Completed")))
            elif record.dead is not None:
                record.waiting = {}
        failed = self._started is None or any(each.dead and each.dead["exitCode"] for each in self.records)
        self._phase, self.over = ("Failed" if failed else "Succeeded"), True
        self._publish(now)

    def _publish(self, now: Now) -> None:
        """Note its status as it is now, to be written."""
        self._dirty = False
        if self._refusal:
            self.statuses.append({"phase": self._phase, "qosClass": qos_class(self.spec), **self._refusal})
            return
        begun = self._started is not None
        init = begun or not self.spec.get("initContainers")
        own = conditions(
            self.records, self._phase, sandbox=begun and not self.over, init=init, generation=self.generation
        )
        own += [each for each in (self._pending, self._progress) if each is not None]
        times = timed(own, self._told, now.text)
        self._told = {each["type"]: each for each in times}
        addresses = {"podIP": self._address, "podIPs": [{"ip": self._address}]} if begun else {}
        self.statuses.append(
            {
                "observedGeneration": self.generation,
                "phase": self._phase,
                "conditions": times,
                "hostIP": "127.0.0.1",
                "hostIPs": [{"ip": "127.0.0.1"}],
                **addresses,
                "startTime": self._born,
                **init_statuses(self.spec, self.uid, self._started),
                "containerStatuses": [each.status() for each in self.records],
                "qosClass": qos_class(self.spec),
                "allocatedResources": together(each.allocated for each in self.records).get("requests") or {},
                "resources": together(each.in_force for each in self.records),
            }
        )

    def _tell(self, kind: str, reason: str, words: str, error: str = "") -> None:
        about = {
            "containers": [{"name": each.name, "resources": each.allocated} for each in self.records],
            "generation": self.generation,
            **({"error": error} if error else {}),
        }
        told = f"{words}: {json.dumps(about, separators=(',', ':'))}" if reason.startswith("Resize") else words
        self.events.append(Event(kind, reason, told))
