"""The picture of a run: loss and accuracy on train and test, drawn from metrics.jsonl."""

from trainer.reporting import jsonl
from trainer.reporting.figure import save

_TRAIN, _TEST = "#7a8ca3", "#d1495b"


def draw(metrics_file, picture):
    """Draws curves.png.

    Args:
        metrics_file: The run's metrics.jsonl.
        picture: Where to write the PNG; put in place whole.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = [line for line in jsonl.read(metrics_file) if _is_whole(line)]
    train = [line for line in found if line["split"] == "train"]
    test = [line for line in found if line["split"] == "eval"]
    figure, axes = pyplot.subplots(1, 2, figsize=(10.5, 4), layout="constrained")
    for axis, name, factor, label in ((axes[0], "loss", 1, "loss (nats)"), (axes[1], "accuracy", 100, "accuracy (%)")):
        axis.plot([line["epoch"] for line in train], [factor * line[name] for line in train],
                  color=_TRAIN, linewidth=1, alpha=0.45)
        averages = [line for line in test if line.get(f"train_{name}") is not None]
        axis.plot([line["epoch"] for line in averages], [factor * line[f"train_{name}"] for line in averages],
                  color=_TRAIN, linewidth=2, marker="o", markersize=4, label="train, mean since the last test")
        axis.plot([line["epoch"] for line in test], [factor * line[name] for line in test],
                  color=_TEST, linewidth=2, marker="o", markersize=4, label="test")
        axis.set_xlabel("epoch")
        axis.set_ylabel(label)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False)
    if test:
        best = max(test, key=lambda line: line["accuracy"])
        axes[1].set_title(f"best test accuracy {best['accuracy']:.2%}, epoch {best['epoch']:.3g}", fontsize=10)
        axes[0].set_title(f"last test loss {test[-1]['loss']:.4f}", fontsize=10)
    save(figure, picture)


def _is_whole(line):
    """Whether a line has the numbers that are drawn; a train line has none where no loss was finite."""
    return all(isinstance(line.get(name), float | int) for name in ("epoch", "loss", "accuracy"))
