"""Files that are either whole or not there: written under a temporary name, then renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gee_polygons.errors import OutputError

__all__ = ["replacing"]


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary name beside `path`, with the same suffix; rename it when the block ends without an error.

    Parameters
    ----------
    path : str or Path
        Where the file goes. Missing parent folders are created; a file of that name is replaced.

    Yields
    ------
    Path
        The temporary name. It is removed if anything, Ctrl-C too, comes between.

    Raises
    ------
    OutputError
        If the folder or the file can't be written.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp(), "new", "a.txt")
    >>> with replacing(target) as part:
    ...     _ = part.write_text("whole")
    >>> target.read_text(), [p.name for p in target.parent.iterdir()]
    ('whole', ['a.txt'])
    """
    target = Path(path)
    part = target.with_name(f".{target.stem}.{os.getpid()}.part{target.suffix}")
    try:
        if target.is_dir():
            raise OutputError(f"{target} is a folder; name a file in it")
        target.parent.mkdir(parents=True, exist_ok=True)
        yield part
        part.replace(target)
    except OutputError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"can't write {target}: {reason}; choose a folder you may write to") from error
    finally:
        with suppress(OSError):  # where it couldn't be made, it can't be removed
            part.unlink(missing_ok=True)
