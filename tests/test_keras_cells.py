"""Cells and RNN beside Keras 3's, from the same weights. Collected as test_keras.py is."""

import inspect
import os
import warnings

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import keras

import seqcore
from support import instance, spec

pytestmark = pytest.mark.filterwarnings("ignore")
RNG = np.random.default_rng(0)
ONE = [
    spec("SimpleRNNCell", units=7, activation="softsign"),
    spec("LSTMCell", units=7, activation="relu"),
    spec("LSTMCell", units=7, use_bias=False, recurrent_activation="hard_sigmoid"),
    spec("GRUCell", units=7),
    spec("GRUCell", units=7, reset_after=False, implementation=1),
]
NESTED = spec("StackedRNNCells", cells=[spec("GRUCell", units=3), spec("LSTMCell", units=5)])
STACKS = [
    spec("StackedRNNCells", cells=cells)
    for cells in ([ONE[3]], [ONE[1]], [ONE[1], ONE[3]], [ONE[0], ONE[4], ONE[2]], [ONE[3], NESTED, ONE[0]])
]


def named(cell):
    """A short id."""
    inner = cell["config"].get("cells")
    return cell["class_name"][:-4] if inner is None else "-".join(map(named, inner))


def numbers(value):
    """A nest of arrays as lists of NumPy's; tuples and lists are one."""
    if isinstance(value, (list, tuple)):
        return [numbers(v) for v in value]
    return value if isinstance(value, int) else keras.ops.convert_to_numpy(value)


def same(ours, theirs, exact=False):
    """Of one structure, and close."""
    if isinstance(theirs, list):
        assert isinstance(ours, list) and len(ours) == len(theirs)
        for a, b in zip(ours, theirs):
            same(a, b, exact)
    else:
        assert np.shape(ours) == np.shape(theirs)
        np.testing.assert_allclose(ours, theirs, rtol=0 if exact else 2e-5, atol=0 if exact else 2e-6)


def both(item, x):
    made = [instance(library, item) for library in (seqcore, keras)]
    for layer in made:
        layer.build(x.shape)
    weights = [RNG.uniform(-0.5, 0.5, w.shape).astype(np.float32) for w in made[0].weights]
    assert [w.shape for w in made[0].weights] == [tuple(w.shape) for w in made[1].weights]
    assert [w.name for w in made[0].weights] == [w.name for w in made[1].weights]
    for layer in made:
        layer.set_weights(weights)
    return made


def drawn(value):
    """Arrays of the shapes of those in a nest."""
    return [drawn(v) for v in value] if isinstance(value, list) else RNG.normal(size=value.shape).astype(np.float32)


# Stacks of one fail in Keras where they have masks or are unrolled; so do masks where it unrolls backwards.
@pytest.mark.parametrize(
    ("cell", "masked", "more"),
    [
        (cell, masked, more)
        for cell in ONE + STACKS
        for masked in (False, True)
        for more in ({}, {"go_backwards": True}, {"zero_output_for_mask": True}, {"unroll": True})
        if cell not in STACKS[:2] or not (masked or "unroll" in more)
    ],
    ids=lambda v: named(v) if isinstance(v, dict) and "class_name" in v else str(v),
)
@pytest.mark.parametrize("sequences", [False, True])
def test_layers(cell, more, sequences, masked):
    x = RNG.normal(size=(3, 6, 4)).astype(np.float32)
    layers = both(spec("RNN", cell=cell, return_sequences=sequences, return_state=True, **more), x)
    mask = RNG.random((3, 6)) < 0.6 if masked else None
    ours, theirs = (numbers(layer(x, mask=mask)) for layer in layers)
    same(ours, theirs)
    assert numbers(layers[0].state_size) == numbers(layers[1].state_size)
    for shape in ((3, 6, 4), (None, None, 4)) if NESTED not in cell["config"].get("cells", []) else ():  # Keras fails
        a, b = (repr(layer.compute_output_shape(shape)).replace("[", "(").replace("]", ")") for layer in layers)
        assert a == b
    same(*(numbers(layer.get_initial_state(2)) for layer in layers), exact=True)
    given = drawn(ours[1:])
    if masked:  # before a valid step Keras's output is zero, ours the initial state
        mask[:, 0] = mask[:, -1] = True
    same(*(numbers(layer(x, mask=mask, initial_state=given)) for layer in layers))


