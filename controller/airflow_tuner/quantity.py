"""Kubernetes quantities: of memory, exact (`512Mi`, `1.5Gi`, `1G`, `1073741824`), and of CPU (`500m`, `1.5`)."""

import functools
import re
from decimal import ROUND_CEILING, Decimal

MEBIBYTE = 2**20

PATTERN = r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|Pi|Ei|m|k|M|G|T|P|E)?$"
"""What we accept: a plain number with one of the suffixes of `resource.Quantity`; no sign and no exponent."""

CPU_PATTERN = r"^[0-9]+(\.[0-9]{1,3})?m?$"
"""A quantity of CPU: cores, or thousandths of one with the suffix m."""

_SUFFIXES: dict[str, Decimal] = {
    "": Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate(("k", "M", "G", "T", "P", "E"), start=1)},
    **{suffix: Decimal(1024) ** power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)},
}


@functools.lru_cache(maxsize=1024)
def parse(text: str | int) -> int:
    """Bytes of a quantity, rounded up; `ValueError` when it is none."""
    size = _decimal(str(text).strip())
    if size is None:
        msg = f"{text!r} is not a quantity of memory such as 512Mi or 2Gi"
        raise ValueError(msg)
    return int(size.to_integral_value(ROUND_CEILING))


def cores(text: str | int) -> float:
    """Cores of a quantity of CPU such as `500m` or `1.5`; `ValueError` when it is none, or not above 0."""
    found = _decimal(str(text).strip())
    if not found:
        msg = f"{text!r} is not a quantity of CPU such as 500m or 1.5"
        raise ValueError(msg)
    return float(found)


def millicores(text: str | int) -> int:
    """Thousandths of a core of a quantity of CPU, rounded up; `ValueError` when it is none."""
    found = _decimal(str(text).strip())
    if found is None:
        msg = f"{text!r} is not a quantity of CPU such as 500m or 1.5"
        raise ValueError(msg)
    return int((found * 1000).to_integral_value(ROUND_CEILING))


def _decimal(text: str) -> Decimal | None:
    """The number a quantity stands for, as the API server reads it; `None` when it is none."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(?:([eE][+-]?[0-9]{1,2})|([A-Za-z]{0,2}))", text)
    if found is None or (found[3] or "") not in _SUFFIXES:
        return None
    return Decimal(found[1] + (found[2] or "")) * _SUFFIXES[found[3] or ""]


def mebibytes(size: int) -> str:
    """The quantity we write for a size in bytes: whole MiB, rounded up, as in `1050Mi`."""
    return f"{-(-size // MEBIBYTE)}Mi"


def cpu(millicores: int) -> str:
    """The quantity we write for thousandths of a core, as in `250m`."""
    return f"{millicores}m"


def rounded(size: float) -> int:
    """A size in bytes rounded up to whole MiB, so that what is written reads back the same."""
    return -int(-size // MEBIBYTE) * MEBIBYTE


def floored(size: float) -> int:
    """A size in bytes rounded down to whole MiB: as much as still fits."""
    return int(size // MEBIBYTE) * MEBIBYTE


def readable(size: int) -> str:
    """A size in bytes for a sentence: `1050 MiB`, `12.5 GiB` from 10 GiB on."""
    if size >= 10 * 1024 * MEBIBYTE:
        return f"{size / (1024 * MEBIBYTE):.1f} GiB"
    return f"{round(size / MEBIBYTE)} MiB"


def readable_cpu(millicores: int) -> str:
    """Thousandths of a core for a sentence: `0.25 cores`."""
    return f"{millicores / 1000:g} {'core' if millicores == 1000 else 'cores'}"  # noqa: PLR2004 - one core
