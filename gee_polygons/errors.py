"""The errors and warnings of this package, in one tree.

Every error of this package is a `GeePolygonsError` and also the builtin that fits it, so `except ValueError`
keeps working. The message is one line: what was asked, what was found, what to do. `code` is stable and
meant for programs; `exit_status` is what the command line returns (2: the call was wrong, 1: the data is).
"""

from __future__ import annotations

import importlib
import logging
import sys
import warnings
from typing import Any, ClassVar

__all__ = [
    "ArchiveError",
    "CrsError",
    "DataWarning",
    "DependencyError",
    "EarthEngineError",
    "GeePolygonsError",
    "InputFileError",
    "MovedError",
    "OutputError",
    "ReadError",
    "SiteError",
    "TileError",
    "UsageError",
    "warn_data",
]

# here, where every module that logs imports from: messages are shown only to a program that sets up logging
logging.getLogger("gee_polygons").addHandler(logging.NullHandler())


class GeePolygonsError(Exception):
    """Base of every error raised on purpose by this package."""

    code: ClassVar[str] = "error"
    exit_status: ClassVar[int] = 1

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy without `__init__`, whose arguments may differ from the message in `args`."""
        reduced = super().__reduce__()
        assert isinstance(reduced, tuple)
        return (_restored, reduced[:2], *reduced[2:])


def _restored(kind: type[GeePolygonsError], args: tuple[Any, ...]) -> GeePolygonsError:
    """Return an error of a class with the given `args`; pickle and copy then set its attributes."""
    error = kind.__new__(kind, *args)
    builtin: Any = next(base for base in kind.__mro__ if base.__module__ == "builtins")
    builtin.__init__(error, *args)
    return error


class UsageError(GeePolygonsError, ValueError):
    """The call itself is wrong: an unknown band, statistic, source or option; years reversed."""

    code = "usage"
    exit_status = 2


class InputFileError(GeePolygonsError, OSError):
    """A file or folder that was named can't be opened or is not what it should be."""

    code = "input_file"
    exit_status = 2


class SiteError(GeePolygonsError, ValueError):
    """A site can't be used: a point, an empty geometry, a NaN coordinate, a duplicate id."""

    code = "site"


class CrsError(SiteError):
    """The coordinate reference system is missing or unknown."""

    code = "crs"


class ArchiveError(GeePolygonsError, ValueError):
    """An archive's index is not what it should be: a missing column, a tile that doesn't exist."""

    code = "archive"


class TileError(GeePolygonsError, ValueError):
    """A tile can't be used: not 64 bands, another dtype, a rotated grid, strips, an unknown compression."""

    code = "tile"


class ReadError(GeePolygonsError, OSError):
    """Bytes could not be read or are damaged. Names the tile, the block and the band.

    Parameters
    ----------
    message : str
        One line.
    url : str, optional
        The file that failed.
    year : int, optional
        Its year.
    """

    code = "read"

    def __init__(self, message: str, *, url: str | None = None, year: int | None = None) -> None:
        super().__init__(message)
        self.url = url
        self.year = year


class OutputError(GeePolygonsError, OSError):
    """An output exists already, or its folder can't be written."""

    code = "output"


class EarthEngineError(GeePolygonsError, RuntimeError):
    """Earth Engine is not initialised, or refused a request."""

    code = "earthengine"


class DependencyError(GeePolygonsError, ImportError):
    """An optional package is missing; the message has the `pip install` line."""

    code = "dependency"
    exit_status = 2


class MovedError(GeePolygonsError, ImportError):
    """A name of version 0.0.4 is gone; the message says what to use instead."""

    code = "moved"
    exit_status = 2


def optional_import(module: str, needed: str) -> Any:
    """Import a package that not everyone has installed; `needed` says what it is for, and how it is installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DependencyError(needed) from error


class DataWarning(UserWarning):
    """The result stands, but the data can't tell something that the reader may take it to tell."""


def warn_data(message: str) -> None:
    """Issue a `DataWarning` that points at the line outside this package from which it was called."""
    level, frame = 1, sys._getframe(0)
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).split(".")[0] == "gee_polygons":
        level, frame = level + 1, frame.f_back
    warnings.warn(message, DataWarning, stacklevel=level)
