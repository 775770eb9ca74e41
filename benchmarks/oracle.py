"""The one that knows the future: slots for the demand of the hour, and the memory that the hour will take, no more."""

import math

from airflow_tuner.fleet.scenarios import Scenario
from airflow_tuner.fleet.weeks import Weeks
from benchmarks.score import Score

MANY = 64
"""Slots of each worker that leave no task waiting."""


def demand(scenario: Scenario, seed: int) -> list[int]:
    """Most tasks at once, hour by hour, where slots are no matter."""
    weeks, found = Weeks(scenario, seed), [0]
    for worker in weeks.workers:
        weeks.set_slots(worker, MANY)
    while weeks.day < scenario.warm_up + scenario.days:
        weeks.step()
        found[-1] = max(found[-1], weeks.most_busy)
        if weeks.minute % 60 == 0:
            found.append(0)
    return found


def played(scenario: Scenario, seed: int, objective: float) -> Score:
    """Hour by hour each worker gets the slots and the memory that the fullest one of that hour needs."""
    hours = demand(scenario, seed)
    weeks = Weeks(scenario, seed, objective=objective)
    score = Score(scenario.name, seed, "oracle")
    # At each minute the whole demand fits: so many tasks, one worker after the other.
    peak = changes = slots = requested = 0.0
    while weeks.day < scenario.warm_up + scenario.days:
        if weeks.minute % 60 == 0:
            now = math.ceil(hours[weeks.minute // 60] / len(weeks.workers))
            changes += now != slots
            slots, peak = now, 0.0
            for worker in weeks.workers:
                weeks.set_slots(worker, max(1, int(slots)))
        if weeks.minute == scenario.warm_up * 1440:
            score.begin(weeks, int(changes))
        weeks.step()
        peak = max(peak, *(weeks.in_use(worker) for worker in weeks.workers))
        if weeks.minute > scenario.warm_up * 1440:
            score.add(weeks)
            if weeks.minute % 60 == 0:
                changes += 1
                requested += peak * len(weeks.workers) / 1024
    score.end(weeks, int(changes))
    # The model had no limit: it was not to learn of the peak before the hour was over.
    score.requested = score.limit = requested
    score.overcommitted = score.stale_minutes = 0
    score.parse_cores = score.parse_least
    return score
