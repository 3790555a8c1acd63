"""Any layout of array gives the bits of its contiguous float32 copy; bad input is named before a weight changes."""

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqcore import _core, constraints, initializers, layers, losses, metrics, models, optimizers, regularizers
from support import chain, compiling, spec

RNG = np.random.default_rng(0)
X = RNG.integers(-9, 9, (12, 4, 3)).astype(np.float32)  # whole numbers, so that integers hold them too
Y = RNG.integers(0, 3, 12)


def network(loss="sparse_categorical_crossentropy", units=3, **arguments):
    model = models.Sequential([layers.Input((4, 3)), layers.GRU(4), layers.Dense(units, activation="softmax")])
    model.compile(arguments.pop("optimizer", "adam"), loss, **arguments)
    return model


class OnlyDlpack:
    def __init__(self, a):
        self.a = a

    def __dlpack__(self, **kwargs):
        return self.a.__dlpack__(**kwargs)

    def __dlpack_device__(self):
        return self.a.__dlpack_device__()


class OnlyArray:
    def __init__(self, a):
        self.a = a

    def __array__(self, dtype=None, copy=None):
        return self.a if dtype is None else self.a.astype(dtype)


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def unaligned(a):
    raw = np.zeros(a.nbytes + 1, np.uint8)
    view = raw[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


LAYOUTS = {
    "strided": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "reversed": lambda a: a[::-1].copy()[::-1],
    "reversed in time": lambda a: a[:, ::-1].copy()[:, ::-1],
    "fortran": np.asfortranarray,
    "big endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "float64": lambda a: a.astype(np.float64),
    "float16": lambda a: a.astype(np.float16),
    "int64": lambda a: a.astype(np.int64),
    "int8": lambda a: a.astype(np.int8),
    "read only": read_only,
    "unaligned": unaligned,
    "subclass": np.ma.asarray,
    "list": lambda a: a.tolist(),
    "dlpack": OnlyDlpack,
    "__array__": OnlyArray,
    "table of several dtypes": lambda a: OnlyArray(a.astype(object)),
    "zero stride": lambda a: np.broadcast_to(a[:1], a.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout):
    model = network()
    x = LAYOUTS[layout](X)
    contiguous = X[:1].repeat(len(X), 0) if layout == "zero stride" else X
    before = np.array(np.asarray(getattr(x, "a", x)))
    assert np.array_equal(model.predict(x, verbose=0), model.predict(contiguous, verbose=0))
    a, b = network(), network()
    b.set_weights(a.get_weights())
    for model, data in ((a, x), (b, contiguous)):
        model.train_on_batch(data, Y)
    assert all(np.array_equal(v, w) for v, w in zip(a.get_weights(), b.get_weights()))
    assert np.array_equal(np.asarray(getattr(x, "a", x)), before)


@given(st.data())
def test_any_strides(data):
    """A random view of a larger array, of any real dtype: as its contiguous copy."""
    dtype = data.draw(st.sampled_from(["f4", ">f4", "f8", ">f8", "i4", ">i2", "u1", "?", "f2"]))
    shape = (data.draw(st.integers(1, 5)), 4, 3)
    steps = [data.draw(st.sampled_from([1, 2, -1, -3])) for _ in shape]
    order = data.draw(st.permutations(range(3)))
    base = np.random.default_rng(0).integers(0, 2 if dtype == "?" else 90, [n * abs(s) for n, s in zip(shape, steps)])
    base = base.astype(dtype).transpose(order).copy().transpose(np.argsort(order))
    view = base[tuple(slice(None, None, s) for s in steps)]
    assert view.shape == shape
    model = shared_network()
    assert np.array_equal(
        model.predict(view, verbose=0), model.predict(np.ascontiguousarray(view, np.float32), verbose=0)
    )


_shared = []


def shared_network():
    if not _shared:
        _shared.append(network())
    return _shared[0]


@pytest.mark.parametrize("labels", [np.int8, np.int64, np.uint16, ">i4", np.float32, bool, list])
def test_label_layouts(labels):
    model = network(optimizer=optimizers.SGD(0.0))
    y = Y % 2
    expected = model.evaluate(X, y, verbose=0)
    assert model.evaluate(X, y.tolist() if labels is list else y.astype(labels), verbose=0) == expected


# ----------------------------------------------------------------------------------------------------------- bad input

one_hot = np.eye(3, dtype=np.float32)[Y]


def with_value(a, value, index=(7,)):
    a = np.array(a, np.float64)
    a[index] = value
    return a


FIT = {  # name: (x, y, keyword arguments, error, what its text must name)
    "rank 2": (X[:, 0], Y, {}, ValueError, "x.*(12, 3)|rank|axes"),
    "rank 4": (X[None], Y[None], {}, ValueError, r"\(1, 12, 4, 3\)"),
    "features": (X[..., :2], Y, {}, ValueError, r"\(12, 4, 2\)"),
    "steps": (X[:, :3], Y, {}, ValueError, r"\(12, 3, 3\)"),
    "no steps": (X[:, :0], Y, {}, ValueError, "zero|0"),
    "empty batch": (X[:0], Y[:0], {}, ValueError, "empty|0"),
    "object": (X.astype(object), Y, {}, TypeError, "object"),
    "table with text": (OnlyArray(np.array([[[1.0, "a"]]], object)), Y, {}, TypeError, "`x`.*dtype object with 'a'"),
    "complex": (X.astype(complex), Y, {}, TypeError, "complex"),
    "text": (X.astype(str), Y, {}, TypeError, "dtype"),
    "ragged": ([[1], [1, 2]], Y[:2], {}, (ValueError, TypeError), "x"),
    "None": (None, Y, {}, (ValueError, TypeError), "x"),
    "lengths": (X, Y[:9], {}, ValueError, "12.*9|9.*12"),
    "no y": (X, None, {}, (ValueError, TypeError), "y"),
    "label range": (X, with_value(Y, 3), {}, ValueError, "3"),
    "label negative": (X, with_value(Y, -1), {}, ValueError, "-1"),
    "label huge": (X, with_value(Y, 2.0**40), {}, ValueError, r"`y`: expected labels of 32 bits, got 0\.0 to 10995"),
    "label fraction": (X, with_value(Y, 1.5), {}, ValueError, r"`y`: expected integer labels, got 1\.5$"),
    "label NaN": (X, with_value(Y, np.nan), {}, ValueError, "nan|NaN|integer"),
    "labels one-hot": (X, one_hot, {}, ValueError, r"\(12, 3\)"),
    "label complex": (X, Y.astype(complex), {}, TypeError, "complex"),
    "weights length": (X, Y, {"sample_weight": np.ones(5)}, ValueError, "sample_weight"),
    "weights NaN": (X, Y, {"sample_weight": with_value(np.ones(12), np.nan)}, ValueError, "sample_weight"),
    "weights text": (X, Y, {"sample_weight": "many"}, (ValueError, TypeError), "sample_weight"),
    "class weights": (X, Y, {"class_weight": {"a": 1.0}}, (ValueError, TypeError), "class_weight"),
    "validation split": (X, Y, {"validation_split": 1.5}, ValueError, "validation_split"),
    "validation data": (X, Y, {"validation_data": (X[..., :1], Y)}, ValueError, r"\(12, 4, 1\)"),
    "validation labels": (X, Y, {"validation_data": (X, Y + 5)}, ValueError, "got [5-7]"),
    "validation form": (X, Y, {"validation_data": X}, (ValueError, TypeError), "validation_data|y"),
    "batch size 0": (X, Y, {"batch_size": 0}, ValueError, "batch_size"),
    "batch size text": (X, Y, {"batch_size": "8"}, (ValueError, TypeError), "batch_size"),
    "epochs": (X, Y, {"epochs": -1}, ValueError, "epochs"),
    "verbose": (X, Y, {"verbose": 7}, ValueError, "verbose"),
    "callbacks": (X, Y, {"callbacks": [3]}, (ValueError, TypeError), "callback"),
}  # fmt: skip


@pytest.mark.parametrize("name", FIT)
def test_fit_names_what_is_wrong_and_changes_nothing(name):
    x, y, arguments, error, text = FIT[name]
    model = network()
    before = model.get_weights()
    with pytest.raises(error) as caught:
        model.fit(x, y, **{"verbose": 0, "batch_size": 2, **arguments})
    assert re.search(text, str(caught.value)), caught.value
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights()))
    model.fit(X, Y, verbose=0)