@pytest.mark.parametrize("merge_mode", ["concat", "sum", None])
@pytest.mark.parametrize("cell", [ONE[1], ONE[3], STACKS[2]], ids=named)
def test_both_directions(cell, merge_mode):
    x = RNG.normal(size=(3, 6, 4)).astype(np.float32)
    rnn = spec("RNN", cell=cell, return_sequences=True, return_state=True)
    layers = both(spec("Bidirectional", layer=rnn, merge_mode=merge_mode), x)
    mask = RNG.random((3, 6)) < 0.6
    ours, theirs = (numbers(layer(x, mask=mask)) for layer in layers)
    same(ours, theirs)
    assert layers[0].forward_layer.name.startswith("forward_rnn")


@pytest.mark.parametrize("cell", [ONE[1], ONE[3], STACKS[2]], ids=named)
def test_stateful_models(cell):
    x = RNG.normal(size=(4, 6, 3)).astype(np.float32)
    models = []
    for library in (seqcore, keras):
        rnn = instance(library, spec("RNN", cell=cell, stateful=True))
        models.append(library.Sequential([library.layers.Input(batch_shape=(2, 6, 3)), rnn, library.layers.Dense(2)]))
    models[1].set_weights(models[0].get_weights())
    y = RNG.normal(size=(4, 2)).astype(np.float32)
    for model in models:
        model.compile("sgd", "mse")
    for _ in range(2):
        same(*(model.predict(x, batch_size=2, verbose=0) for model in models))
        a, b = (model.fit(x, y, batch_size=2, shuffle=False, verbose=0).history["loss"] for model in models)
        np.testing.assert_allclose(a, b, rtol=1e-5)
    same(*(model.get_weights() for model in models))


@pytest.mark.parametrize("cell", ONE + STACKS, ids=named)
def test_cells_by_themselves(cell):
    x = RNG.normal(size=(3, 4)).astype(np.float32)
    cells = both(cell, x)
    assert numbers(cells[0].state_size) == numbers(cells[1].state_size)
    assert cells[0].output_size == cells[1].output_size
    begins = [numbers(c.get_initial_state(batch_size=3)) for c in cells]
    same(*begins, exact=True)

    states = drawn(begins[0])
    results = [c(x, states) for c in cells]
    assert all(isinstance(r, tuple) and len(r) == 2 for r in results)
    same(*map(numbers, results))
    if cell in (ONE[0], ONE[3], ONE[4]):  # a lone state, without a list
        same(*(numbers(c(x, states[0])) for c in cells))
    same(*(numbers(c(x, states, training=True)) for c in cells))


@pytest.mark.parametrize(
    "name", ["SimpleRNNCell", "LSTMCell", "GRUCell", "StackedRNNCells", "RNN", "SimpleRNN", "LSTM", "GRU"]
)
def test_signatures_and_configs(name):
    def arguments(library):
        found = inspect.signature(getattr(library.layers, name)).parameters.values()
        positional = [p for p in found if p.kind is p.POSITIONAL_OR_KEYWORD]
        return [(p.name, p.default) for p in positional if p.name not in ("self", "use_cudnn")]

    assert arguments(seqcore) == arguments(keras)
    for library in (seqcore, keras):
        library.utils.clear_session()  # names are counted
    given = {"StackedRNNCells": [{"cells": [ONE[3]]}], "RNN": [{"cell": ONE[3]}]}.get(name, [{"units": 3}])[0]
    configs = [instance(library, spec(name, **given)).get_config() for library in (seqcore, keras)]
    assert set(configs[1]) <= set(configs[0])
    assert set(configs[0]) - set(configs[1]) <= {"activity_regularizer", "seed"}  # null; Keras's SimpleRNN forgets both
    for key, value in configs[1].items():
        if key not in ("cell", "cells", "dtype") and not isinstance(value, dict):
            assert configs[0][key] == value, key
        elif key.endswith("initializer"):
            assert configs[0][key]["class_name"] == value["class_name"]


@pytest.mark.parametrize("cell", [4, "LSTM", None])
def test_what_both_refuse(cell):
    for library in (seqcore, keras):
        with pytest.raises(ValueError, match=r"cell"):
            library.layers.RNN(cell)


@pytest.mark.parametrize("name", ["LSTMCell", "GRUCell", "SimpleRNNCell"])
def test_dropout_of_cells_by_themselves(name):
    """Their masks stay until they are reset."""
    x = np.ones((4, 50), np.float32)
    for library in (seqcore, keras):
        cell = getattr(library.layers, name)(8, dropout=0.5, recurrent_dropout=0.5)
        states = cell.get_initial_state(4)
        first, again = (numbers(cell(x, states, training=True)[0]) for _ in range(2))
        assert np.array_equal(first, again)
        cell.reset_dropout_mask()
        cell.reset_recurrent_dropout_mask()
        assert not np.array_equal(numbers(cell(x, states, training=True)[0]), first)
        assert not np.array_equal(numbers(cell(x, states)[0]), first)
