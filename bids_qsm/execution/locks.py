"""Locks of an output folder: several runs may use it at once, each series has one at a time.

Arrays of jobs process many subjects into one output folder at once, so that the folder as a whole
is never locked.  What is locked, by a file in its hidden folder ``.locks``:

- a series, or what is made of a subject's series together, while it is processed;
- a subject's page and the methods texts, while records are read and they are written;
- the hidden work folder: shared by all runs that use it, so that only the last one removes it.

A lock is the kernel's (``flock``): it ends with the process that holds it, however that ends, and a
file that is left behind locks nothing.  It holds between machines where the file system carries
it: NFS does (but not mounted with ``nolock`` or ``local_lock=flock``), and Lustre with ``flock``.
Where there are no locks at all, that is said and the run goes on.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bids_qsm.errors import UnwritableOutputError

FOLDER = ".locks"
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What a file system answers that has no locks."""


@contextlib.contextmanager
def held(output_dir: Path, name: str, tell: Callable[[str], None] | None = None) -> Iterator[bool]:
    """Hold ``name`` alone, once no other process holds it.

    Parameters
    ----------
    output_dir : Path
    name : str
        What is held; part of a file's name.
    tell : callable, optional
        Is told a sentence when another process has to be waited for.

    Yields
    ------
    bool
        Whether another process was waited for: it may have done the work.

    Raises
    ------
    UnwritableOutputError
        If the lock's file cannot be written.
    """
    path = output_dir / FOLDER / name
    handle = _locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    waited = handle is None
    if handle is None:
        if tell is not None:
            tell(f"waits for another run that is at work on it ({_holder(path)})")
        handle = _locked(path, fcntl.LOCK_EX)
        assert handle is not None
    if handle < 0 and tell is not None:
        tell("the file system has no locks: start no second run on this output folder")
    try:
        if handle >= 0:
            started = time.strftime("%Y-%m-%d %H:%M:%S")
            text = f"process {os.getpid()} on {socket.gethostname()}, since {started}"
            with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
                os.pwrite(handle, text.encode(), 0)
        yield waited
    finally:
        _release(path, handle, remove=True)


@contextlib.contextmanager
def shared(output_dir: Path, name: str) -> Iterator[None]:
    """Hold ``name`` together with others that share it."""
    path = output_dir / FOLDER / name
    handle = _locked(path, fcntl.LOCK_SH)
    assert handle is not None
    try:
        yield
    finally:
        _release(path, handle, remove=False)


@contextlib.contextmanager
def alone(output_dir: Path, name: str) -> Iterator[bool]:
    """Hold ``name`` if nobody else holds or shares it; nobody is waited for.

    Yields
    ------
    bool
        Whether it is held.
    """
    path = output_dir / FOLDER / name
    handle = _locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield handle is not None and handle >= 0
    finally:
        if handle is not None:
            _release(path, handle, remove=True)


def _locked(path: Path, operation: int) -> int | None:
    """Return an open file that is locked; None if another has it; -1 where there are no locks."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except (FileNotFoundError, FileExistsError) as error:
            is_in_the_way = path.parent.is_symlink() or path.parent.is_file()
            if path.parent.parent.is_dir() and not is_in_the_way:
                continue  # who held the last lock has just removed the folder
            raise _unwritable(path, error) from None
        except OSError as error:
            raise _unwritable(path, error) from None
        try:
            fcntl.flock(handle, operation)
            if os.fstat(handle).st_ino == path.stat().st_ino:
                return handle
        except FileNotFoundError:
            pass  # who held it has removed it: the next one makes it anew
        except BlockingIOError:
            os.close(handle)
            return None
        except OSError as error:
            os.close(handle)
            if error.errno in NO_LOCKS:
                return -1
            raise
        os.close(handle)


def _release(path: Path, handle: int, *, remove: bool) -> None:
    if handle < 0:
        return
    with contextlib.suppress(OSError):
        if remove:  # before it is released: nobody else can hold what goes
            path.unlink()
    os.close(handle)
    with contextlib.suppress(OSError):
        path.parent.rmdir()  # the last one


def _unwritable(path: Path, error: OSError) -> UnwritableOutputError:
    return UnwritableOutputError(
        f"{path}: it cannot be written ({error.strerror}); check free space and permissions of the "
        "folder."
    )


def _holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")[:200] or "its name is not known"
    except OSError:
        return "its name is not known"
