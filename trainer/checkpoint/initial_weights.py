"""`--init_from`: the weights that a new run begins with, from another run or from a file that Keras wrote.

Only numbers are read: no model is made from what a file says, so nothing in it is ever executed.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from trainer.checkpoint.checkpoints import Checkpoints
from trainer.config import Config
from trainer.errors import DataError, UsageError, first_few
from trainer.process.tf_import import tf
from trainer.storage.durable import sha256
from trainer.storage.model_dir import ModelDir

IMAGENET = "imagenet"
_FILES = (".keras", ".h5", ".hdf5")
_ROOM = 100  # characters of Keras's words


@dataclasses.dataclass(frozen=True)
class InitialWeights:
    """Values for a model's variables.

    Args:
        values: For each variable of the model, without the states of random layers, its value; None for those of the
            last layer, if they stay as they are.
        source: Where the values are from, for result.json: path, sha256, step (of a run), new_last_layer.
    """

    values: list[np.ndarray | None]
    source: dict[str, Any]

    def sentence(self) -> str:
        """What was read, human-readable."""
        step = f", step {self.source['step']:,}" if "step" in self.source else ""
        loaded = sum(value is not None for value in self.values)
        head = "; the last layer is new" if self.source["new_last_layer"] else ""
        return f"weights from {self.source['path']}{step}: {loaded} of {len(self.values)} variables{head}"


def read_initial_weights(name: str, model: keras.Model, variables: Sequence[keras.Variable],
                         classes: Sequence[str]) -> InitialWeights:
    """Reads the weights that `--init_from` names.

    All variables must be there, in the same order and shapes, but for those of the last layer, which stays new where
    its shape differs, or where a run had other classes.

    Args:
        name: A run's folder, one of its checkpoints, a .keras, .h5 or .weights.h5 file, or imagenet.
        model: A model of the run's kind, whose values are overwritten. It isn't the model that trains.
        variables: Those of `model` that count.
        classes: The names of the run's classes.

    Returns:
        The `InitialWeights`.

    Raises:
        DataError: if there is nothing that can be read.
        UsageError: if the weights are of another model.
    """
    head = {id(variable) for variable in _last_layer(model).variables}
    path = Path(name).expanduser()
    if name == IMAGENET:
        values, source = _of_imagenet(model, variables)
    elif path.is_dir():
        values, source = _of_run(path, variables, classes, head)
    elif not path.exists():
        raise DataError(f"--init_from: there is no {name}",
                        "name a run's folder, one of its checkpoints, or a .keras, .h5 or .weights.h5 file")
    else:
        values, source = _of_file(path, model, variables, head)
    missing = [variable for variable, value in zip(variables, values, strict=True)
               if value is None and id(variable) not in head]
    if missing or all(value is None for value in values):
        raise _other_model(name, [f"{variable.path} {list(variable.shape)}" for variable in missing or variables])
    return InitialWeights(values, {**source, "new_last_layer": any(value is None for value in values)})


def _other_model(name: str, lacking: Sequence[str]) -> UsageError:
    return UsageError(f"--init_from={name} holds weights of another model: there are none for {first_few(lacking)}",
                      "give the --model that these weights are of")


def _last_layer(model: keras.Model) -> keras.Layer:
    """The last layer with weights; of a model in a model, that one's."""
    layer = next(layer for layer in reversed(model.layers) if layer.weights)
    return _last_layer(layer) if isinstance(layer, keras.Model) else layer


def _of_run(path: Path, variables: Sequence[keras.Variable], classes: Sequence[str],
            head: set[int]) -> tuple[list[np.ndarray | None], dict[str, Any]]:
    """The weights that a run exports, or those of one of its checkpoints."""
    step = re.fullmatch(r"step-(\d+)", path.name)
    model_dir = ModelDir(path.parents[1] if step else path)
    saved = model_dir.read_config()
    config = Config.from_mapping(saved["given"])
    checkpoints = Checkpoints(model_dir.checkpoints)
    exports_best = config.exports_best(bool(saved["data"].get("validation_examples")))
    best = exports_best and checkpoints.best_step() is not None
    manifest = checkpoints.find(str(int(step[1])) if step else "best" if best else "latest")
    reader = checkpoints.reader(manifest)
    group = "average" if config.ema_decay else "model"
    names = sorted(key for key in reader.get_variable_to_shape_map() if key.startswith(f"{group}/"))
    if len(names) != len(variables):
        raise _other_model(str(path), [f"{len(variables)} variables; it holds {len(names)}"])
    same_classes = list(saved["data"]["classes"]) == list(classes)
    values: list[np.ndarray | None] = []
    for variable, key in zip(variables, names, strict=True):
        value = reader.get_tensor(key)
        fits = key.rpartition("/")[2] == variable.name and value.shape == tuple(variable.shape)
        values.append(value if fits and (same_classes or id(variable) not in head) else None)
    digest = manifest["files"]["state.data-00000-of-00001"]["sha256"]
    return values, {"path": str(path), "sha256": digest, "step": manifest["step"]}


