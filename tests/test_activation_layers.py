"""ReLU, LeakyReLU, ELU and Softmax: layers with parameters of an activation. Layers in the place of a named one, and
Identity."""

import json

import numpy as np
import pytest

import seqcore
from reference.activations import PARAMETRIC
from reference.layers import make
from seqcore import _core, activations, layers, models
from support import Case, assert_close, chain, instance, sequential, spec
from test_layers import MSE, check_layer, engine
from test_reference import check_gradients
from test_stream import check_stream, rows

RNG = np.random.default_rng(0)
ITEMS = [
    spec("ReLU"), spec("ReLU", max_value=0.5), spec("ReLU", negative_slope=0.25), spec("ReLU", threshold=0.3),
    spec("ReLU", max_value=0.75, negative_slope=0.5, threshold=0.25), spec("ReLU", max_value=0.25, threshold=0.5),
    spec("ReLU", max_value=0.0), spec("LeakyReLU"), spec("LeakyReLU", negative_slope=0.0), spec("ELU"),
    spec("ELU", alpha=0.25), spec("ELU", alpha=-1.5), spec("Softmax"), spec("Identity"),
]  # fmt: skip
each = pytest.mark.parametrize("item", ITEMS, ids=lambda item: json.dumps(item["config"]) + item["class_name"])


@each
def test_gradients_of_the_reference(item):
    layers_ = [spec("Dense", units=4), item, spec("LSTM", units=3)]
    description, rng = chain((None, 3, 2), *layers_), np.random.default_rng(1)
    check_gradients(description, MSE, rng.normal(size=(5, 3, 2)), rng.normal(size=(5, 3)))


@each
def test_values_and_gradients(item):
    for n in (1, 17, 33):
        check_layer(Case(chain((None, 6), spec("Dense", units=n), item, spec("Dense", units=2)), MSE, 5, seed=n))
    sequence = [spec("GRU", units=5, return_sequences=True), item, spec("TimeDistributed", layer=item)]
    check_layer(Case(chain((None, 5, 3), spec("Masking", mask_value=0.5), *sequence), MSE, 4, seed=1))
    check_layer(Case(chain((None, 5, 3), item, spec("LSTM", units=3)), MSE, 200, seed=2))


@each
def test_called_alone(item):
    layer, x = instance(seqcore, item), RNG.normal(size=(3, 4, 5)).astype(np.float32)
    assert_close(layer(x), make(item).forward(x.astype(np.float64), None, None)[0])
    assert layer.compute_output_shape((None, 4, 5)) == (None, 4, 5) and layer.count_params() == 0
    again = layers.deserialize(layers.serialize(layer))
    assert again.get_config() == layer.get_config() and np.array_equal(again(x), layer(x))
    mask = RNG.random((3, 4)) < 0.5
    assert np.array_equal(layer.compute_mask(x, mask), mask)


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (layers.ReLU(), "relu"), (layers.ReLU(negative_slope=0.2), "leaky_relu"), (layers.LeakyReLU(0.2), "leaky_relu"),
        (layers.ReLU(6), "relu6"), (layers.ELU(), "elu"), (layers.Softmax(), "softmax"),
        (layers.LeakyReLU(0), "relu"), (layers.Activation("gelu"), "gelu"),
        (layers.Identity(), "linear"),
    ],
)  # fmt: skip
def test_the_bits_of_named_activations(layer, name):
    """In values and gradients; and such a layer may stand in the name's place."""
    assert layers.Dense(2, activation=layer).activation is activations.get(name) is activations.get(layer)
    item = {"class_name": type(layer).__name__, "config": layer.get_config()}
    both = []
    for middle in (item, spec("Activation", activation=name)):
        case = Case(chain((None, 6), spec("Dense", units=33), middle, spec("Dense", units=2)), MSE, 9, seed=1)
        model = engine(case)
        for i, w in enumerate(case.weights):
            model.set_weight(i, 3 * w)
        both.append((model.gradients(case.x, case.y, None), model.predict(case.x, 9)))
    assert both[0][0][0] == both[1][0][0] and np.array_equal(both[0][1], both[1][1])
    for a, b in zip(both[0][0][1], both[1][0][1], strict=True):
        assert np.array_equal(a, b)


def test_layers_as_activations_of_recurrent_ones():
    cell = layers.LSTM(3, activation=layers.ReLU(), recurrent_activation=layers.Activation("hard_sigmoid"))
    assert cell.get_config()["activation"] == "relu" and cell.get_config()["recurrent_activation"] == "hard_sigmoid"


