"""The small values of the expression language: dates, margins, algorithms; and the coercions between types."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .errors import ServiceError, UnimplementedError

UTC = dt.UTC
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=UTC)
UNBOUNDED_MS = 2**62


@dataclass(frozen=True, order=True)
class Date:
    """Milliseconds since 1970-01-01T00:00:00Z."""

    ms: float

    @property
    def moment(self) -> dt.datetime:
        return _EPOCH + dt.timedelta(milliseconds=self.ms)

    @staticmethod
    def of(moment: dt.datetime) -> Date:
        return Date((moment - _EPOCH) / dt.timedelta(milliseconds=1))

    @staticmethod
    def parse(value: Any, zone: str | None = None) -> Date:
        """Read a Date, milliseconds, or ISO 8601 text, which may stop after the year, the month or the day."""
        if zone not in (None, "UTC", "Etc/UTC", "GMT"):
            raise UnimplementedError(f"the time zone {zone!r}")
        if isinstance(value, Date):
            return value
        if isinstance(value, int | float) and not isinstance(value, bool):
            return Date(value)
        if isinstance(value, str):
            text = value if "T" in value or len(value.split("-")) > 2 else "-".join([*value.split("-"), "01", "01"][:3])
            text = "T".join(["-".join(p.zfill(2) for p in text.partition("T")[0].split("-")), text.partition("T")[2]])
            try:
                moment = dt.datetime.fromisoformat(text.rstrip("T"))
            except ValueError:
                raise ServiceError(f"Date: Bad date/time '{value}'.") from None
            return Date.of(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
        raise ServiceError(f"Date: Cannot interpret {value!r} as a date.")


@dataclass(frozen=True)
class DateRange:
    """From start to end; the end is not part of it."""

    start: Date
    end: Date

    def contains(self, date: Date) -> bool:
        return self.start.ms <= date.ms < self.end.ms


@dataclass(frozen=True)
class ErrorMargin:
    """How far a projected or buffered edge may be from the truth; everything here is well below a centimetre."""

    value: float | None = None
    unit: str = "meters"


@dataclass(frozen=True)
class Algorithm:
    """A function that was defined in the expression."""

    names: tuple[str, ...]
    call: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        if len(arguments) != len(self.names):
            raise ServiceError(f"A mapped function takes {len(self.names)} arguments, called with {len(arguments)}.")
        return self.call(*arguments)


def kind_of(value: Any) -> str:
    """Return the type's name as Earth Engine writes it."""
    names = {type(None): "Null", bool: "Boolean", int: "Integer", float: "Float", str: "String", list: "List"}
    return names.get(type(value), "Dictionary" if isinstance(value, dict) else type(value).__name__)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def plain_number(value: float) -> int | float:
    """Return an int for a float that is whole, as the service does."""
    return int(value) if float(value).is_integer() and abs(value) < 2**53 else float(value)
