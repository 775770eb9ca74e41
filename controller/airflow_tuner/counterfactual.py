"""The past as it was, but with what would have been decided in force. Pure, and no simulation: use stays as it was.

What changes is what was set. A kill that happened is shown to the decision, unless the limit would have been larger by
then by what a killed container is taken to have wanted: whether that had been enough, nobody can know. Where a pod held
more than its limit would have been, it would have been killed, and the decision is shown that.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from airflow_tuner import api, environment, lag, quantity, status, stranded, workgroup
from airflow_tuner.decide import baseline
from airflow_tuner.history import History, hour_of
from airflow_tuner.learning import CENSORED
from airflow_tuner.model import Cpu, Death, Memory, Observation, Pod, Sample, Slots, Usage, Values, Workload
from airflow_tuner.outcome import Outcome
from airflow_tuner.past import cpu_from_tuned, from_tuned
from airflow_tuner.scraped import DAY, Highest
from airflow_tuner.telemetry import Pool, Tasks

HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Kill:
    """A kill for memory: one that happened, or one that would have."""

    at: datetime
    """When it was seen."""
    target: str
    pod: str
    count: int
    limit: int | None
    """In bytes: under which it happened; `None`: none, or not known."""
    then: int | None
    """The limit that would have been in force."""
    held: int | None = None
    """Bytes that the pod held, of one that would have been; `None`: it happened."""

    @property
    def happened(self) -> bool:
        """It is of the past, and not of what would have been."""
        return self.held is None

    @property
    def roomier(self) -> bool:
        """It happened, and the limit would have been larger by what is taken to have been wanted."""
        return self.happened and _roomier(self.then, self.limit)


@dataclass(slots=True)
class _Own:
    """What a pod would have had."""

    recorded: tuple[Memory, Cpu]
    memory: Memory
    cpu: Cpu
    environment: Mapping[str, str]
    container: str
    deaths: int = 0
    """The number of its last death for memory that was looked at."""
    kills: int = 0
    """Processes of its container that were killed, when it was looked at last."""
    decision: str | None = None
    resized: bool = False
    resized_cpu: bool = False
    offset: int = 0
    """Deaths that would have been, without those that are not shown."""
    death: Death | None = None
    hidden: list[tuple[datetime, int]] = field(default_factory=list)
    """Killed processes that are not shown."""
    over: int | None = None
    """The limit that it was above when it was looked at last."""


@dataclass(slots=True)
class Counterfactual:
    """What was decided, carried out in a past. `shown` a moment, decide, `carry_out`; then the next."""

    live: bool
    """Slots change while workers run."""
    _pods: dict[str, _Own] = field(default_factory=dict)
    """By UID."""
    _tuned: Mapping[str, api.Tuned] = field(default_factory=dict)
    _busy: Highest = field(default_factory=lambda: Highest(DAY))
    _begun: bool = False

    def shown(self, seen: Observation, held: Mapping[str, float]) -> tuple[Observation, tuple[Kill, ...]]:
        """A moment as the operator would have seen it, and the kills up to it. `held`: most bytes of each pod since."""
        kills: list[Kill] = []
        workloads = []
        for workload in seen.workloads:
            pods = []
            for pod in workload.pods:
                own = self._of(workload, pod)
                kills += self._kills(workload, pod, own, seen.at, held.get(pod.name))
                pods.append(_pod(pod, own, seen.at))
            workloads.append(replace(workload, pods=tuple(pods)))
        self._begun = True
        tasks = self._flow(seen, workloads)
        if self.live and tasks is not None:
            workloads = [
                _asked(was, item, workloads, tasks, seen.at)
                for was, item in zip(seen.workloads, workloads, strict=True)
            ]
        airflow = replace(seen.airflow, tasks=tasks)
        broker = "" if self.live else None
        return replace(seen, workloads=tuple(workloads), airflow=airflow, broker=broker), tuple(kills)

    def carry_out(self, came: Outcome) -> None:
        """Bring into force what was decided, as the operator would: memory in place, the rest as it can."""
        decision = came.decision
        self._tuned = {item.workload.target: item.tuned for item in decision.targets if item.tuned is not None}
        for target in decision.targets:
            for pod in target.workload.living:
                own, wanted = self._pods[pod.uid], status.resized(target, pod)
                if wanted is not None and wanted != own.memory:
                    own.memory, own.resized = wanted, True
                cpu = status.resized_cpu(target, pod)
                if cpu is not None and cpu != own.cpu:
                    own.cpu, own.resized_cpu = cpu, True
                slots = target.desired.concurrency
                if self.live and target.tuned is not None and target.slots_decided and slots is not None:
                    told = {str(api.EnvName.CONCURRENCY): f"{slots}", str(api.EnvName.AUTOSCALE): f"{slots},{slots}"}
                    own.environment, own.decision = {**own.environment, **told}, target.tuned.decision
        restarted = next((item for item in came.waiting if not item.blocked), None)
        if restarted is not None:
            _bear(self._pods[restarted.pod.uid], restarted.target.tuned)

    def _of(self, workload: Workload, pod: Pod) -> _Own:
        """What the pod has: as born, or as changed since. Where its user has changed it in place, that counts."""
        own = self._pods.get(pod.uid)
        if own is not None and own.recorded != (pod.memory, pod.cpu):
            own.recorded = own.memory, own.cpu = pod.memory, pod.cpu
            own.decision, own.resized, own.resized_cpu = None, False, False
        if own is not None:
            return own
        own = self._pods[pod.uid] = _Own((pod.memory, pod.cpu), pod.memory, pod.cpu, pod.environment, pod.container_id)
        if self._begun:
            tuned = self._tuned.get(workload.target)
            # Admission leaves a pod alone whose template is another by then.
            _bear(own, tuned if tuned is not None and tuned.baseline == baseline(workload) else None)
        else:
            # What was before the first look is not of this time.
            own.deaths = pod.death.number if pod.death is not None else 0
            own.kills = int(pod.usage.process_kills.value) if pod.usage.process_kills is not None else 0
        return own

    def _kills(self, workload: Workload, pod: Pod, own: _Own, at: datetime, held: float | None) -> Iterator[Kill]:
        limit, then = pod.memory.limit, own.memory.limit
        roomier = _roomier(then, limit)
        if pod.death is not None and pod.death.number > own.deaths:
            own.offset -= roomier
            own.death = None if roomier else Death(pod.death.number + own.offset, pod.death.at)
            own.deaths = pod.death.number
            yield Kill(pod.death.at, workload.target, pod.name, 1, limit, then)
        if pod.container_id != own.container:
            own.container, own.kills, own.hidden = pod.container_id, 0, []
        if pod.usage.process_kills is not None:
            killed = int(pod.usage.process_kills.value)
            more, own.kills = killed - own.kills, max(killed, own.kills)
            if more > 0:
                own.hidden += [(at, more)] if roomier else []
                yield Kill(at, workload.target, pod.name, more, limit, then)
        above = held is not None and then is not None and held > then and tighter(then, limit)
        if not above or held is None:
            own.over = None
        elif own.over != then:
            own.over, own.offset = then, own.offset + 1
            own.death = Death(pod.deaths + own.offset, at)
            yield Kill(at, workload.target, pod.name, 1, limit, then, round(held))

    def _flow(self, seen: Observation, workloads: Sequence[Workload]) -> Tasks | None:
        """Tasks that waited run where there would have been slots for them; where fewer, they wait."""
        tasks, at = seen.airflow.tasks, int(seen.at.timestamp()) // 60
        workers = [item for item in workloads if item.component == "worker"]
        if tasks is None:
            return None
        for item in workers:
            before = item.stated.concurrency
            if before is None or (len(workers) > 1 and not tasks.queued and not tasks.running):
                continue
            pods = [pod for pod in item.living if pod.running is not None]
            slots = sum(workgroup.in_force(pod, item) or before for pod in pods)
            queues = None if len(workers) == 1 else lag.queues(item, pods)
            waiting, running = tasks.waiting_in(queues), tasks.running_in(queues)
            more = slots - before * len(pods)
            tasks = _moved(tasks, queues, min(more, waiting) if more > 0 else -max(0, running - slots) if more else 0)
        self._busy.add(at, tasks.running_in(None))
        if tasks.busy_day is not None:
            tasks = replace(tasks, busy_day=max(tasks.busy_day, round(self._busy.at(at) or 0)))
        return tasks


def _asked(was: Workload, item: Workload, workloads: Sequence[Workload], tasks: Tasks, at: datetime) -> Workload:
    """Workers with what they would say over the broker: that they share what runs evenly.

    After a worker's death they would not: then nothing is known of it.
    """
    pods = [pod for pod in item.living if pod.running is not None]
    if item.component != "worker" or item.stated.concurrency is None or stranded.lost(was.living, at) is not None:
        return item
    alone = sum(one.component == "worker" for one in workloads) == 1
    if not pods or not (alone or tasks.queued or tasks.running):
        return item
    queues = lag.queues(item, pods)
    each, more = divmod(tasks.running_in(None if alone else queues), len(pods))
    told = {
        pod.uid: Slots(slots, slots, min(slots, each + (number < more)), autoscaled=True, queues=queues, oldest=0.0)
        for number, pod in enumerate(pods)
        if (slots := workgroup.in_force(pod, item)) is not None
    }
    return replace(item, pods=tuple(replace(pod, slots=told.get(pod.uid)) for pod in item.pods))


def remembered(histories: Mapping[str, History], kills: Iterable[Kill]) -> dict[str, History]:
    """The histories with what was wanted at the kills that are not shown, as far as that is known."""
    found = dict(histories)
    for kill in kills:
        if kill.roomier and kill.limit is not None and kill.target in found:
            wanted = quantity.rounded(CENSORED * kill.limit) // quantity.MEBIBYTE
            found[kill.target] = found[kill.target].filled(hour_of(kill.at), [wanted])
    return found


def _roomier(then: int | None, limit: int | None) -> bool:
    """So much more room than there was that the kill may not have been."""
    return limit is not None and (then is None or then >= CENSORED * limit)


def tighter(then: int | None, limit: int | None) -> bool:
    """Less room than there was."""
    return then is not None and (limit is None or then < limit)


def _bear(own: _Own, tuned: api.Tuned | None) -> None:
    """Admission gives a new pod what was decided."""
    memory = from_tuned(tuned)
    if tuned is not None and memory is not None:
        own.memory, own.cpu, own.decision = memory, cpu_from_tuned(tuned) or own.cpu, tuned.decision
        own.environment = {**own.environment, **{item.name: item.value for item in tuned.env}}


def _pod(pod: Pod, own: _Own, at: datetime) -> Pod:
    return replace(
        pod,
        memory=own.memory,
        running=None if pod.running is None else own.memory,
        cpu=own.cpu,
        running_cpu=None if pod.running_cpu is None else own.cpu,
        environment=own.environment,
        decision=own.decision,
        resized=own.resized,
        resized_cpu=own.resized_cpu,
        deaths=max(0, pod.deaths + own.offset),
        death=own.death,
        usage=_usage(pod.usage, own.hidden, at),
    )


def _usage(usage: Usage, hidden: list[tuple[datetime, int]], at: datetime) -> Usage:
    """Without the kills that are not shown."""
    if not hidden:
        return usage
    earlier = sum(count for when, count in hidden if when <= at - HOUR)
    return replace(
        usage,
        process_kills=_without(usage.process_kills, sum(count for _, count in hidden)),
        process_kills_before=_without(usage.process_kills_before, earlier),
    )


def _without(sample: Sample | None, count: int) -> Sample | None:
    return None if sample is None else replace(sample, value=max(0.0, sample.value - count))


def _moved(tasks: Tasks, queues: tuple[str, ...] | None, count: int) -> Tasks:
    """So many tasks run that waited; below zero, the other way round."""
    if not count:
        return tasks
    left, pools = count, []
    for pool in tasks.pools:
        some = min(left, pool.queued) if count > 0 else -min(-left, pool.running)
        pools.append(_pool(pool, some))
        left -= some
    queued, running, left = dict(tasks.queued), dict(tasks.running), count
    for queue in queues if queues is not None else sorted({*queued, *running}):
        some = min(left, queued.get(queue, 0)) if count > 0 else -min(-left, running.get(queue, 0))
        queued[queue], running[queue] = queued.get(queue, 0) - some, running.get(queue, 0) + some
        left -= some
    least = {queue: min(number, queued.get(queue, 0)) for queue, number in tasks.queued_least.items()}
    waiting = None if tasks.waiting_least is None else max(0, tasks.waiting_least - max(0, count))
    return replace(tasks, pools=tuple(pools), queued=queued, running=running, queued_least=least, waiting_least=waiting)


def _pool(pool: Pool, some: int) -> Pool:
    return replace(pool, queued=pool.queued - some, running=pool.running + some)


def in_force(workload: Workload, line: str | None) -> Values:
    """The largest of each that its pods have."""
    pods = workload.living
    born = [environment.stated(workload.component, pod.environment, line) for pod in pods]
    return Values(
        Memory(_most(pod.memory.request for pod in pods), _most(pod.memory.limit for pod in pods)),
        cpu=Cpu(_most(pod.cpu.request for pod in pods), _most(pod.cpu.limit for pod in pods)),
        concurrency=_most(workgroup.in_force(pod, workload) for pod in pods),
        interval=_most(one.interval for one in born),
        processes=_most(one.processes for one in born),
    )


def _most(values: Iterator[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)
