"""A run folder belongs to one process at a time: two that write to one would mix their rows and checkpoints."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import platform
import weakref
from pathlib import Path

from hiplan.errors import ConfigError

LOCK = ".lock"
_log = logging.getLogger(__name__)
_UNSUPPORTED = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # what file systems without locks answer


class FolderLock:
    """An exclusive lock on a folder, released when the object is collected or its process ends in any way.

    The kernel keeps it (``flock``), so a killed process leaves no lock behind. The file says which process has it.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / LOCK
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise ConfigError(f"the run folder {str(folder)!r} cannot be written to: {error.strerror}") from None
        release = weakref.finalize(self, os.close, file)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                _log.warning("%r cannot be locked (%s); start only one process", str(path), error.strerror)
                return
            owner = path.read_text(encoding="utf-8", errors="replace").strip() or "another process"
            release()
            raise ConfigError(
                f"the run folder {str(folder)!r} is in use by {owner}; "
                "wait until it ends, stop it, or use another folder"
            ) from None
        os.ftruncate(file, 0)
        os.write(file, f"process {os.getpid()} on {platform.node()}\n".encode())


_locks: weakref.WeakValueDictionary[Path, FolderLock] = weakref.WeakValueDictionary()


def lock_folder(folder: Path) -> FolderLock:
    """Lock a folder for this process while the result is kept; a second call in the process gives the same lock.

    Raises ``ConfigError`` where another process has it, or where the folder cannot be written to.
    """
    place = folder.resolve()
    lock = _locks.get(place)
    if lock is None:
        lock = _locks[place] = FolderLock(folder)
    return lock
