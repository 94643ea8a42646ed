"""Versions of what decides a run's bits: a run goes on in the way that it began, or not at all. No TensorFlow.

A checkpoint's manifest holds the versions that its run began with; one from before there were versions has 1 of all.

    pixels     what an image file is to the model
    splits     which examples are trained on, and which are held back
    draws      what augmentation and random layers draw; 2: a random layer that is called several times in a step
               draws no number that another replica or step draws
    gradients  how gradients, statistics and updates are worked out
"""

from trainer.errors import UsageError

_KNOWN = {"pixels": (1,), "splits": (1,), "draws": (1, 2), "gradients": (1,)}
CURRENT = {name: versions[-1] for name, versions in _KNOWN.items()}


def of_manifest(manifest):
    """The versions that a checkpoint's run began with.

    Args:
        manifest: The checkpoint's, a dict.

    Returns:
        A dict of name to version.

    Raises:
        UsageError: naming both, if this Lockstep doesn't know one of them.
    """
    found = {**dict.fromkeys(_KNOWN, 1), **(manifest.get("bits") or {})}
    wrong = [f"{name}: the run has version {version}, this Lockstep knows "
             f"{' and '.join(map(str, _KNOWN.get(name, ()))) or 'none'}"
             for name, version in sorted(found.items()) if version not in _KNOWN.get(name, ())]
    if wrong:
        raise UsageError(["the run would not go on as it began:", *wrong],
                         "go on with the Lockstep that wrote the checkpoint, or start anew with another --model_dir")
    return found
