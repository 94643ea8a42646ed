import keras
import numpy as np
import pytest

from trainer import models
from trainer.errors import UsageError


def trainable(model):
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


@pytest.mark.parametrize("name, parameters", [("cnn3", 122_570), ("cnn2", 167_562), ("resnet20", 269_722)])
def test_parameters(name, parameters):
    # Of the papers and the reference; the ResNet's 0.27 M hold for shortcuts without parameters.
    assert trainable(models.build(name, 10, (32, 32, 3))) == parameters


def test_cnn3_is_the_reference():
    kinds = [type(layer).__name__ for layer in models.build("cnn3", 10, (32, 32, 3)).layers]
    assert kinds == ["InputLayer", "Rescaling", "Conv2D", "MaxPooling2D", "Conv2D", "MaxPooling2D", "Conv2D", "Flatten",
                     "Dense", "Dense"]
    convolutions = [layer for layer in models.build("cnn3", 10, (32, 32, 3)).layers if "conv" in layer.name]
    assert [layer.filters for layer in convolutions] == [32, 64, 64]
    assert all(layer.padding == "valid" and layer.kernel_size == (3, 3) for layer in convolutions)


def test_resnet20_shortcuts_take_every_other_pixel_and_pad_channels():
    model = models.build("resnet20", 10, (32, 32, 3))
    x = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.float32)

    def first(kind):
        return next(layer for layer in model.layers if isinstance(layer, kind))

    ends = [first(keras.layers.MaxPooling2D).input, first(keras.layers.ZeroPadding2D).output]
    before, padded = keras.Model(model.input, ends)(x)
    np.testing.assert_array_equal(padded[..., 8:24], before[:, ::2, ::2])
    assert not np.any(padded[..., :8]) and not np.any(padded[..., 24:])


@pytest.mark.parametrize("name", ["cnn3", "cnn2", "resnet20"])
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_weights_carry_over_between_precisions(name, precision):
    full, half = models.build(name, 7, (24, 28, 3)), models.build(name, 7, (24, 28, 3), precision)
    assert [v.shape for v in full.variables] == [v.shape for v in half.variables]
    assert {v.dtype for v in half.variables} == {"float32"} and half.outputs[0].dtype == "float32"
    assert half.layers[3].compute_dtype == precision
    assert keras.config.dtype_policy().name == "float32"


def test_a_users_model():
    assert models.build("small_models:smooth", 4, (16, 16, 3)).output_shape == (None, 4)
    for name in ("small_models:nothing", "no_such_module:build"):
        with pytest.raises(UsageError, match="can't be imported"):
            models.build(name, 4, (16, 16, 3))
    with pytest.raises(UsageError, match="must return a functional"):
        models.build("small_models:no_model", 4, (16, 16, 3))
