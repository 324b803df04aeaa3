"""Lock a run folder for one process: two processes that write to one folder would mix their rows and checkpoints."""

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
_UNSUPPORTED = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # errors of file systems without locks


class FolderLock:
    """An exclusive lock on a folder, released when the object is garbage-collected or its process ends.

    The kernel holds the lock (``flock``), so a killed process leaves none behind. The lock file names the process.
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
                _log.warning("%r cannot be locked (%s); use it in one process only", str(path), error.strerror)
                return
            owner = path.read_text(encoding="utf-8", errors="replace").strip() or "another process"
            release()
            raise ConfigError(
                f"the run folder {str(folder)!r} is in use by {owner}; "
                "wait for it to end, stop it, or choose another folder"
            ) from None
        os.ftruncate(file, 0)
        os.write(file, f"process {os.getpid()} on {platform.node()}\n".encode())


_locks: weakref.WeakValueDictionary[Path, FolderLock] = weakref.WeakValueDictionary()


def lock_folder(folder: Path) -> FolderLock:
    """Lock a folder for as long as the returned object exists; a second call in this process returns the same lock.

    Raises ``ConfigError`` if another process has the lock, or if the folder is not writable.
    """
    place = folder.resolve()
    lock = _locks.get(place)
    if lock is None:
        lock = _locks[place] = FolderLock(folder)
    return lock
