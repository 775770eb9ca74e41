"""Quantities of memory: read exactly, written as whole MiB."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_tuner import quantity

SIZES = st.integers(min_value=0, max_value=2**60)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512Mi", 512 * 2**20),
        ("1.5Gi", 1536 * 2**20),
        ("1G", 10**9),
        ("1k", 1000),
        ("1000m", 1),
        ("1m", 1),
        ("1073741824", 2**30),
        (4096, 4096),
        (" 2Ti ", 2 * 2**40),
        ("0.1Ki", 103),
        ("1Ei", 2**60),
    ],
)
def test_a_quantity_is_read_as_bytes_rounded_up(text: str | int, size: int) -> None:
    assert quantity.parse(text) == size


@pytest.mark.parametrize("text", ["", "Mi", "-1Mi", "1 Mi", "1.Mi", ".5Gi", "12XB", "1mi", "1Mii", "1Gi\n2", "٣Mi"])
def test_what_is_no_quantity_is_refused_with_the_form_it_should_have(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity of memory such as 512Mi"):
        quantity.parse(text)


@given(SIZES)
def test_what_is_written_is_whole_mib_and_never_less(size: int) -> None:
    back = quantity.parse(quantity.mebibytes(size))
    assert back == quantity.rounded(size)
    assert size <= back < size + quantity.MEBIBYTE
    assert re.fullmatch(quantity.PATTERN, quantity.mebibytes(size))


@given(SIZES)
def test_what_was_written_once_is_written_the_same_again(size: int) -> None:
    once = quantity.mebibytes(size)
    assert quantity.mebibytes(quantity.parse(once)) == once


@given(st.floats(min_value=0, max_value=2**50))
def test_a_measured_size_is_rounded_up_to_whole_mib(size: float) -> None:
    assert quantity.rounded(size) % quantity.MEBIBYTE == 0
    assert 0 <= quantity.rounded(size) - size <= quantity.MEBIBYTE


@given(st.from_regex(quantity.PATTERN, fullmatch=True).filter(lambda text: len(text) < 30 and text.isascii()))
def test_whatever_the_schema_admits_can_be_read(text: str) -> None:
    assert quantity.parse(text) >= 0


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 MiB"), (1050 * 2**20, "1050 MiB"), (10 * 2**30, "10.0 GiB"), (13421772800, "12.5 GiB")]
)
def test_a_size_is_told_in_mib_and_from_ten_gib_on_in_gib(size: int, text: str) -> None:
    assert quantity.readable(size) == text