@pytest.mark.parametrize(
    ("layer", "shown"),
    [(layers.ReLU(max_value=1), "ReLU"), (layers.LeakyReLU(), "LeakyReLU"), (layers.ELU(2), "ELU"),
     (layers.Dropout(0.5), "Dropout")],
)  # fmt: skip
def test_layers_that_are_no_named_activation(layer, shown):
    with pytest.raises(ValueError, match=f"`activation` of Dense: expected an activation that has a name.*{shown}"):
        layers.Dense(2, activation=layer)


@pytest.mark.parametrize(("name", "why"), [("glu", "halves the last axis"), ("threshold", "no default")])
def test_activations_that_are_functions_alone(name, why):
    for given in (name, getattr(activations, name)):
        with pytest.raises(
            ValueError, match=f"`activation` of Dense: the activation '{name}' is not supported: .*{why}"
        ):
            layers.Dense(2, activation=given)


def test_glu_and_threshold():
    x = RNG.normal(size=(3, 4, 6)).astype(np.float32)
    for axis, (a, b) in {-1: (x[..., :3], x[..., 3:]), 1: (x[:, :2], x[:, 2:]), 2: (x[..., :3], x[..., 3:])}.items():
        y = activations.glu(x, axis)
        assert y.dtype == np.float32 and np.array_equal(y, a * activations.sigmoid(b))
    assert activations.glu(x[:0]).shape == (0, 4, 3)
    for axis in (0, 3, -4):
        with pytest.raises(ValueError, match=r"glu: expected an axis of even size, got axis .* shape \(3, 4, 6\)"):
            activations.glu(x, axis)
    with pytest.raises(ValueError, match="`axis` of glu: expected an integer"):
        activations.glu(x, None)
    y = activations.threshold(x, 0.25, -2)
    assert y.dtype == np.float32 and np.array_equal(y, np.where(x > np.float32(0.25), x, np.float32(-2)))
    assert activations.threshold(0.25, 0.25, 7) == 7
    for arguments in ((None, 1), (0, "a")):
        with pytest.raises(ValueError, match="expected a number"):
            activations.threshold(x, *arguments)


def test_celu():
    x = RNG.normal(size=(3, 4)).astype(np.float32)
    assert layers.Dense(2, activation="celu").get_config()["activation"] == "celu"
    assert np.array_equal(activations.celu(x), activations.elu(x))
    both = []
    for name in ("celu", "elu"):
        case = Case(chain((None, 5, 4), spec("LSTM", units=3, activation=name), spec("Dense", units=2)), MSE, 3, seed=1)
        model = engine(case)
        both.append((model.gradients(case.x, case.y, None)[1], model.predict(case.x, 3)))
    assert np.array_equal(both[0][1], both[1][1])
    assert all(map(np.array_equal, both[0][0], both[1][0]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: layers.ReLU(max_value=-1), "`max_value` of ReLU: expected a number >= 0, got -1"),
        (lambda: layers.ReLU(negative_slope=-0.1), "`negative_slope` of ReLU: expected a number >= 0"),
        (lambda: layers.ReLU(threshold=None), "`threshold` of ReLU: expected a number, got None"),
        (lambda: layers.LeakyReLU(None), "`negative_slope` of LeakyReLU: expected a number, got None"),
        (lambda: layers.ELU("a"), "`alpha` of ELU: expected a number, got 'a'"),
        (lambda: layers.Softmax(2)(np.ones((2, 3, 4, 5))), "`axis` of Softmax: expected -1 \\(the last axis\\) or 1"),
        (lambda: layers.Softmax((1, 2)), "`axis` of Softmax"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (spec("ReLU", max_value=-1), "max_value must be at least 0"),
        (spec("ReLU", slope=1), "unknown key 'slope'"),
        (spec("LeakyReLU", negative_slope=-1), "negative_slope must be at least 0"),
        (spec("ELU", alpha="a"), "alpha must be a finite number"),
        (spec("Softmax", axis=7), "axis must be the last one"),
    ],
    ids=str,
)
def test_what_the_core_refuses(layer, message):
    with pytest.raises(ValueError, match=message):
        _core.Model(json.dumps(chain((None, 3, 4), layer)), 0)


def test_axes_that_are_the_last_one():
    x = RNG.normal(size=(3, 4, 5)).astype(np.float32)
    assert np.array_equal(layers.Softmax(2)(x), layers.Softmax([-1])(x))


def test_the_older_word():
    with pytest.warns(UserWarning, match="negative_slope"):
        layer = layers.LeakyReLU(alpha=0.1)
    assert layer.negative_slope == 0.1 and layer.get_config()["negative_slope"] == 0.1


