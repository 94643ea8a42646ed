"""A run's settings for TensorBoard's HParams table, beside the figures that the table shows of it.

The plugin takes each folder of event files that holds a session's start as a row, and of the scalars those in
that folder and below it. In `tensorboard/eval` it finds loss and accuracy on the test split, whichever folder above
TensorBoard is pointed at.
"""

from tensorboard.plugins.hparams import api

SPLIT = "eval"
_OF_THE_START = {"model_dir", "resume"}  # say where and how it was started, not what was run


def write(settings):
    """Writes the settings into the default summary writer: that of `SPLIT`, once a run, before its first step.

    Args:
        settings: Name to bool, number, string, list or tuple. None and "" are left out.
    """
    values = {name: _cell(value) for name, value in settings.items()
              if name not in _OF_THE_START and value is not None and value != ""}
    # Without a group of its own each run is a row. By default those of the same settings are one, with the
    # average of their figures.
    api.hparams(values, trial_id="")


def _cell(value):
    return ",".join(map(str, value)) or "none" if isinstance(value, (list, tuple)) else value
