"""Many turns over a world that lives: kills of both kinds, pods that come and go, users who change their minds.

The machine below is the API server, the kubelet, cAdvisor, Prometheus and the admission policy in a few lines each; the
core sees of them only what it would see for real.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise

import jsonschema
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from airflow_tuner import api, crd, quantity, status
from airflow_tuner.budget import EXEMPT, Budget
from airflow_tuner.decide import bounds_of
from airflow_tuner.environment import stated
from airflow_tuner.history import History, hour_of, of_cpu, of_tasks
from airflow_tuner.model import (
    Change,
    Cpu,
    Death,
    Memory,
    MetricsState,
    Pod,
    Refusal,
    Sample,
    TargetDecision,
    Usage,
    Values,
    Workload,
)
from airflow_tuner.past import cpu_from_tuned, from_api, from_tuned, whole
from airflow_tuner.room import LIMITS, REQUESTS, Node, Quota, Range, Room
from core.worlds import MI, NOW, Turn, airflow, observed, resized, slots, slots_spec, spec, tasks, turn, worker

SCHEMA = jsonschema.Draft202012Validator(crd.schema()["properties"]["status"])
TEMPLATES = (
    ("512Mi", "1Gi"),
    ("500M", "1G"),
    ("64Mi", "200Mi"),
    ("1Gi", "1Gi"),
    ("1Gi", None),
    (None, None),
    ("2Gi", "9Gi"),
)
BOUNDS = (("512Mi", "4Gi"), ("100Mi", "1500M"), ("1Gi", "1Gi"), ("2Gi", "8Gi"), ("1G", "1G"))
CPU_TEMPLATES: tuple[tuple[str | None, str | None], ...] = (
    (None, None),
    ("250m", None),
    ("500m", "1"),
    ("1", "1"),
    ("3", "4"),
)
CPU_BOUNDS = (None, ("100m", "2"), ("1", "1"), ("500m", "1500m"))
SLOTS = (None, (1, 16), (4, 8), (1, 1))
STATED = (None, 1, 4, 12)
CONFIGURED = 3
"""Slots of a worker whose environment says nothing."""
MAY_LOWER = {"TemplateChanged", "BoundsChanged", "MemoryReleased", "PodsRefused"}
MAY_LOWER_CPU = {"TemplateChanged", "BoundsChanged", "CpuReleased", "PodsRefused", "Released"}
NEED_METRICS = {"LimitsMissing", "NodeMemoryPressure", "MemoryReleased", "CpuReleased", "CpuThrottled", "SlotsReleased"}
PASTS = (0, 3 * 24, 28 * 24)
"""Hours that are known when the machine begins."""
QUOTAS = (None, (LIMITS, 3000), (LIMITS, 6000), (LIMITS, 20_000), (REQUESTS, 4000), (REQUESTS, 12_000))
RANGES = ((), (Range("sizes", "Container", most=1800 * MI),), (Range("sizes", "Container", ratio=2.0),))
NODES = (None, (2000, 500), (4000, 500), (8000, 0), (16_000, 12_000))
"""Of two nodes, in MiB: what pods may request on each, and what others do."""
OF_THE_USER = {"TemplateChanged", "BoundsChanged", "BelowMinimum", "Recommended", "Released", "PodsRefused"}
"""Changes that are no decision about what was seen, and may turn at once."""
FREE = {"OutOfMemory", "MemoryBound"}
"""Answers to kills: no cooldown holds them."""
LATER = {"BoundsChanged", "BelowMinimum", "MemoryForecast", "MemoryReleased", "SlotsForecast", "SlotsReleased"}
LATER |= {"CpuUsed", "CpuReleased", "CpuThrottled", "PodsRefused"}
"""Steps that give way to others."""
COOLDOWNS = {"limit": (600, 3600), "request": (600, 3600), "slots": (60, 1800), "cpu": (600, 3600)}
"""Seconds before a knob turns up again, and down again. More memory that comes with more slots waits as slots do."""


def _listed(memory: str | None, cpu: str | None) -> dict[str, str]:
    return {name: size for name, size in (("memory", memory), ("cpu", cpu)) if size is not None}


def _guaranteed(memory: Memory, cpu: Cpu) -> bool:
    """A pod of this one container is Guaranteed."""
    return None not in {memory.limit, cpu.limit} and memory.request == memory.limit and cpu.request == cpu.limit


@dataclass
class Container:
    """A pod's worker container, as the kernel knows it."""

    pod: Pod
    processes: int = CONFIGURED
    kills: int = 0
    peak: float = 0
    held: float = 0
    cores: float = 0.1
    throttled: float = 0
    shown: Usage = field(default_factory=Usage)