@each
def test_streams(item):
    """Steps give predict's bits."""
    model = models.Sequential([layers.Input((None, 3)), layers.LSTM(17, return_sequences=True),
                               instance(seqcore, item), layers.Dense(2)])  # fmt: skip
    for threads in (1, 2):
        check_stream(model, rows(6, 3), "float32", threads)


@pytest.mark.parametrize("suffix", ["safetensors", "keras"])
def test_files(tmp_path, suffix):
    model = sequential(seqcore, chain((None, 4), spec("Dense", units=3), *ITEMS))
    model.save(tmp_path / f"m.{suffix}")
    loaded = models.load_model(tmp_path / f"m.{suffix}")
    assert loaded.get_config() == model.get_config()
    x = RNG.normal(size=(5, 4)).astype(np.float32)
    assert np.array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))


def test_identity(tmp_path):
    """It is there again in files, also inside another layer; it changes no bit, no mask, and no penalty."""
    given = [layers.Input((None, 3)), layers.Masking(0.5), layers.Identity(name="here"), layers.LSTM(4)]
    model = models.Sequential([*given, layers.RepeatVector(2), layers.TimeDistributed(layers.Identity(name="inner"))])
    config = model.get_config()["layers"]
    assert config[2] == {"class_name": "Identity", "config": {"name": "here", "trainable": True, "dtype": "float32"}}
    assert config[5]["config"]["layer"]["class_name"] == "Identity"
    x = np.where(RNG.random((5, 6, 1)) < 0.5, 0.5, RNG.normal(size=(5, 6, 3))).astype(np.float32)
    without = models.Sequential([given[0], given[1], given[3], model.layers[3]])
    expected = model.predict(x, verbose=0)
    assert np.array_equal(expected, without.predict(x, verbose=0)) and model.losses == []
    for suffix in ("safetensors", "keras"):
        model.save(tmp_path / f"m.{suffix}")
        loaded = models.load_model(tmp_path / f"m.{suffix}")
        assert type(loaded.get_layer("here")) is type(loaded.layers[-1].layer) is layers.Identity
        assert np.array_equal(loaded.predict(x, verbose=0), expected)
    assert models.model_from_json(model.to_json()).get_config() == model.get_config()
    assert layers.Identity()(x[0, 0]).shape == (3,) and layers.Identity(trainable=False).get_weights() == []


def test_functions_with_parameters():
    x = RNG.normal(size=(3, 4, 5)).astype(np.float32)
    for function, arguments, layer in (
        (activations.relu, {"max_value": 0.5}, layers.ReLU(0.5)),
        (activations.relu, {"negative_slope": 0.1, "threshold": 0.25}, layers.ReLU(None, 0.1, 0.25)),
        (activations.leaky_relu, {"negative_slope": 0.5}, layers.LeakyReLU(0.5)),
        (activations.elu, {"alpha": 2.0}, layers.ELU(2.0)),
    ):
        assert np.array_equal(function(x, **arguments), layer(x))
        assert function(x[0, 0, 0], **arguments) == layer(x[:1, 0, 0, None])
        assert function(x[:0], **arguments).shape == (0, 4, 5)
    with pytest.raises(ValueError, match=r"ReLU: unrecognized keyword arguments \{'slope': 1\}"):
        activations.relu(x, slope=1)
    with pytest.raises(ValueError, match="`max_value` of ReLU: expected a number >= 0"):
        activations.relu(x, max_value=-1)
    for function in (activations.tanh, activations.selu):
        with pytest.raises(TypeError, match=r"expected no arguments but `x`, got \['alpha'\]"):
            function(x, alpha=2)


