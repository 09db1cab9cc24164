"""Writes the library's messages for the command line: options in place of Python arguments, no warning twice."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from gee_polygons.errors import DataWarning

_PHRASES: Final = {  # of messages that name Python functions
    r"; in Python [^;]*": "",
    r"\(resume=False, (--restart)\)": r"with \1",
    r"call ee\.Authenticate\(\) (once, )?(and )?then (connect|ee\.Initialize)\([^)]*\)": (
        "run `earthengine authenticate` once, and set EE_PROJECT to your project"
    ),
    r'call connect\("your-project"\), or set': "set",
    r"GeoDataFrame\.set_crs\([^)]*\)": "`ogr2ogr -a_srs`",
    r", or load\([^)]*\)": "",
    r"\bbuild\(\) one": "make one with `gee-polygons index build`",
    r"\bbuild\(\) writes": "`gee-polygons index build` writes",
    r"see register\(\)": "add one with `gee-polygons datasets register`",
    r"similarity_matrix\((by=[^)]*)\)": r"\1",
    r"Network\(url_rewrite=[^)]*\), ": "",
    r"vis_params: ": "",
}
_OPTIONS: Final = {  # of arguments whose option has another name
    "force": "overwrite",
    "random_split": "random-split",
    "site_id": "site",
    "start_year_column": "start-year",
}
_ARGUMENT: Final = re.compile(
    r"\b(background|bands|buffer_m|by|crs|engine|force|groups|id_column|keep|layer|max|min|on_damage|on_error|partition_by|random_split|"
    r"site_id|start_year_column|task|year)=(['\"]?)([^\s,;'\"]*)\2"
)


def in_options(line: str) -> str:
    """Return a message with the options of the command line in place of arguments and functions of Python.

    Examples
    --------
    >>> in_options("it has 2 layers; choose one with layer=")
    'it has 2 layers; choose one with --layer'
    >>> in_options("stops. on_damage='raise' stops instead; or use force=True")
    'stops. --on-damage raise stops instead; or use --overwrite'
    """
    for phrase, words in _PHRASES.items():
        line = re.sub(phrase, words, line)

    def option(found: re.Match[str]) -> str:
        name, _, value = found.groups()
        value = {"True": "", "None": "none"}.get(value, value)
        return f"--{_OPTIONS.get(name, name).replace('_', '-')} {value}".rstrip()

    return _ARGUMENT.sub(option, line)


def say(line: str) -> None:
    """Write a message as one line to standard error, above the progress bar if there is one."""
    from tqdm import tqdm

    tqdm.write(" ".join(part.strip() for part in in_options(line).splitlines()), file=sys.stderr)


class _ToStderr(logging.Handler):
    """Writes each log record as one line, such as ``warning: ...``; a warning that was written already, not again."""

    def __init__(self) -> None:
        super().__init__()
        self._warned: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.WARNING:
            say(record.getMessage())
        else:
            self.warn(record.getMessage(), record.levelname.lower())

    def warn(self, message: str, level: str = "warning") -> None:
        if message not in self._warned:
            self._warned.add(message)
            say(f"{level}: {message}")


@contextmanager
def shown_messages() -> Iterator[None]:
    """Show the library's log records and warnings, of all threads, as one line each."""
    handler = _ToStderr()
    logger = logging.getLogger("gee_polygons")
    before = logger.level
    logger.addHandler(handler)
    with warnings.catch_warnings():
        # the library's warnings are always shown, whatever filters the user has set
        warnings.filterwarnings("always", category=UserWarning, module=r"gee_polygons\b")
        warnings.filterwarnings("always", category=DataWarning)
        warnings.showwarning = lambda message, *args, **more: handler.warn(str(message))
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(before)
