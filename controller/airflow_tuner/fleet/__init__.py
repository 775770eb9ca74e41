"""The fleet model: an Airflow deployment with Celery, in model time. It does not know the product."""

from airflow_tuner.fleet.container import Kill, Reading
from airflow_tuner.fleet.deployment import Deployment
from airflow_tuner.fleet.laws import Laws
from airflow_tuner.fleet.tasks import Job, Run, Task

__all__ = ["Deployment", "Job", "Kill", "Laws", "Reading", "Run", "Task"]