@pytest.mark.parametrize(
    ("name", "parameter", "values", "default"),
    [
        ("gelu", "approximate", (True, 1), False), ("celu", "alpha", (0.25, 1, 3.0), 1.0),
        ("hard_shrink", "threshold", (0, 0.25, 1, -1), 0.5), ("soft_shrink", "threshold", (0, 0.25, 1), 0.5),
        ("squareplus", "b", (0, 0.5, 9), 4),
    ],
)  # fmt: skip
def test_functions_with_a_parameter(name, parameter, values, default):
    """As the reference says, also at the ends; the default is the named activation, to the bit."""
    function, x = getattr(activations, name), 3 * RNG.normal(size=(3, 4, 50)).astype(np.float32)
    x[0, 0, :7] = 0, 0.25, -0.25, 1, -1, 60, -60
    ends = np.float32([3e38, -3e38])
    for value in values:
        y = function(x, value)
        assert y.dtype == np.float32 and y.shape == x.shape and np.array_equal(y, function(x, **{parameter: value}))
        expected = PARAMETRIC[name](x.astype(np.float64), value)
        # Where x is negative and large squareplus is the difference of numbers as large.
        np.testing.assert_allclose(y, expected, 1e-5, 4e-6 if name == "squareplus" else 1e-37)
        with np.errstate(over="ignore"):
            np.testing.assert_allclose(function(ends, value), PARAMETRIC[name](ends.astype(np.float64), value), 1e-6)
        assert function(x[0, 0, 9], value) == y[0, 0, 9] and function(x[:0], value).shape == (0, 4, 50)
        assert np.isnan(function([np.nan], value)).all() and function([np.inf], value) == np.inf
    for some in (x, ends, np.float32([1e-40, -1e-40, np.inf])):
        assert np.array_equal(function(some, default), function(some))
    assert any(not np.array_equal(function(x, value), function(x)) for value in values)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: activations.gelu(x, "tanh"), ValueError, "`approximate` of gelu: expected True or False, got 'tanh"),
        (lambda x: activations.celu(x, 0), ValueError, "`alpha` of celu: expected a number > 0, got 0"),
        (lambda x: activations.hard_shrink(x, None), ValueError, "`threshold` of hard_shrink: expected a number"),
        (lambda x: activations.soft_shrink(x, -1), ValueError, "`threshold` of soft_shrink: expected a number >= 0"),
        (lambda x: activations.squareplus(x, -1), ValueError, "`b` of squareplus: expected a number >= 0, got -1"),
        (lambda x: activations.gelu(x, alpha=1), TypeError, r"but `x` and \['approximate'\], got \['alpha'\]"),
        (lambda x: activations.celu(x, 1, 2), TypeError, r"celu: expected `x` and \['alpha'\], got 2 more values"),
        (lambda x: activations.celu(x, 1, alpha=2), TypeError, r"celu: expected each argument once, got \['alpha'\]"),
        (lambda x: activations.relu(x, 1, negative_slope=2), TypeError, r"once, got \['negative_slope'\] twice"),
    ],
)
def test_bad_parameters_of_formulas(call, error, message):
    with pytest.raises(error, match=message):
        call(np.ones((2, 3)))


def test_softmax_functions_over_all_axes():
    for shape in ((2, 3, 4), (5,), ()):
        x = np.float32(RNG.standard_normal(shape))
        exact = np.exp(np.float64(x)) / np.exp(np.float64(x)).sum()
        assert_close(activations.softmax(x, None), exact)
        assert_close(activations.log_softmax(x, axis=None), np.log(exact))


@pytest.mark.parametrize("axis", [-1, 0, 1, (0, 1), (2, 0)])
def test_softmax_functions_along_axes(axis):
    x = np.float32(np.random.default_rng(1).standard_normal((2, 3, 4)))
    exact = np.exp(np.float64(x)) / np.exp(np.float64(x)).sum(axis, keepdims=True)
    assert_close(activations.softmax(x, axis=axis), exact)
    assert np.array_equal(activations.softmax(x, axis), activations.softmax(x, axis=axis))
    assert_close(activations.log_softmax(x, axis), np.log(exact))
    sums = activations.sparsemax(x, axis=axis).sum(axis)
    assert_close(sums, np.ones_like(sums))
    assert activations.leaky_relu([-1.0], 0.5).tolist() == [-0.5] and activations.relu([-1.0, 3.0], 0, 2).tolist() == [
        0,
        2,
    ]


@pytest.mark.parametrize(
    ("name", "values", "error"),
    [("softmax", (3,), ValueError), ("softmax", ((0, -2),), ValueError), ("softmax", ((),), ValueError),
     ("softmax", (0.5,), ValueError), ("log_softmax", (0, 1), TypeError), ("tanh", (1,), TypeError)],
)  # fmt: skip
def test_bad_parameters_of_functions(name, values, error):
    with pytest.raises(error, match=name):
        getattr(activations, name)(np.ones((2, 3)), *values)


def test_softmax_of_masked_numbers():
    rng = np.random.default_rng(2)
    for shape in ((5, 4), (2, 3, 4)):
        x, mask = np.float32(rng.standard_normal(shape)), rng.random(shape) < 0.6
        mask[0], x[0] = False, np.nan
        e = np.where(mask, np.exp(np.float64(np.where(mask, x, 0))), 0)
        layer = seqcore.layers.Softmax()
        assert_close(layer(x, mask=mask), e / np.maximum(e.sum(-1, keepdims=True), 1e-30))
        assert np.array_equal(layer.compute_mask(x, mask), mask)
    assert seqcore.layers.Softmax(name="plain")(x, mask=np.ones((2, 3), bool)).shape == (2, 3, 4)  # steps
