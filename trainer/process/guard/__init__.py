"""What ends a process whose own threads can't run, because native code holds the interpreter's lock for ever."""

from trainer.process.guard.guard import Guard

__all__ = ["Guard"]
