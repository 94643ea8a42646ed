"""What a model says of image files, in their order, as it is computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from trainer.data.bad_examples import BadExamples
from trainer.data.images import pillow_reader
from trainer.data.images.crops import View
from trainer.data.images.header_table import HeaderTable
from trainer.data.sources.folder import FolderSplit
from trainer.errors import StorageError, UsageError
from trainer.export.serving import Serving

if TYPE_CHECKING:
    from trainer.commands.common.trained_run import TrainedRun
    from trainer.commands.prediction.image_names import Named
    from trainer.data.images.encoded_split import EncodedSplit

_CHUNK_SIZE = 64  # images that the model sees at once
_THREADS = 8  # that read headers


class Answer(NamedTuple):
    """What there is to say of a file.

    Args:
        name: The file's path, as it was given or found.
        probabilities: float32 [classes]; None if the file can't be used.
        error: Why not, in a few words; None if there is an answer.
    """

    name: str
    probabilities: np.ndarray | None
    error: str | None = None


class _Noted(BadExamples):
    """What is wrong with the images of a batch; ends nothing, for every image is answered by itself.

    Attributes:
        by_example: Id to what is wrong with the image, in a few words.
    """

    def __init__(self) -> None:
        super().__init__()
        self.by_example: dict[int, str] = {}

    def note(self, split: EncodedSplit, example: int, problem: str | None) -> None:
        """Remembers an image that could not be read, as `BadExamples.note` describes it."""
        if example not in self.by_example:
            try:
                self.by_example[example] = problem or split.failure_of(example)
            except StorageError as error:
                self.by_example[example] = error.cause

    def check(self, shown: int | None = 10) -> None:
        """Ends nothing."""


class Answers:
    """Asks the model of a run.

    Args:
        trained: The run and its checkpoint.

    Raises:
        UsageError: if files can't be the model's images.
    """

    def __init__(self, trained: TrainedRun) -> None:
        height, width, channels = trained.image_shape
        if channels not in (1, 3):
            raise UsageError(f"predict reads images of 1 or 3 channels; the model of {trained.model_dir.root} takes "
                             f"{channels}", "use its export, which takes arrays")
        self._view = View(height, width, channels, trained.config.resize)
        # Kept: it holds the variables that the signature uses.
        self._serving = Serving(trained.model("float32"), trained.classes, trained.config.resize)
        self._classify = self._serving.of_pixels()

    def of(self, batches: Iterable[Sequence[Named]]) -> Iterator[Answer]:
        """Answers for each file.

        Args:
            batches: Lists of files.

        Yields:
            An `Answer` for each, in their order.
        """
        for batch in batches:
            yield from self._of_batch(batch)

    def _of_batch(self, batch: Sequence[Named]) -> Iterator[Answer]:
        with ThreadPoolExecutor(_THREADS) as threads:
            headers = list(threads.map(_header, batch))
        places = [place for place, header in enumerate(headers) if not header.problem]
        noted = _Noted()
        answered = self._probabilities([batch[place].name for place in places], [headers[place] for place in places],
                                       noted)
        example, upcoming = -1, next(answered, None)
        for named, header in zip(batch, headers, strict=True):
            if header.problem:
                yield Answer(named.name, None, header.problem)
                continue
            example += 1
            if upcoming and upcoming[0] == example:
                yield Answer(named.name, upcoming[1])
                upcoming = next(answered, None)
            else:  # left out: noted before what came after it could be read
                yield Answer(named.name, None, noted.by_example[example])

    def _probabilities(self, names: Sequence[str], headers: Sequence[pillow_reader.ImageHeader],
                       noted: _Noted) -> Iterator[tuple[int, np.ndarray]]:
        """(id, float32 [classes]) of the files that can be decoded, in the order of their ids."""
        if not names:
            return
        for examples, images, _ in open_files(names, headers, self._view, noted).identified_chunks(_CHUNK_SIZE):
            yield from zip(examples.tolist(), self._classify(images=images)["probabilities"].numpy(), strict=True)


def open_files(names: Sequence[str], headers: Sequence[pillow_reader.ImageHeader], view: View,
               bad: BadExamples) -> FolderSplit:
    """Image files as evaluation sees them.

    Args:
        names: Their paths.
        headers: Their headers, which say that they can be read.
        view: What of an image is seen.
        bad: Is told of those that can't be decoded.
    """
    return FolderSplit("", names, np.zeros(len(names)), HeaderTable.join(headers), view, (), bad)


def _header(named: Named) -> pillow_reader.ImageHeader:
    """The header of a file, or one that says why there is none."""
    problem = named.problem
    try:
        if not problem:
            return pillow_reader.read_header(named.name)
    except StorageError as error:
        problem = error.cause
    return pillow_reader.ImageHeader(pillow_reader.OTHER, 1, 1, 1, 0, problem)
