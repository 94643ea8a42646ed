"""What TensorBoard reads in the event files of a run."""

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util


def scalars(folder, split, tag="quality/loss"):
    """All steps in all files of a split, as TensorBoard reads them without hiding anything."""
    steps = []
    for path in sorted((folder / split).iterdir()):
        accumulator = EventAccumulator(str(path), size_guidance={"tensors": 0}, purge_orphaned_data=False)
        accumulator.Reload()
        if tag in accumulator.Tags()["tensors"]:
            steps += [event.step for event in accumulator.Tensors(tag)]
    return sorted(steps)  # the order of the files' names is not that of their times


def values(folder, split, tag):
    """(step, value) of a tag in a split's files, in the order in which they were written."""
    found = []
    for path in sorted((folder / split).iterdir()):
        accumulator = EventAccumulator(str(path), size_guidance={"tensors": 0}, purge_orphaned_data=False)
        accumulator.Reload()
        if tag in accumulator.Tags()["tensors"]:
            found += [(event.step, tensor_util.make_ndarray(event.tensor_proto).tolist())
                      for event in accumulator.Tensors(tag)]
    return found
