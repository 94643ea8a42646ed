"""What each process of a race does; apart, because it shall not import TensorFlow to do so."""

import fcntl

from trainer.errors import BusyError
from trainer.storage.folder_lock import FolderLock


def race(folders, ready, winners, flock_works):
    """Tries to take each folder, at the same time as the other processes."""
    if not flock_works:
        fcntl.flock = lambda *_: None
    for number, folder in enumerate(folders):
        held = FolderLock(folder, patience=0.3)
        ready.wait()
        try:
            held.take()
            won = True
        except BusyError:
            won = False
        winners.put((number, won))
        ready.wait()  # nobody gives it back before all have tried
        held.give_back()
