"""Locks on open files, where the system has them."""

from __future__ import annotations

import sys

__all__ = ["lock_file"]


def lock_file(descriptor: int) -> bool | None:
    """Lock a file until its descriptor is closed, or until this process ends in whatever way.

    Parameters
    ----------
    descriptor : int
        An open file.

    Returns
    -------
    bool or None
        False where another process holds the lock; None where there are no locks, as on some network file systems.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        return None
    except (BlockingIOError, PermissionError):
        # Windows says that permission is denied.
        return False
    except OSError:
        return None
    return True
