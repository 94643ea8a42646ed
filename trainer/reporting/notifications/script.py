"""The process of `Notifier`: delivers a message when it gets one, or when the run's process is gone without one."""

from __future__ import annotations

from trainer.options import without_secrets
from trainer.process.libraries.companion import messages, reply
from trainer.reporting.notifications import channels

_PATIENCE_SECONDS = 60.0  # for the delivery, after the run's process has ended


def main() -> None:
    """Hears the address and what to say if nothing more comes, then the message."""
    received = messages(_PATIENCE_SECONDS)
    task = next(received, None)
    if not task:
        return
    channels.prepare(task["address"])
    message = next(received, task["last_words"])
    try:
        channels.deliver(task["address"], message)
    except Exception as error:  # Apprise's plugins are many
        why = str(error) if isinstance(error, channels.NotDelivered) else type(error).__name__
        reply(warning=f"--notify={without_secrets(task['address'])}: the message was not delivered: {why}")


if __name__ == "__main__":
    main()