def _of_file(path: Path, model: keras.Model, variables: Sequence[keras.Variable],
             head: set[int]) -> tuple[list[np.ndarray | None], dict[str, Any]]:
    """The weights in a file that Keras wrote."""
    if path.suffix not in _FILES:
        raise UsageError(f"--init_from takes a run's folder, .keras, .h5 and .weights.h5 files; received {path}",
                         "save the model in one of these formats")
    originals, why = [np.asarray(variable.value) for variable in variables], "its layers"
    for network, load in _ways(path, model):
        inside = {id(variable) for variable in network.variables}
        for variable, value in zip(variables, originals, strict=True):
            variable.assign(np.full_like(value, np.nan) if _is_marked(variable, inside) else value)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of each variable that doesn't fit
                load()
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"--init_from: {path} can't be read: {_first_line(error)}",
                            "write the file again, or copy it again") from None
        except (ValueError, KeyError, TypeError) as error:
            why = _first_line(error)
        values = [None if _is_marked(variable, inside) and np.isnan(value).all() else value
                  for variable, value in ((variable, np.asarray(variable.value)) for variable in variables)]
        if all(value is not None or id(variable) in head for variable, value in zip(variables, values, strict=True)):
            return values, {"path": str(path), "sha256": sha256(path)}
    raise _other_model(str(path), [why])


def _is_marked(variable: keras.Variable, inside: set[int]) -> bool:
    """Whether a variable is filled with what is no number before a file is read, to see what the file fills."""
    return id(variable) in inside and tf.as_dtype(variable.dtype).is_floating and variable.shape != (0,)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:_ROOM]


def _ways(path: Path, model: keras.Model) -> Iterator[tuple[keras.Model, Callable[[], object]]]:
    """(the network to load into, a function that does so): the model or one inside, by order or by layers' names."""
    for network in (model, *(layer for layer in model.layers if isinstance(layer, keras.Model))):
        yield network, functools.partial(network.load_weights, path, skip_mismatch=True)
        if path.suffix != ".keras" and not path.name.endswith(".weights.h5"):
            yield network, functools.partial(network.load_weights, path, skip_mismatch=True, by_name=True)


def _of_imagenet(model: keras.Model, variables: Sequence[keras.Variable]
                 ) -> tuple[list[np.ndarray | None], dict[str, Any]]:
    """The weights that keras.applications publishes for a network, without its last layer."""
    network = next((layer for layer in model.layers if isinstance(layer, keras.Model)), None)
    make = getattr(keras.applications, model.name, None)
    if network is None or make is None:
        raise UsageError("--init_from=imagenet is for --model=keras:NAME, whose weights keras.applications publishes",
                         "give --model=keras:NAME, or the file of the weights")
    try:
        published = make(include_top=False, weights=IMAGENET, input_shape=network.input_shape[1:])
    except ValueError as error:
        raise UsageError(f"--init_from=imagenet: {str(error).splitlines()[0]}",
                         "images of three colours, of a size that the network takes") from None
    except Exception as error:
        address = re.search(r"https?://\S+\.h5", str(error))
        raise DataError(f"--init_from=imagenet: the weights can't be fetched ({str(error).splitlines()[0][:200]})",
                        f"download {address[0] if address else 'them'} where there is a network, and give the file: "
                        "--init_from=FILE, or put it into ~/.keras/models") from None
    own = {layer.name: layer for layer in network.layers}
    found = {}
    for layer in published.layers:
        if layer.weights and layer.name in own:
            found.update({id(mine): np.asarray(theirs.value)
                          for mine, theirs in zip(own[layer.name].variables, layer.variables, strict=True)})
    outside = {id(variable) for layer in model.layers if layer is not network for variable in layer.variables}
    return [found.get(id(variable), np.asarray(variable.value) if id(variable) in outside else None)
            for variable in variables], {"path": IMAGENET, "sha256": None}

