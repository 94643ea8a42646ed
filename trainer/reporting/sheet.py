"""The picture of a run's first examples, as they are and as training sees them."""

from trainer.reporting.figure import save


def draw(samples, picture):
    """Draws samples.png: a row before augmentation, a row after it.

    Args:
        samples: The `Samples`.
        picture: Where to write the PNG; put in place whole.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    count = len(samples.names)
    figure, axes = pyplot.subplots(2, count, figsize=(1.4 * count, 3.4), layout="constrained", squeeze=False)
    for row, images, names in ((0, samples.before, samples.names), (1, samples.after, samples.names_after)):
        for axis, image, name in zip(axes[row], images, names, strict=True):
            axis.imshow(image.squeeze(), cmap="gray" if image.shape[-1] == 1 else None, interpolation="nearest")
            axis.set_title(name.replace(", ", "\n"), fontsize=7, parse_math=False)
            axis.set_axis_off()
    figure.suptitle("above: as they are; below: as training sees them in the first epoch", fontsize=9)
    save(figure, picture)