class _Life(RuleBasedStateMachine):
    """One worker workload, one policy, one operator that may be stopped at the worst moments."""

    def __init__(self) -> None:
        super().__init__()
        self.now: datetime = NOW
        self.births = 0
        self.containers: dict[str, Container] = {}
        self.status = api.Status()
        self.template: tuple[str | None, str | None] = TEMPLATES[0]
        self.bounds = BOUNDS[0]
        self.mode, self.named, self.paused, self.metrics = "Enforce", True, False, True
        self.stopped, self.refused = False, False
        self.slots: tuple[int, int] | None = None
        self.stated: int | None = None
        self.cpu_template = CPU_TEMPLATES[0]
        self.cpu: tuple[str, str] | None = None
        self.broker = True
        self.waiting, self.busy_day = 0, 16
        self.histories: dict[str, History] = {}
        self.unanswered = 0
        """Kills that may still cause a raise: each may cause one."""
        self.quota: tuple[str, int] | None = None
        self.others = 0
        """What other pods take of the quota, in MiB."""
        self.ranges: tuple[Range, ...] = ()
        self.nodes: tuple[int, int] | None = None
        self.refusal: Refusal | None = None
        self.left: int | None = None
        """Ordinary changes that the operator has left; `None`: they are not counted."""
        self.turned: dict[str, tuple[int, datetime]] = {}
        """In which direction each knob was last turned, and when."""

    # What is there

    def policy(self) -> api.Spec:
        policy = spec(*self.bounds, mode=self.mode)
        if self.slots is not None:
            low, high = self.slots
            memory = {"memory_min": self.bounds[0], "memory_max": self.bounds[1]}
            policy = slots_spec(low, high, **memory, mode=self.mode)
        if self.cpu is not None:
            cpu = api.Cpu(min=self.cpu[0], max=self.cpu[1])
            policy = policy.model_copy(update={"workers": [policy.workers[0].model_copy(update={"cpu": cpu})]})
        return policy if self.named else policy.model_copy(update={"workers": []})

    def environment(self) -> dict[str, str]:
        return {} if self.stated is None else {str(api.EnvName.CONCURRENCY): str(self.stated)}

    def workload(self) -> Workload:
        request, limit = self.template
        values = Memory(
            None if request is None else quantity.parse(request), None if limit is None else quantity.parse(limit)
        )
        pods = [
            replace(
                container.pod,
                usage=replace(container.shown, cpu=Sample(container.cores, self.now)) if self.metrics else Usage(),
                slots=slots(container.processes) if self.broker and container.pod.running else None,
            )
            for container in self.containers.values()
        ]
        return worker(
            *pods,
            template=values,
            requests=_listed(request, self.cpu_template[0]),
            limits=_listed(limit, self.cpu_template[1]),
            environment=self.environment(),
            stated=Values(concurrency=self.stated, cpu=self.cpu_of_template()),
            refusal=self.refusal,
        )

    def cpu_of_template(self) -> Cpu:
        request, limit = (None if one is None else quantity.millicores(one) for one in self.cpu_template)
        return Cpu(request, limit)

    def room(self) -> Room:
        """What there is room for, as the API server would tell it."""
        quotas: tuple[Quota, ...] = ()
        if self.quota is not None:
            figure, hard = self.quota
            quotas = (Quota("memory", figure, hard * MI, self.others * MI + self.used()),)
        nodes = self.nodes and tuple(Node(name, self.nodes[0] * MI, self.nodes[1] * MI) for name in "ab")
        return Room(quotas, self.ranges, nodes or (), self.nodes[0] * MI if self.nodes else None)

    def used(self, instead: str = "", born: Memory | None = None) -> int:
        """What the pods take of the quota, and one more, which may be `instead` of one of them."""
        sizes = [container.pod.memory for name, container in self.containers.items() if name != instead]
        sizes += [born] if born else []
        limits = self.quota is not None and self.quota[0] == LIMITS
        return sum((size.limit if limits else size.request) or 0 for size in sizes)

    def admitted(self, values: Memory, instead: str = "") -> bool:
        """Whether quota and limit range let a pod of this size be."""
        if self.quota is not None and self.used(instead, values) + self.others * MI > self.quota[1] * MI:
            return False
        for one in self.ranges:
            too_large = one.most is not None and (values.limit is None or values.limit > one.most)
            odd = one.ratio and (not values.limit or values.limit > one.ratio * (values.request or 1))
            if too_large or odd:
                return False
        return True

    def take_turn(self) -> Turn:
        state = MetricsState.FRESH if self.metrics else MetricsState.UNAVAILABLE
        running = sum(container.processes for container in self.containers.values())
        found = tasks(self.waiting, running if self.waiting else 0, duration=60.0, busy_day=self.busy_day)
        says = airflow(found) if self.metrics else airflow(problem="It does not answer.")
        broker = "" if self.broker else "It does not answer."
        seen = observed(
            self.workload(), at=self.now, state=state, airflow=says, broker=broker, histories=self.histories
        )
        seen = replace(seen, room=self.room(), budget=None if self.left is None else Budget(self.left, 0))
        if self.left == 0:
            seen = replace(seen, budget=Budget(30, 30, self.now + timedelta(hours=1)))
        return turn(self.policy(), seen, self.status, paused=self.paused)

    def any_pod(self, number: int) -> Container | None:
        names = sorted(self.containers)
        return self.containers[names[number % len(names)]] if names else None

    # What happens

    @initialize(
        template=st.sampled_from(TEMPLATES),
        bounds=st.sampled_from(BOUNDS),
        pods=st.integers(0, 3),
        past=st.sampled_from(PASTS),
        usual=st.integers(50, 3000),
        cores=st.integers(10, 3000),
        most_tasks=st.sampled_from([0, 2, 10, 30]),
        cpu=st.sampled_from(CPU_BOUNDS),
    )
    def begin(  # noqa: PLR0913, PLR0917 - the parts of a world
        self,
        template: tuple[str | None, str | None],
        bounds: tuple[str, str],
        pods: int,
        past: int,
        usual: int,
        cores: int,
        most_tasks: int,
        cpu: tuple[str, str] | None,
    ) -> None:
        self.template, self.bounds, self.cpu = template, bounds, cpu
        if past:
            first, hours = hour_of(self.now) - past, range(past)
            self.histories = {
                "worker/default": History(first, tuple(usual + 500 * (hour % 24 == 2) for hour in hours)),
                of_cpu("worker/default"): History(first, (cores,) * past),
                of_tasks("worker/default"): History(first, tuple(1 + most_tasks * (hour % 24 < 4) for hour in hours)),
            }
        for _ in range(pods):
            self.a_pod_is_born()

    @rule(seconds=st.sampled_from([0, 1, 14, 61, 599, 601, 3601, 90_000]))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule()
    def a_pod_is_born(self) -> None:
        if len(self.containers) > 4:
            return
        self.births += 1
        values, decision, environment = self.workload().template, None, self.environment()
        cpu = self.cpu_of_template()
        bounds = bounds_of(self.policy(), "worker", "worker/default")
        for entry in self.status.tuned:
            given = from_tuned(entry)
            based = (entry.baseline.requests, entry.baseline.limits)
            same = {str(item.name): item.value for item in entry.baseline.env} == self.environment()
            admitted = given and bounds and bounds.min <= (given.request or 0) and (given.limit or 0) <= bounds.max
            admitted = admitted and same and self.admits(entry)
            if self.mode == "Enforce" and admitted and based == (self.workload().requests, self.workload().limits):
                values, decision, cpu = given or values, entry.decision, cpu_from_tuned(entry) or cpu
                environment |= {str(item.name): item.value for item in entry.env}
        if not self.admitted(values):
            self.refusal = Refusal(self.now, f"exceeded quota: memory, requested: limits.memory={values.limit}")
            return
        self.refusal = None
        born = Pod(
            name=f"w{self.births}",
            uid=f"uid{self.births}",
            created=self.now,
            memory=values,
            running=values,
            container_id=f"c{self.births}",
            cpu=cpu,
            running_cpu=cpu,
            guaranteed=_guaranteed(values, cpu),
            decision=decision,
            environment=environment,
            node="ab"[self.births % 2],
        )
        processes = stated("worker", environment, None).concurrency or CONFIGURED
        self.containers[born.name] = Container(born, processes)

    def admits(self, entry: api.Tuned) -> bool:
        """Whether the spec has room for its environment: an entry is taken as a whole, or not at all."""
        cpu = cpu_from_tuned(entry)
        if cpu is not None:
            # The API server takes a limit where the template has one, and no other.
            low, high = (0, -1) if self.cpu is None else (quantity.millicores(one) for one in self.cpu)
            sizes = [size for size in (cpu.request, cpu.limit) if size is not None]
            whole_ = (cpu.limit is None) == (self.cpu_template[1] is None)
            if not whole_ or not low <= min(sizes) <= max(sizes) <= high or sizes != sorted(sizes):
                return False
        numbers = [int(number) for item in entry.env for number in item.value.split(",")]
        return not numbers or (
            self.slots is not None and self.slots[0] <= min(numbers) <= max(numbers) <= self.slots[1]
        )

    @rule(number=st.integers(0, 9))
    def a_pod_goes(self, number: int) -> None:
        if container := self.any_pod(number):
            del self.containers[container.pod.name]

    @rule(number=st.integers(0, 9), scraped=st.booleans())
    def a_process_is_killed_at_the_limit(self, number: int, scraped: bool) -> None:
        container = self.any_pod(number)
        if container and container.pod.running and (limit := container.pod.running.limit):
            container.kills += 1
            self.unanswered += 1
            container.peak = max(container.peak, limit)
            if scraped:
                self.prometheus_scrapes(peaks=True)

    @rule(number=st.integers(0, 9), share=st.sampled_from([0.3, 0.9]))
    def a_process_is_killed_by_the_node(self, number: int, share: float) -> None:
        container = self.any_pod(number)
        if container:
            container.kills += 1
            self.unanswered += 1
            container.peak = max(container.peak, share * (container.pod.memory.limit or 1024 * MI))

    @rule(number=st.integers(0, 9), down=st.booleans())
    def a_container_is_killed(self, number: int, down: bool) -> None:
        if container := self.any_pod(number):
            pod = container.pod
            self.unanswered += 1
            container.pod = replace(
                pod,
                deaths=pod.deaths + 1,
                death=Death(pod.deaths + 1, self.now),
                container_id=f"{pod.name}-{pod.deaths}",
                running=None if down else pod.memory,
            )
            container.kills, container.peak, container.shown = 0, 0, Usage()
            container.processes = stated("worker", pod.environment, None).concurrency or CONFIGURED

    @rule(peaks=st.booleans())
    def prometheus_scrapes(self, peaks: bool) -> None:
        for container in self.containers.values():
            container.shown = Usage(
                process_kills=Sample(container.kills, self.now),
                peak=Sample(container.peak, self.now) if peaks else None,
                working_set=Sample(container.peak, self.now),
                anonymous=Sample(container.held, self.now),
                throttled=Sample(container.throttled, self.now),
            )

    @rule(number=st.integers(0, 9), share=st.sampled_from([0.1, 0.5, 0.95]))
    def a_container_takes_memory_and_gives_it_back(self, number: int, share: float) -> None:
        if container := self.any_pod(number):
            container.held = share * (container.pod.memory.limit or 1024 * MI)
            container.peak = max(container.peak, container.held)

    @rule(number=st.integers(0, 9), cores=st.sampled_from([0.05, 0.5, 2.5]), throttled=st.sampled_from([0, 0.01, 0.4]))
    def a_container_takes_cpu(self, number: int, cores: float, throttled: float) -> None:
        if container := self.any_pod(number):
            container.cores, container.throttled = cores, throttled

    @rule(cpu=st.sampled_from(CPU_BOUNDS))
    def the_user_changes_the_bounds_of_cpu(self, cpu: tuple[str, str] | None) -> None:
        self.cpu = cpu

    @rule(template=st.sampled_from(CPU_TEMPLATES))
    def the_user_changes_the_cpu_of_the_template(self, template: tuple[str | None, str | None]) -> None:
        self.cpu_template = template

    @rule(number=st.integers(0, 9), size=st.integers(50, 3000))
    def somebody_resizes_a_pod(self, number: int, size: int) -> None:
        container = self.any_pod(number)
        if container and container.pod.memory.limit:
            values = Memory(min(size * MI, container.pod.memory.request or 0), size * MI)
            container.pod = replace(container.pod, memory=values, running=values, foreign=True)

    @rule(template=st.sampled_from(TEMPLATES))
    def the_user_changes_the_template(self, template: tuple[str | None, str | None]) -> None:
        self.template = template

    @rule(waiting=st.sampled_from([0, 0, 5, 200]), busy_day=st.sampled_from([0, 2, 16]))
    def tasks_come_and_go(self, waiting: int, busy_day: int) -> None:
        self.waiting, self.busy_day = waiting, busy_day

    @rule(slots=st.sampled_from(SLOTS))
    def the_user_changes_the_bounds_of_slots(self, slots: tuple[int, int] | None) -> None:
        self.slots = slots

    @rule(stated=st.sampled_from(STATED))
    def the_user_changes_the_slots_of_the_template(self, stated: int | None) -> None:
        self.stated = stated

    @rule(quota=st.sampled_from(QUOTAS), others=st.sampled_from([0, 0, 1000]))
    def somebody_sets_a_quota(self, quota: tuple[str, int] | None, others: int) -> None:
        self.quota, self.others = quota, others

    @rule(ranges=st.sampled_from(RANGES))
    def somebody_sets_a_limit_range(self, ranges: tuple[Range, ...]) -> None:
        self.ranges = ranges

    @rule(nodes=st.sampled_from(NODES))
    def the_nodes_are_others_or_may_not_be_seen(self, nodes: tuple[int, int] | None) -> None:
        self.nodes = nodes

    @rule(left=st.sampled_from([None, None, 0, 1, 5]))
    def other_policies_spend_of_the_budget(self, left: int | None) -> None:
        self.left = left

    @rule(hours=st.sampled_from([1, 6]))
    def nothing_happens_for_long(self, hours: int) -> None:
        """Then every knob comes to rest, and has turned once at most."""
        if self.stopped or self.refused or self.paused or self.mode != "Enforce" or not self.named:
            return
        self.waiting, self.left = 0, None
        seen = []
        for _ in range(12):
            self.now += timedelta(hours=hours)
            self.prometheus_scrapes(peaks=True)
            self.a_turn()
            for target in self.status.targets:
                memory = from_api(target.recommended).memory
                seen.append((memory.limit or 0, memory.request or 0, target.recommended.concurrency or 0))
        # Memory follows the day, which goes up and down once.
        for knob, most in zip(zip(*seen, strict=True), (hours + 1, hours + 1, 1), strict=False):
            moves = [later > now for now, later in pairwise(knob) if now != later]
            assert sum(one != other for one, other in pairwise(moves)) <= most, seen

    @rule(broker=st.sampled_from([True, True, False]))
    def the_broker_comes_and_goes(self, broker: bool) -> None:
        self.broker = broker

    @rule(bounds=st.sampled_from(BOUNDS))
    def the_user_changes_the_bounds(self, bounds: tuple[str, str]) -> None:
        self.bounds = bounds

    @rule(mode=st.sampled_from(["Enforce", "Enforce", "Recommend"]), named=st.sampled_from([True, True, False]))
    def the_user_changes_the_mode(self, mode: str, named: bool) -> None:
        self.mode, self.named = mode, named

    @rule(paused=st.sampled_from([True, False, False]))
    def the_user_pauses_or_not(self, paused: bool) -> None:
        self.paused = paused

    @rule(metrics=st.sampled_from([True, True, False]))
    def metrics_come_and_go(self, metrics: bool) -> None:
        self.metrics = metrics

    @rule()
    def the_status_is_lost(self) -> None:
        self.status, self.turned = api.Status(), {}
        # Without memory the kills that can still be seen may be answered once more, from the template's values.
        self.unanswered = sum(item.kills + item.pod.deaths for item in self.containers.values())

    # What the operator does, and what must hold

    @rule(stopped=st.sampled_from([True, False, False]), refused=st.sampled_from([True, False, False]))
    def the_operator_is_stopped_or_its_resizes_are_refused(self, stopped: bool, refused: bool) -> None:
        self.stopped, self.refused = stopped, refused

    @invariant()
    def a_turn(self) -> None:
        if self.stopped:
            return
        before, last, held = self.status, self.take_turn(), self.left == 0 and self.mode == "Enforce"
        assert last.decision == self.take_turn().decision
        for target in last.decision.targets:
            self.check_values(target)
            self.check_direction(target, before)
        for change in last.decision.changes:
            assert (
                not held
                or change.reason in EXEMPT
                or (change.reason == "BelowMinimum" and before.tuned)
                or not (before.targets)
            )
            if self.mode == "Enforce":
                self.check_turning(change)
                self.check_room(change, before)
            if self.left and change.reason not in EXEMPT:
                self.left -= 1
        if self.mode == "Recommend":
            assert last.status.tuned == []
        if not self.named:
            assert last.decision.targets == ()
            self.unanswered += sum(item.kills + item.pod.deaths for item in self.containers.values())
        self.unanswered -= sum(change.reason == "OutOfMemory" for change in last.decision.changes)
        assert self.unanswered >= 0
        if self.paused and self.mode == "Enforce":
            assert last.decision.changes == ()
            assert (last.status.tuned, last.status.history) == (before.tuned, before.history)
        self.check_status(before, last)
        self.status, self.histories = last.status, dict(last.seen.histories)
        if not self.refused and self.mode == "Enforce" and not self.paused:
            self.act(last)
            self.check_rest()

    def act(self, last: Turn) -> None:
        on = {name: self.limits_on(name) for name in "ab"}
        self.resize(last)
        if self.nodes is not None and all(item.pod.memory.limit for item in self.containers.values()):
            free = (self.nodes[0] - self.nodes[1]) * MI
            assert all(self.limits_on(name) <= max(on[name], free) for name in "ab"), (on, free)

    def limits_on(self, node: str) -> int:
        return sum(item.pod.memory.limit or 0 for item in self.containers.values() if item.pod.node == node)

    def resize(self, last: Turn) -> None:
        for target in last.decision.targets:
            for container in self.containers.values():
                if status.needs_resize(target, container.pod.name):
                    pod = next(one for one in target.workload.pods if one.name == container.pod.name)
                    if not self.may_become(container, status.resized(target, pod) or pod.memory):
                        continue
                    # Of CPU that the policy does not name the core sees nothing.
                    pod = replace(pod, cpu=container.pod.cpu, running_cpu=container.pod.running_cpu)
                    after = resized(pod, target)
                    # Memory is asked for first, then CPU, and neither may change the class.
                    for one, cpu in ((after.memory, pod.cpu), (after.memory, after.cpu)):
                        assert _guaranteed(one, cpu) == pod.guaranteed, (pod, after)
                    container.pod = replace(after, usage=Usage(), slots=None)
                    # Never below what it holds, as far as anybody knows.
                    shown = container.shown.anonymous
                    limit = container.pod.memory.limit
                    lower = None not in {limit, pod.memory.limit} and (limit or 0) < (pod.memory.limit or 0)
                    assert shown is None or not lower or shown.value <= (limit or 0) or container.pod.foreign
                wanted, now = target.desired.concurrency, slots(container.processes)
                running = replace(container.pod, slots=now if self.broker and container.pod.running else None)
                if wanted is not None and status.needs_slots(target, running):
                    container.processes = wanted

    def may_become(self, container: Container, values: Memory) -> bool:
        """Whether the API server lets a pod be resized."""
        return self.admitted(values, container.pod.name) or (values.limit or 0) <= (container.pod.memory.limit or 0)

    def check_turning(self, change: Change) -> None:
        """No knob turns back before its cooldown is over."""
        before, after = change.before, change.after
        if change.reason in OF_THE_USER:
            self.turned = {}
            return
        for knob, old, new in (
            ("limit", before.memory.limit, after.memory.limit),
            ("request", before.memory.request, after.memory.request),
            ("slots", before.concurrency, after.concurrency),
            ("cpu", before.cpu.request, after.cpu.request),
        ):
            if old is None or new is None or old == new:
                continue
            way, (last, at) = (1 if new > old else -1), self.turned.get(knob, (0, self.now))
            if last == -way and change.reason not in FREE:
                up, down = COOLDOWNS[knob]
                up = COOLDOWNS["slots"][0] if change.reason.startswith("Slots") else up
                assert self.now - at >= timedelta(seconds=up if way > 0 else down), (knob, change)
            self.turned[knob] = way, self.now

    def check_room(self, change: Change, before: api.Status) -> None:
        """What is raised leaves room for all replicas, and is what a limit range allows."""
        new, old = change.after.memory, change.before.memory
        entry = next((item for item in before.targets if item.name == change.target), None)
        known = from_api(entry.recommended).memory if entry is not None else Memory()
        template = whole(self.workload().template)
        held = [container.pod.memory for container in self.containers.values()]
        settled = max(size or 0 for memory in (old, known, template, *held) for size in (memory.limit, memory.request))
        if change.reason in OF_THE_USER or new.limit is None or new.limit <= settled:
            return
        pods = max(1, len(self.containers))
        if self.quota is not None and self.quota[0] == LIMITS:
            assert pods * new.limit + self.others * MI <= self.quota[1] * MI, change
        for one in self.ranges:
            assert one.most is None or new.limit <= one.most, change
            assert one.ratio is None or new.limit <= one.ratio * (new.request or 0), change
        if self.nodes is not None and new.request != old.request:
            assert (new.request or 0) <= max(self.nodes[0] * MI, old.request or 0, quantity.parse(self.bounds[0]))

    def check_values(self, target: TargetDecision) -> None:
        if self.paused:
            return
        bounds = bounds_of(self.policy(), "worker", "worker/default")
        assert bounds is not None
        template = whole(target.workload.template)
        written = [target.desired.memory]
        if target.tuned is not None:
            written.append(from_tuned(target.tuned) or Memory())
            assert from_tuned(target.tuned) == target.desired.memory
        if target.change is not None:
            written.append(target.change.after.memory)
        for value in written:
            if value == template and target.tuned is None:
                continue
            assert value.request is not None
            assert value.limit is not None
            assert value.request % MI == value.limit % MI == 0
            assert quantity.parse(self.bounds[0]) <= value.request <= value.limit <= quantity.parse(self.bounds[1])
        if target.change is not None and target.change.reason == "OutOfMemory":
            assert (target.desired.memory.limit or 0) > (target.change.before.memory.limit or 0)
            if any(pod.guaranteed for pod in target.workload.pods):
                assert target.desired.memory.request == target.desired.memory.limit
        self.check_cpu(target)
        if target.change is not None and not self.metrics:
            assert target.change.reason not in NEED_METRICS

    def check_cpu(self, target: TargetDecision) -> None:
        """What is written of CPU is inside the bounds, and a limit only where the template has one."""
        cpu = cpu_from_tuned(target.tuned)
        assert self.mode == "Enforce" or target.tuned is None
        if cpu is None:
            return
        assert self.cpu is not None
        low, high = (quantity.millicores(one) for one in self.cpu)
        sizes = [size for size in (cpu.request, cpu.limit) if size is not None]
        assert low <= min(sizes) <= max(sizes) <= high, (cpu, self.cpu)
        assert sizes == sorted(sizes)
        assert (cpu.limit is None) == (self.cpu_template[1] is None)

    def check_direction(self, target: TargetDecision, before: api.Status) -> None:
        entry = next((item for item in before.targets if item.name == "worker/default"), None)
        if entry is None or (target.change is not None and target.change.reason in MAY_LOWER):
            return
        old = from_api(entry.recommended).memory
        template = replace(target.workload.values, memory=whole(target.workload.template))
        changed = from_api(entry.template) != template
        if changed or (old.limit or 0) > quantity.parse(self.bounds[1]):
            # Not in force, so that no change tells it.
            return
        assert (target.desired.memory.limit or quantity.parse("1Ei")) >= (old.limit or 0)
        assert (target.desired.memory.request or 0) >= (old.request or 0)
        was = from_api(entry.recommended).cpu
        if self.cpu is None or was == Cpu() or (target.change is not None and target.change.reason in MAY_LOWER_CPU):
            return
        least = min(was.request or 0, quantity.millicores(self.cpu[1]))
        if quantity.millicores(self.cpu[1]) >= max(was.request or 0, was.limit or 0):
            assert (target.desired.cpu.request or 0) >= least
            assert (target.desired.cpu.limit or 0) >= (was.limit or 0)

    def check_status(self, before: api.Status, last: Turn) -> None:
        text = status.as_written(last.status)
        SCHEMA.validate(text)
        assert len(last.status.history) <= 10
        times = [change.time for change in last.status.history]
        assert times == sorted(times, reverse=True)
        old = {item.type: item for item in before.conditions}
        for item in last.status.conditions:
            if item.type in old and old[item.type].status == item.status:
                assert item.last_transition_time == old[item.type].last_transition_time
        began = {(item.reason, item.target): item.since for item in before.findings}
        for finding in last.status.findings:
            assert finding.since == began.get((finding.reason, finding.target), finding.since)

    def check_rest(self) -> None:
        """What was decided and done asks for nothing more, and the status comes to rest."""
        waiting, self.waiting = self.waiting, 0
        self.busy_day = 16
        after = self.take_turn()
        done: set[str] = set()
        while [change.reason for change in after.decision.changes] in ([one] for one in LATER - done):
            # It gave way to something more urgent: one step of each kind.
            done |= {change.reason for change in after.decision.changes}
            for change in after.decision.changes:
                self.check_turning(change)
            self.status = after.status
            self.act(after)
            after = self.take_turn()
        assert after.decision.changes == ()
        # A container that was down is lowered once it runs.
        self.act(after)
        after = self.take_turn()
        assert after.decision.changes == ()
        for target in after.decision.targets:
            # Where memory does not carry the policy's new minimum, what was decided before stays.
            few = self.slots is not None and (target.desired.concurrency or 0) < self.slots[0]
            assert target.tuned is None or self.admits(target.tuned) or few
        if self.quota is None and not self.ranges:
            assert all(status.converged(target) for target in after.decision.targets)
        self.status = after.status
        assert self.take_turn().status == after.status
        self.waiting = waiting


_Life.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, phases=[Phase.generate, Phase.shrink]
)
TestLife = _Life.TestCase
