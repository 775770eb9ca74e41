"""Keeps Apache Airflow out of memory and trigger trouble, within the bounds of one TuningPolicy."""
