"""Writes files atomically: under a temporary name first, renamed when they are complete.

A process that is killed leaves its temporary file. The next one that writes into the folder removes it: the name says
which process of which machine wrote it.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import platform
import re
import secrets
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Final

from gee_polygons.errors import OutputError

_WRITE_ERRNO: Final = frozenset(
    getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS") if hasattr(errno, name)
)

_STEM_CHARS: Final = 32  # a file name has at most 255 bytes, and the final one may need them all


_TEMPORARY: Final = re.compile(r"\..*\.(\d+)-\d+-([0-9a-f]{8})-([0-9a-f]{8})-\d+\.(part|probe|old)(\..*)?", re.DOTALL)
_RUN: Final = secrets.token_hex(4)  # of this process and those forked from it
_count = itertools.count()


def temporary_name(path: Path, purpose: str = "part") -> Path:
    """Return a hidden file name in the same folder, with the same suffix, that no other process or thread uses.

    The process and thread ids, the machine and the process's random number identify the writer of a leftover file:
    containers and machines that share a file system often have the same ids.
    """
    owner = f"{os.getpid()}-{threading.get_native_id()}-{_machine()}-{_RUN}-{next(_count)}"
    return path.with_name(f".{path.stem[:_STEM_CHARS]}.{owner}.{purpose}{path.suffix}")


@lru_cache(maxsize=1)
def _machine() -> str:
    """Return a digest of what process ids are unique in: the machine and, on Linux, the container."""
    try:
        container = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        container = ""
    return hashlib.blake2b(f"{platform.node()} {container}".encode(), digest_size=4).hexdigest()


@lru_cache(maxsize=4096)
def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files and folders of killed processes of this machine; looks once into each folder."""
    if os.name != "posix":  # on Windows asking for a process by its id would end it
        return
    with suppress(OSError):
        for path in folder.iterdir():
            found = _TEMPORARY.fullmatch(path.name)
            if found is None or found[2] != _machine() or _is_running(int(found[1]), found[3]):
                continue
            with suppress(OSError):  # another process may be faster
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _is_running(pid: int, run: str) -> bool:
    if pid == os.getpid():
        return run == _RUN  # in containers, process after process has the same id
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # a process of another user
        pass
    return True


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Write a file under a temporary name; flush it to disk and rename it when the block ends without an error.

    Parameters
    ----------
    path : str or Path
        Final name. Missing parent folders are created; an existing file is replaced.

    Yields
    ------
    Path
        The temporary name, in the same folder and with the same suffix. The file is removed if the block fails.

    Raises
    ------
    OutputError
        If the folder or the file can't be written. Other errors raised in the block pass unchanged, also an `OSError`
        of another file that is read there.

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
    if target.is_dir():
        raise OutputError(f"{target} is a folder; name a file in it")
    part = temporary_name(target)
    try:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(target.parent.absolute())
            part.touch()  # libraries that write the file report a forbidden folder in many ways
            part.unlink()
        except OSError as error:
            raise _not_written(target, error) from error
        try:
            yield part
        except OSError as error:
            if error.errno in _WRITE_ERRNO or part.name in str(error):
                raise _not_written(target, error) from error
            raise
        try:
            _flush(part)
            part.replace(target)
        except OSError as error:
            raise _not_written(target, error) from error
    finally:
        with suppress(OSError):  # it was never made, or its folder is gone
            part.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Wait until a file's content is on the disk, so that no crash leaves an empty file under its final name."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _not_written(target: Path, error: OSError) -> OutputError:
    return OutputError(f"can't write {target}: {error.strerror or error}; choose a folder you may write to")


def check_new_file(path: Path, overwrite: bool) -> None:
    """Check that a file can be written.

    Raises
    ------
    OutputError
        If it exists or is a folder, or its folder doesn't exist or can't be written.
    """
    if path.is_dir():
        raise OutputError(f"can't write {path}: it is a folder; name a file in it")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists already; name another file, or allow overwriting (--overwrite)")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise OutputError(f"can't write {path}: there is no folder {folder}; create it first")
    # asking the file system for a file is the only test that holds everywhere: permission bits lie on network
    # and read-only mounts, and for root
    probe = temporary_name(path, "probe")
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise OutputError(f"can't write into the folder {folder}: {error.strerror or error}") from error