@pytest.mark.parametrize(
    ("loss", "y", "text"),
    [
        ("mse", with_value(one_hot, np.nan, (7, 1)), "nan|NaN"),
        ("mse", one_hot[:, :2], r"\(12, 2\)"),
        ("categorical_crossentropy", Y, r"\(12,\)"),
        ("binary_crossentropy", with_value(one_hot, np.nan, (0, 0)), "nan|NaN"),
    ],
)
def test_targets_of_other_losses(loss, y, text):
    model = network(loss)
    for call in (model.fit, model.train_on_batch, model.test_on_batch):
        with pytest.raises(ValueError, match=text):
            call(X, y)


@pytest.mark.parametrize("call", ["fit", "train_on_batch", "evaluate", "test_on_batch"])
def test_not_compiled(call):
    model = models.Sequential([layers.Input((4, 3)), layers.SimpleRNN(2), layers.Dense(3)])
    with pytest.raises(RuntimeError, match="compile"):
        getattr(model, call)(X, Y)
    assert model.predict(X, verbose=0).shape == (12, 3)


def test_add_after_build():
    model = network()
    with pytest.raises((ValueError, RuntimeError), match=r"lstm|axes|built"):
        model.add(layers.LSTM(3))
    assert model.predict(X, verbose=0).shape == (12, 3)


