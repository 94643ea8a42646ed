"""What each process of a race does; in a module of its own, because it must not import TensorFlow."""

import fcntl

from trainer.errors import BusyError
from trainer.storage.folder_lock import FolderLock


def _flock_of_a_file_system_without_locks(*_):
    pass


def race(folders, ready, winners, flock_works):
    """Tries to take each folder, at the same time as the other processes."""
    if not flock_works:
        fcntl.flock = _flock_of_a_file_system_without_locks
    for index, folder in enumerate(folders):
        lock = FolderLock(folder, patience=0.3)
        ready.wait()
        try:
            lock.take()
            won = True
        except BusyError:
            won = False
        winners.put((index, won))
        ready.wait()  # no process gives the folder back before all have tried to take it
        lock.give_back()
