"""Versions of what decides a run's bits: a run goes on in the way that it began, or not at all. No TensorFlow.

A checkpoint's manifest holds the versions that its run began with; a manifest without versions means 1 for all.

    pixels     what an image file is to the model; 2: over white where it is transparent, turned also as XMP says, one
               channel where all images are grey, and halved or not while it is decoded whatever the other images are
    splits     which examples are trained on, and which are held back; 2: held back class by class, and a validation
               split is evaluated where there are one and a test split
    draws      what augmentation and random layers draw; 2: a random layer that is called several times in a step
               draws no number that another replica or step draws; 3: what it draws for an example follows from the
               example's seed, on any number of replicas
    gradients  how gradients, statistics and updates are computed
"""

from collections.abc import Mapping
from typing import Any

from trainer.errors import UsageError

_KNOWN: dict[str, tuple[int, ...]] = {"pixels": (1, 2), "splits": (1, 2), "draws": (1, 2, 3), "gradients": (1,)}
_CHANGES = {"pixels": "some of its images would be seen otherwise", "splits": "other images would be evaluated"}
CURRENT = {name: versions[-1] for name, versions in _KNOWN.items()}


def of_manifest(manifest: Mapping[str, Any]) -> dict[str, int]:
    """The versions that a checkpoint's run began with.

    Args:
        manifest: The checkpoint's manifest.

    Returns:
        A dict of name to version.

    Raises:
        UsageError: if this Lockstep doesn't know one of the versions, naming it and those that this Lockstep knows.
    """
    versions = {**dict.fromkeys(_KNOWN, 1), **(manifest.get("bits") or {})}
    wrong = [f"{name}: the run has version {version}, this Lockstep knows "
             f"{' and '.join(map(str, _KNOWN.get(name, ()))) or 'none'}"
             for name, version in sorted(versions.items()) if version not in _KNOWN.get(name, ())]
    if wrong:
        raise UsageError(["the run would not go on as it began:", *wrong],
                         "go on with the Lockstep that wrote the checkpoint, or start anew with another --model_dir")
    return versions


def require(versions: Mapping[str, int], needed: Mapping[str, int]) -> None:
    """Makes sure that a run began with the versions that its data needs, or with later ones.

    Args:
        versions: The run's, as `of_manifest` returns them.
        needed: The versions that the data needs, as `Dataset.versions` has them.

    Raises:
        UsageError: if the run began with earlier ones, naming both.
    """
    wrong = [f"{name}: the run has version {versions[name]}, its data needs {version} by now: {_CHANGES[name]}"
             for name, version in needed.items() if versions[name] < version]
    if wrong:
        raise UsageError(["the run would not go on as it began:", *wrong],
                         "go on with the Lockstep that wrote the checkpoint, or start anew with another --model_dir")