class OwnRegularizer(regularizers.L2):
    pass


class OwnConstraint(constraints.Constraint):
    def __call__(self, w):
        return w


BAD_CALLS = {
    "units zero": (lambda: layers.LSTM(0), "units"),
    "units fraction": (lambda: layers.Dense(2.5), "units"),
    "units text": (lambda: layers.GRU("many"), "units"),
    "units missing": (lambda: layers.LSTM(), "units"),
    "activation": (lambda: layers.LSTM(3, activation="rele"), "rele"),
    "keyword": (lambda: layers.LSTM(3, return_sequence=True), "return_sequence"),
    "dropout": (lambda: layers.LSTM(3, dropout=1.5), "dropout"),
    "rate": (lambda: layers.Dropout(-0.1), "rate"),
    "initializer": (lambda: layers.Dense(3, kernel_initializer="glorot"), "glorot"),
    "regularizer": (lambda: layers.Dense(3, kernel_regularizer="l3"), "l3"),
    "constraint": (lambda: layers.Dense(3, kernel_constraint="max"), "max"),
    "merge mode": (lambda: layers.Bidirectional(layers.LSTM(3), merge_mode="cat"), "merge_mode"),
    "wrapping": (lambda: layers.Bidirectional(layers.Dense(3)), "Dense"),
    "both backwards": (lambda: layers.Bidirectional(layers.LSTM(3, go_backwards=True)), "go_backwards"),
    "time distributed": (lambda: layers.TimeDistributed(3), "layer"),
    "embedding": (lambda: layers.Embedding(0, 4), "input_dim"),
    "shape": (lambda: layers.Input((0, 3)), "shape|0"),
    "flag": (lambda: layers.LSTM(3, unroll=np.ones(2)), "`unroll`.*True or False"),
    "choice": (lambda: layers.Bidirectional(layers.LSTM(3), merge_mode=np.ones(2)), "`merge_mode`.*expected one of"),
    "dtype of a layer": (lambda: layers.Dense(2, dtype=np.float64), "`dtype` of Dense.*float32"),
    "dtype of an input": (lambda: layers.Input((3,), dtype="foo"), "`dtype` of InputLayer.*foo"),
    "own regularizer": (lambda: layers.Dense(2, kernel_regularizer=OwnRegularizer()), "`kernel_reg.*OwnRegularizer"),
    "own constraint": (lambda: layers.Dense(2, kernel_constraint=OwnConstraint), "`kernel_constr.*OwnConstraint"),
    "no initializer": (lambda: layers.Dense(2, kernel_initializer=initializers.Initializer()), "kernel_init.*__call__"),
    "initializer of another shape": (
        lambda: layers.Dense(2, kernel_initializer=np.ones((2, 3)), name="d").build((None, 3)),
        r'`kernel_initializer` of layer "d": expected shape \(3, 2\), got \(2, 3\)',
    ),
    "validation share": (lambda: network().fit(X, Y, validation_split="a"), "`validation_split`.*'a'"),
    "validation shares": (lambda: network().fit(X, Y, validation_split=np.ones(2)), "`validation_split`"),
    "no class weight": (lambda: network().fit(X, Y, class_weight={0: None}), "`class_weight`.*None for class 0"),
    "class weight": (lambda: network().fit(X, Y, class_weight={0: float("nan")}), "`class_weight`.*nan for class 0"),
    "learning rate": (lambda: optimizers.Adam(-1.0), "learning_rate"),
    "momentum": (lambda: optimizers.SGD(momentum=2.0), "momentum"),
    "reduction": (lambda: losses.MeanSquaredError(reduction="avg"), "reduction"),
    "smoothing": (lambda: losses.CategoricalCrossentropy(label_smoothing=2.0), "label_smoothing"),
    "optimizer": (lambda: network(optimizer="adamax2"), "adamax2"),
    "loss": (lambda: network("cross"), "cross"),
    "metric": (lambda: network(metrics=["acurracy"]), "acurracy"),
    "loss of no output": (lambda: network({"out": "mse"}), r"`loss`: .* the only output, 'dense.*'; got \['out'\]"),
    "metrics of no output": (lambda: network(metrics={"a": "mse", "b": "mse"}), r"`metrics`: .*\['a', 'b'\]"),
    "loss weights of no output": (lambda: network(loss_weights={"out": 1}), r"`loss_weights`: .*\['out'\]"),
    "not a layer": (lambda: models.Sequential([3]), "3|layer"),
    "rank": (lambda: models.Sequential([layers.Input((4,)), layers.LSTM(3)]), "lstm|axes|rank"),
    "batch size": (lambda: network().predict(X, batch_size=0), "batch_size"),
    "set_weights": (lambda: network().set_weights([np.zeros(3)]), "weights"),
    "set_weights shape": (lambda: network().layers[1].set_weights([np.zeros((3, 4)), np.zeros(3)]), r"\(3, 4\)"),
    "threads": (lambda: __import__("seqcore").set_num_threads(0), "0"),
    "metric shapes": (lambda: metrics.MeanSquaredError().update_state(np.zeros((2, 3)), np.zeros((2, 4))), r"\(2, 3\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_arguments_are_named(name):
    call, text = BAD_CALLS[name]
    with pytest.raises((ValueError, TypeError), match=text):
        call()


def test_ids_outside_an_embedding():
    model = models.Sequential([layers.Input((3,), dtype="int32"), layers.Embedding(5, 2), layers.GRU(2)])
    model.compile("sgd", "mse")
    for bad in (5, -1, 2**31 - 1):
        ids = np.array([[0, 1, bad]])
        for call in (lambda i: model.predict(i, verbose=0), lambda i: model.train_on_batch(i, np.zeros((1, 2)))):
            with pytest.raises(ValueError, match=str(bad)):
                call(ids)
    with pytest.raises(ValueError, match=r"0\.5"):
        model.predict(np.array([[0, 1, 0.5]]), verbose=0)


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("{", "JSON, byte 1: expected a key, found the end"),
        ("[]", "model description must be a JSON object"),
        ("{}", "a model needs at least one layer"),
        ({"input": {"shape": [None, 3], "dtype": "float32"}, "layers": [], "more": 1}, "unknown key 'more'"),
        (chain((None, 3), spec("Dens", units=3)), "unknown layer 'Dens'; expected one of"),
        (chain((None, 3), spec("Dense", units=3, unit=4)), "Dense: unknown key 'unit'"),
        (chain((None, 3), spec("Dense", units=-3)), "Dense: units must be a positive integer .*, got -3"),
        (chain((None, 3), spec("Dense", units=2**40)), "Dense: units must be a positive integer .*, got 1099511627776"),
        (chain((None, 3), spec("Dense", units=1e300)), "Dense: units must be an integer, got 1e"),
        (chain((None, 2**40), spec("Dense", units=2**40)), "input shape has a dimension of 1099511627776"),
        (chain((None, 2**30), spec("Dense", units=2**30)), "weight 'kernel' would have more than 2\\^31 elements"),
        (chain((None, 3), spec("Dense")), "Dense: units must be a positive integer .*, got nothing"),
        (chain((None, 3), spec("Dense", units="3")), 'Dense: units must be an integer, got "3"'),
        (chain((None, 3), spec("LSTM", units=3)), "a recurrent layer expects input of shape"),
        (chain((None, 4, 3), spec("LSTM", units=3, activation="what")), "unknown activation 'what'"),
        (chain((None, 4, 3), spec("LSTM", units=3, seed="1")), 'LSTM: seed must be an integer, got "1"'),
        (chain((None, 3), spec("Dropout", rate=0.5, seed=0.5)), "Dropout: seed must be an integer, got 0.5"),
        (chain((None, 3), spec("Dropout", rate=0.5, noise_shape=[None, "1"])), "noise_shape of Dropout: expected"),
        (chain((None, 3), spec("LayerNormalization", axis=["1"])), "LayerNormalization: axis must be an integer"),
        (chain((None, 4, 3), spec("Bidirectional")), "Bidirectional: layer must be a layer, got nothing"),
        (chain((None, 4, 3), spec("Dense", units=3), dtype="float64"), "input dtype must be float32 or int32"),
        ("[" * 100000, "at most 64 levels"),
    ],
    ids=lambda d: str(d)[:90],
)
def test_core_refuses_bad_descriptions(description, message):
    with pytest.raises(ValueError, match=message):
        _core.Model(description if isinstance(description, str) else json.dumps(description), 0)


def test_core_refuses_wrong_arrays():
    model = _core.Model(json.dumps(chain((None, 4, 3), spec("SimpleRNN", units=2))), 0)
    good = np.zeros((2, 4, 3), np.float32)
    for bad in (good.astype(np.float64), good[:, ::2]):
        with pytest.raises(TypeError, match="x: expected a C-contiguous float32 array, got dtype"):
            model.predict(bad, 32)
    with pytest.raises(ValueError, match=r"x: expected float32 input of shape \(None, 4, 3\), got shape \(2, 4, 3\)"):
        model.predict(good.astype(np.int32), 32)
    with pytest.raises(ValueError, match=r"weight 'kernel': expected shape \(3, 2\), got \(3, 3\)"):
        model.set_weight(0, np.zeros((3, 3), np.float32))
    with pytest.raises(IndexError, match="weight 99 of 3"):
        model.get_weight(99)
    with pytest.raises(RuntimeError, match="compile"):
        model.train_on_batch(good, np.zeros((2, 2), np.float32), None, None)
    with pytest.raises(ValueError, match=r"mask: expected shape \(batch, steps\) of x"):
        model.forward(good, False, np.zeros((2, 5), bool), None)
    with pytest.raises(ValueError, match=r"initial_state: expected shape \(2, 2\), got \(2, 3\)"):
        model.forward(good, False, None, [np.zeros((2, 3), np.float32)])
    with pytest.raises(ValueError, match="initial_state: expected 1 arrays, got 2"):
        model.forward(good, False, None, [np.zeros((2, 2), np.float32)] * 2)
    model.compile(compiling(spec("MeanSquaredError"), spec("SGD")))
    for rows, message in (([0, 2], "rows: 2 of 2 samples"), ([-1], "rows: -1 of 2 samples")):
        with pytest.raises(IndexError, match=message):
            model.train_on_batch(good, np.zeros((2, 2), np.float32), None, np.array(rows, np.int64))


def test_nan_in_one_row_changes_that_row_alone():
    model = network()
    expected = model.predict(X, verbose=0)
    x = X.copy()
    x[5, 2, 1] = np.nan
    got = model.predict(x, verbose=0)
    assert np.isnan(got[5]).all() and np.array_equal(np.delete(got, 5, 0), np.delete(expected, 5, 0))
