"""Cells and RNN: by bits like the layers of their kinds, beside the reference, by themselves, and what is refused."""

import copy
import itertools
import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

import seqcore
from reference.layers import make
from seqcore import _core, layers, models
from support import ROOT, Case, assert_close, chain, rng_pick, same_bits, spec
from test_layers import MSE, check_layer

RNG = np.random.default_rng(0)
KINDS = ["SimpleRNN", "LSTM", "GRU", "GRU before"]
STACK = [
    spec("LSTMCell", units=17),
    spec("GRUCell", units=5, reset_after=False, use_bias=False),
    spec("SimpleRNNCell", units=3, activation="softsign"),
    spec("GRUCell", units=21),
]


def rows(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def masked(*shape):
    """Some steps of it zero: one at the beginning, one at the end, whole samples."""
    x = rows(*shape)
    x[RNG.random(shape[:2]) < 0.4] = 0
    x[0, 0] = x[1, -1] = x[-1] = 0
    return x


def one(kind, units, suffix="", **config):
    """The layer of a kind or, with suffix "Cell", the cell."""
    before = {"reset_after": False} if "before" in kind else {}
    return getattr(layers, kind.split()[0] + suffix)(units, **config, **before)


def nested_shapes(value):
    return [nested_shapes(v) for v in value] if isinstance(value, (list, tuple)) else value.shape


def trained(middle, shape, x, y, **fit):
    """A model with the layers, after some training; its seed does not depend on how often this was called."""
    seqcore.utils.set_random_seed(7)
    model = models.Sequential([layers.Input(shape), layers.Masking(0.0), *middle(), layers.Dense(2)])
    model.compile("adam", "mse")
    model.fit(x, y, epochs=3, batch_size=4, verbose=0, **fit)
    return model


# ------------------------------------------------------------------------------------------------- like layers, by bits


@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "cell",
    [{}, {"dropout": 0.3}, {"dropout": 0.3, "recurrent_dropout": 0.2}, {"recurrent_dropout": 0.2, "seed": 5}],
    ids=str,
)
def test_a_cell_is_its_layer(kind, cell, sequences):
    """Masked training with dropout, predictions, streams: one cell has the layer's bits, cells on each other those of
    layers one after another."""
    x = masked(9, 5, 3)
    y = rows(9, 5, 2) if sequences else rows(9, 2)
    over = {"return_sequences": sequences, "zero_output_for_mask": sequences}
    for cells, chained in (
        (lambda: one(kind, 7, "Cell", **cell), lambda: [one(kind, 7, **cell, **over)]),
        (
            lambda: [one(kind, 7, "Cell", **cell), layers.LSTMCell(18, dropout=0.1), one(kind, 2, "Cell", **cell)],
            lambda: [one(kind, 7, **cell, return_sequences=True), layers.LSTM(18, dropout=0.1, return_sequences=True),
                     one(kind, 2, **cell, **over)],
        ),
    ):  # fmt: skip
        ours = trained(lambda cells=cells: [layers.RNN(cells(), **over)], (None, 3), x, y)
        theirs = trained(chained, (None, 3), x, y)
        assert same_bits(ours.get_weights(), theirs.get_weights())
        assert same_bits(ours.predict(x, verbose=0), theirs.predict(x, verbose=0))
        assert same_bits(ours(x, training=True), theirs(x, training=True))
        for precision in ("float32", "bfloat16", "int8"):
            streams = [model.stream(precision) for model in (ours, theirs)]
            assert same_bits(streams[0].run(x[0]), streams[1].run(x[0]))
            assert same_bits(streams[0].state, streams[1].state)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("units", [5, 200])
def test_streams(units, threads):
    """A step is predict's, with a team and without; many streams too."""
    cells = [layers.LSTMCell(units), layers.GRUCell(units + 1), layers.GRUCell(17, reset_after=False)]
    model = models.Sequential([layers.Input((None, 4)), layers.RNN(cells, return_sequences=True), layers.Dense(3)])
    x = rows(3, 9, 4)
    expected = model.predict(x, verbose=0)
    stream = model.stream(threads=threads)
    assert same_bits(np.stack([stream.step(row) for row in x[0]]), expected[0])
    assert [s.shape for s in stream.state] == [(units,), (units,), (units + 1,), (17,)]
    stream.reset()
    assert same_bits(stream.run(x[1]), expected[1])
    many = model.streams(3, threads=threads)
    assert same_bits(np.stack([many.step(x[:, t]) for t in range(9)], 1), expected)
    backwards = models.Sequential([layers.Input((None, 4)), layers.RNN(cells[:1], go_backwards=True)])
    with pytest.raises(ValueError, match=r"RNN.*backwards"):
        backwards.stream()


# --------------------------------------------------------------------------------------------------- like the reference


@pytest.mark.parametrize("first", [[], [spec("Masking", mask_value=0.0)]], ids=["", "masked"])
@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("cells", [1, 2, 4])
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"go_backwards": True},
        {"zero_output_for_mask": True, "activity_regularizer": spec("L2", l2=0.1)},
        {"go_backwards": True, "zero_output_for_mask": True, "unroll": True},
    ],
    ids=str,
)
def test_stacks(config, cells, sequences, first):
    """Also with steps that are masked in one sample only, whose states and outputs all stay."""
    rnn = spec("RNN", cell=spec("StackedRNNCells", cells=STACK[:cells]), return_sequences=sequences, **config)
    case = Case(chain((None, 6, 3), *first, rnn, spec("Dense", units=2)), MSE, 5, seed=3)
    if first:
        case.x[:] = masked(5, 6, 3)
    check_layer(case)


@pytest.mark.parametrize(("batch", "steps", "features"), [(1, 1, 1), (2, 7, 17), (65, 2, 5), (3, 37, 2)])
def test_shapes(batch, steps, features):
    penalized = spec("LSTMCell", units=2, kernel_regularizer=spec("L1", l1=0.1), bias_regularizer=spec("L2", l2=0.1),
                     recurrent_regularizer=spec("L2", l2=0.1))  # fmt: skip
    inner = spec("StackedRNNCells", cells=[spec("GRUCell", units=1), penalized])
    for cell in (spec("StackedRNNCells", cells=[STACK[0], inner, STACK[3]]), penalized):
        check_layer(Case(chain((None, steps, features), spec("RNN", cell=cell)), MSE, batch, seed=5))


@pytest.mark.parametrize("merge_mode", ["concat", "sum", "mul", "ave"])
@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("first", [[], [spec("Masking", mask_value=0.0)]], ids=["", "masked"])
def test_bidirectional(first, sequences, merge_mode):
    config = {"return_sequences": sequences, "activity_regularizer": spec("L2", l2=0.1)}
    rnn = spec("RNN", cell=spec("StackedRNNCells", cells=STACK[:2]), **config)
    layer = spec("Bidirectional", layer=rnn, merge_mode=merge_mode)
    case = Case(chain((None, 6, 3), *first, layer, spec("Dense", units=2)), MSE, 5, seed=3)
    if first:
        case.x[:] = masked(5, 6, 3)
    check_layer(case)
    back = spec("LSTM", units=5, return_sequences=sequences, go_backwards=True)
    layer = spec("Bidirectional", layer=rnn, backward_layer=back, merge_mode=merge_mode)
    check_layer(Case(chain((None, 6, 3), *first, layer), MSE, 2, seed=3))


def test_time_distributed():
    rnn = spec("RNN", cell=spec("StackedRNNCells", cells=STACK[:3]), go_backwards=True)
    layer = spec("TimeDistributed", layer=rnn)
    check_layer(Case(chain((None, 3, 4, 2), layer, spec("Dense", units=2)), MSE, 5, seed=2))


def test_padding_is_not_read():
    """NaN in masked steps reaches neither outputs nor gradients."""
    cells = spec("StackedRNNCells", cells=STACK)
    description = chain((None, 4, 3), spec("RNN", cell=cells, return_sequences=True, go_backwards=True))
    core = _core.Model(json.dumps(description), 0)
    x, mask = rows(2, 4, 3), np.array([[True, False, True, True], [False, False, True, False]])
    (expected,), _ = core.forward(x, False, mask, None)
    (y,), _ = core.forward(np.where(mask[..., None], x, np.nan).astype(np.float32), False, mask, None)
    assert np.isfinite(expected).all() and same_bits(y, expected)


def test_each_cell_draws_its_own_dropout():
    """Through identities that add nothing up: what comes out is what the masks of all cells let through, at every step
    the same, scaled by both."""

    def identity(units):
        return layers.SimpleRNNCell(units, "linear", kernel_initializer="identity", recurrent_initializer="zeros",
                                    dropout=0.5)  # fmt: skip

    layer = layers.RNN([identity(200), identity(200)], return_sequences=True)
    y = layer(np.ones((50, 3, 200)), training=True)
    assert set(np.unique(y)) == {0.0, 4.0} and abs((y == 4).mean() - 0.25) < 0.02  # 0.5 were they the same
    assert same_bits(y[:, 0], y[:, 1]) and same_bits(y[:, 0], y[:, 2])
    other = layer(np.ones((50, 3, 200)), training=True)
    assert not same_bits(other, y) and same_bits(layer(np.ones((50, 3, 200))), np.ones((50, 3, 200), np.float32))


# --------------------------------------------------------------------------------------------------------------- states


def test_states():
    """Out, in, carried: a sequence in two halves is the whole, to the bit."""
    layer = layers.RNN([layers.LSTMCell(4), layers.GRUCell(3)], return_sequences=True, return_state=True)
    x = rows(2, 6, 5)
    whole, *last = layer(x)
    assert nested_shapes(last) == [[(2, 4), (2, 4)], [(2, 3)]]
    assert layer.state_size == [[4, 4], 3]
    assert layer.compute_output_shape((2, 6, 5)) == [(2, 6, 3), [(2, 4), (2, 4)], (2, 3)]
    assert nested_shapes(layer.get_initial_state(2)) == nested_shapes(last)
    assert not any(np.any(s) for states in layer.get_initial_state(2) for s in states)
    first, *middle = layer(x[:, :2])
    second, *end = layer(x[:, 2:], initial_state=middle)
    assert same_bits(np.concatenate([first, second], 1), whole) and all(map(same_bits, end, last))
    model = models.Sequential([layers.Input((None, 5)), layer])  # a model gives them in one row
    assert same_bits(model.predict(x, verbose=0), [whole, *last[0], *last[1]])
    bare = [middle[0], middle[1][0]]  # a cell of one state may have it without a list
    assert same_bits(layer(x[:, 2:], initial_state=bare)[0], second)
    assert not same_bits(second, layer(x[:, 2:])[0])

    keeps = layers.RNN([layers.LSTMCell(4), layers.GRUCell(3)], return_sequences=True, stateful=True)
    keeps.build((2, None, 5))
    assert keeps.states == []
    keeps.set_weights(layer.get_weights())
    assert same_bits(keeps(x[:, :2]), first) and all(map(same_bits, keeps.states, middle))
    assert same_bits(keeps(x[:, 2:]), second) and all(map(same_bits, keeps.states, last))
    keeps.reset_state()
    assert same_bits(keeps(x), whole)
    model = models.Sequential([layers.Input(batch_shape=(2, None, 5)), keeps])
    assert same_bits(model.predict(x[:, :2], batch_size=2, verbose=0), first)
    assert same_bits(model.predict(x[:, 2:], batch_size=2, verbose=0), second)
    with pytest.raises(ValueError, match="batch"):
        layers.RNN([layers.LSTMCell(4)], stateful=True, input_shape=(3, 5)).build((None, 3, 5))


@pytest.mark.parametrize("merge_mode", ["concat", None])
def test_states_of_both_directions(merge_mode):
    rnn = layers.RNN([layers.GRUCell(3), layers.LSTMCell(4)], return_state=True)
    layer = layers.Bidirectional(rnn, merge_mode=merge_mode)
    x = rows(2, 6, 5)
    outputs = layer(x)
    n = 1 if merge_mode else 2
    assert nested_shapes(outputs[n:]) == [[(2, 3)], [(2, 4), (2, 4)]] * 2
    assert nested_shapes(outputs[:n]) == ([(2, 8)] if merge_mode else [(2, 4), (2, 4)])
    again = layer(x, initial_state=outputs[n:])
    halves = [
        part(sequence, initial_state=outputs[i : i + 2])
        for part, sequence, i in ((layer.forward_layer, x, n), (layer.backward_layer, x, n + 2))
    ]
    joined = [np.concatenate([halves[0][0], halves[1][0]], 1)] if merge_mode else [halves[0][0], halves[1][0]]
    assert same_bits(again[:n], joined)
    for states, expected in zip(again[n:], [*halves[0][1:], *halves[1][1:]], strict=True):
        assert same_bits(states, expected)
    assert layer.compute_output_shape((2, 6, 5))[n:] == [(2, 3), [(2, 4), (2, 4)]] * 2


def test_a_stack_of_one():
    """Called by itself it gives its states, as Keras's does, without the list around them; it takes both."""
    layer = layers.RNN([layers.LSTMCell(4)], return_state=True)
    x = rows(2, 3, 5)
    y, states = layer(x)
    assert nested_shapes([y, states]) == [(2, 4), [(2, 4), (2, 4)]]
    assert layer.state_size == [[4, 4]] and nested_shapes(layer.get_initial_state(2)) == [[(2, 4), (2, 4)]]
    assert same_bits(layer(x, initial_state=[states]), layer(x, initial_state=states))
    given = layer.get_initial_state(2)
    for t in range(3):
        out, given = layer.cell(x[:, t], given)
        assert nested_shapes(given) == [(2, 4), (2, 4)]
    assert same_bits(out, y) and same_bits(given, states)


@pytest.mark.parametrize(
    "given",
    [
        np.zeros((2, 4)),
        [],
        [np.zeros((2, 4))],
        [np.zeros((2, 4))] * 2,
        [[np.zeros((2, 4))], [np.zeros((2, 3))]],
        [[np.zeros((2, 4))] * 2, [np.zeros((2, 4))]],
        [[np.zeros((2, 4))] * 2, [np.zeros((3, 3))]],
        [[np.zeros((2, 4))] * 3, [np.zeros((2, 3))]],
        [[np.zeros((2, 4))] * 2, [np.zeros((2, 3))], [np.zeros((2, 3))]],
    ],
    ids=str,
)
def test_states_that_do_not_fit(given):
    cells = [layers.LSTMCell(4), layers.GRUCell(3)]
    with pytest.raises(ValueError, match=r"states of|initial_state|`states`"):
        layers.RNN(cells)(rows(2, 3, 5), initial_state=given)
    with pytest.raises(ValueError, match=r"states of|initial_state|`states`"):
        layers.StackedRNNCells([layers.LSTMCell(4), layers.GRUCell(3)])(rows(2, 5), given)


# ------------------------------------------------------------------------------------------------- cells by themselves


@pytest.mark.parametrize("kind", KINDS)
def test_a_cell_called_by_itself(kind):
    """Step by step it gives what its layer gives over the sequence, and what the reference gives."""
    cell = one(kind, 7, "Cell", bias_initializer="glorot_uniform")
    x = rows(3, 5, 4)
    states = cell.get_initial_state(3)
    assert [s.shape for s in states] == [(3, 7)] * (2 if kind == "LSTM" else 1)
    outputs = []
    for t in range(5):
        y, states = cell(x[:, t], states)
        outputs.append(y)
        assert isinstance(states, list) and same_bits(states[0], y)
    assert same_bits(cell.call(x[:, 0], cell.get_initial_state(3))[0], outputs[0])
    layer = layers.RNN(cell, return_sequences=True, return_state=True)
    whole, *last = layer(x)
    assert same_bits(np.stack(outputs, 1), whole) and same_bits(states, last)
    reference = make(spec(kind.split()[0], units=7, return_sequences=True, reset_after="before" not in kind))
    reference.build(x.shape)
    reference.w = dict(zip(reference.shapes, map(np.float64, cell.get_weights()), strict=True))
    assert_close(whole, reference.forward(np.float64(x), None, None)[0])
    if kind != "LSTM":
        y, state = cell(x[:, 0], states[0])  # no list in, none out
        assert isinstance(state, np.ndarray) and same_bits(y, cell(x[:, 0], states)[0])


def test_a_stack_called_by_itself():
    cells = layers.StackedRNNCells([layers.GRUCell(3), layers.StackedRNNCells([layers.LSTMCell(4), layers.GRUCell(2)])])
    assert cells.state_size == [3, [[4, 4], 2]] and cells.output_size == 2
    x = rows(2, 5, 6)
    states = cells.get_initial_state(2)
    assert nested_shapes(states) == [[(2, 3)], [[(2, 4), (2, 4)], [(2, 2)]]]
    outputs = []
    for t in range(5):
        y, states = cells(x[:, t], states)
        outputs.append(y)
    whole, *last = layers.RNN(cells, return_sequences=True, return_state=True)(x)
    assert same_bits(np.stack(outputs, 1), whole)
    assert same_bits(states, last)
    assert nested_shapes(cells(x[:, 0], [states[0][0], [states[1][0], states[1][1][0]]])[1]) == [
        (2, 3), [[(2, 4), (2, 4)], (2, 2)]]  # fmt: skip


@pytest.mark.parametrize("stacked", [False, True])
def test_dropout_of_a_cell_called_by_itself(stacked):
    """The masks stay the same from step to step until they are reset, as Keras's do."""
    cell = layers.LSTMCell(8, dropout=0.5, recurrent_dropout=0.5)
    if stacked:
        cell = layers.StackedRNNCells([cell, layers.GRUCell(3, dropout=0.5)])
    x, zero = rows(2, 6), cell.get_initial_state(2)
    first = cell(x, zero, training=True)[0]
    assert same_bits(cell(x, zero, training=True)[0], first)
    assert not same_bits(cell(x, zero)[0], first) and same_bits(cell(x, zero)[0], cell(x, zero)[0])
    assert same_bits(cell(x, zero, training=True)[0], first)
    for reset in (cell.reset_dropout_mask, cell.reset_recurrent_dropout_mask):
        reset()
        other = cell(x, zero, training=True)[0]
        assert not same_bits(other, first) and same_bits(cell(x, zero, training=True)[0], other)
        first = other


def test_cells_keep_their_weights():
    """A cell that was called, or given weights, is the same one in a layer, and in a model that trains it."""
    lower, upper = layers.GRUCell(3), layers.LSTMCell(4)
    assert not lower.built
    lower.build((None, 5))
    assert lower.built and [w.path for w in lower.weights] == [
        f"{lower.name}/{w}" for w in ("kernel", "recurrent_kernel", "bias")]  # fmt: skip
    lower.set_weights([rows(*w.shape) for w in lower.weights])
    before = lower.get_weights()
    model = models.Sequential([layers.Input((None, 5)), layers.RNN([lower, upper]), layers.Dense(1)])
    assert same_bits(model.get_weights()[:3], before) and upper.built and upper.kernel.shape == (3, 16)
    assert lower.count_params() + upper.count_params() == model.layers[0].count_params()
    model.compile("sgd", "mse")
    model.fit(rows(4, 3, 5), rows(4, 1), verbose=0)
    assert same_bits(model.get_weights()[:3], lower.get_weights()) and not same_bits(lower.get_weights(), before)
    state = lower.get_initial_state(2)
    x = rows(2, 1, 5)
    assert same_bits(lower(x[:, 0], state)[0], layers.RNN(lower)(x))


def test_what_is_trained():
    lower, upper = layers.GRUCell(3, trainable=False), layers.LSTMCell(4, kernel_regularizer="l2")
    rnn = layers.RNN([lower, upper])
    model = models.Sequential([layers.Input((None, 5)), rnn, layers.Dense(1)])
    assert len(rnn.trainable_weights) == len(rnn.non_trainable_weights) == 3
    assert [float(v) for v in rnn.losses] == [float(v) for v in upper.losses] and len(rnn.losses) == 1
    model.compile("sgd", "mse")
    before = model.get_weights()
    model.fit(rows(4, 3, 5), rows(4, 1), verbose=0)
    after = model.get_weights()
    assert same_bits(after[:3], before[:3]) and not any(map(same_bits, after[3:6], before[3:6]))
    rnn.trainable = False
    assert rnn.trainable_weights == []


def test_initializers_and_constraints():
    """Initializers of one's own are asked once a weight, in copies too; constraints hold for each cell's weights."""
    asked = []

    def ones(shape, dtype=None):
        asked.append(tuple(shape))
        return np.ones(shape, dtype)

    def cells():
        return [layers.LSTMCell(2, kernel_initializer=ones, bias_initializer=ones),
                layers.GRUCell(3, recurrent_initializer=ones, recurrent_constraint="unit_norm")]  # fmt: skip

    layer = layers.RNN(cells())
    layer.build((None, None, 4))
    assert asked == [(4, 8), (2,), (4,), (3, 9)] and np.all(layer.get_weights()[2] == 1)
    both = layers.Bidirectional(layers.RNN(cells()))
    both.build((None, None, 4))
    assert asked[4:] == asked[:4] * 2 and np.all(both.get_weights()[6] == 1)
    model = models.Sequential([layers.Input((None, 4)), layer])
    model.compile("sgd", "mse")
    model.fit(rows(4, 3, 4), rows(4, 3), verbose=0)
    np.testing.assert_allclose(np.linalg.norm(model.get_weights()[4], axis=0), 1, rtol=1e-6)


# ------------------------------------------------------------------------------------------------- descriptions, copies


def test_configs():
    for kind, reset in itertools.product(["SimpleRNNCell", "LSTMCell", "GRUCell"], [True, False]):
        more = {"reset_after": reset} if kind == "GRUCell" else {}
        cell = getattr(layers, kind)(3, "relu", dropout=0.1, kernel_constraint="non_neg", seed=4, name="mine", **more)
        again = type(cell).from_config(json.loads(json.dumps(cell.get_config())))
        assert again.get_config() == cell.get_config() and again.name == "mine" and again.dropout == 0.1
        assert layers.deserialize(layers.serialize(cell)).get_config() == cell.get_config()
    layer = layers.RNN(
        [layers.LSTMCell(3), layers.StackedRNNCells([layers.GRUCell(2), layers.SimpleRNNCell(4)])],
        True, False, True, zero_output_for_mask=True, activity_regularizer="l1",
    )  # fmt: skip
    config = layer.get_config()
    assert config["cell"]["class_name"] == "StackedRNNCells" and config["return_sequences"] and config["go_backwards"]
    again = layers.RNN.from_config(json.loads(json.dumps(config)))
    assert again.get_config() == config and again.cell.cells[1].cells[0].units == 2
    assert layers.RNN(cell=layers.GRUCell(3)).cell.units == 3
    assert models.clone_model(models.Sequential([layers.Input((2, 3)), layer])).layers[0].get_config() == config


def test_names():
    seqcore.backend.clear_session()
    layer = layers.RNN([layers.LSTMCell(3), layers.SimpleRNNCell(3), layers.LSTMCell(3)])
    assert [layer.name, layer.cell.name, *(cell.name for cell in layer.cell.cells)] == [
        "rnn", "stacked_rnn_cells", "lstm_cell", "simple_rnn_cell", "lstm_cell_1"]  # fmt: skip
    both = layers.Bidirectional(layers.RNN(layers.GRUCell(3)))
    assert both.forward_layer.name == "forward_rnn_1" and both.backward_layer.cell.name == "gru_cell"
    layer(rows(1, 2, 3))
    assert layers.RNN(layers.GRUCell(2)).name == "rnn_2"  # calls on arrays take no names


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))])
def test_copies(copied):
    x = rows(2, 3, 5)
    layer = layers.RNN([layers.LSTMCell(4), layers.GRUCell(3)])
    y = layer(x)
    assert same_bits(copied(layer)(x), y)
    cell = layers.GRUCell(3)
    y = cell(x[:, 0], cell.get_initial_state(2))[0]
    assert same_bits(copied(cell)(x[:, 0], cell.get_initial_state(2))[0], y)
    stack = layers.StackedRNNCells([cell])
    assert same_bits(copied(stack)(x[:, 0], cell.get_initial_state(2))[0], y)


@pytest.mark.parametrize("seed", range(3))
def test_files(tmp_path, seed):
    """Saved in the middle of training with dropout, which goes on to the same bits; weights alone, too."""
    pick = rng_pick(seed)
    cells = [one(pick(KINDS), pick([3, 17]), "Cell", dropout=0.2, recurrent_dropout=0.1) for _ in range(3)]
    rnn = layers.RNN(cells, return_sequences=True, stateful=pick([True, False]))
    model = models.Sequential([layers.Input(batch_shape=(4, None, 3)), layers.Masking(), rnn,
                               layers.Bidirectional(layers.RNN(layers.GRUCell(3))), layers.Dense(2)])  # fmt: skip
    model.compile("adam", "mse")
    x, y = masked(8, 5, 3), rows(8, 2)
    model.fit(x, y, batch_size=4, verbose=0)
    model.save(tmp_path / "m.safetensors")
    model.save_weights(tmp_path / "w.safetensors")
    other = models.load_model(tmp_path / "m.safetensors")
    model.reset_states()
    for m in (model, other):
        m.fit(x, y, batch_size=4, epochs=2, verbose=0)
    assert same_bits(model.get_weights(), other.get_weights())
    model.load_weights(tmp_path / "w.safetensors")
    again = models.load_model(tmp_path / "m.safetensors")
    assert same_bits(model.get_weights(), again.get_weights())
    names = [name for name in seqcore._engine.read_safetensors(str(tmp_path / "m.safetensors"))[0] if "cells/2" in name]
    assert sorted(n for n in names if n.startswith("layers/")) == [
        f"layers/1/cell/cells/2/{w}" for w in ("bias", "kernel", "recurrent_kernel")]  # fmt: skip


def test_files_read_by_the_library(tmp_path):
    """Through the C interface, from another process: the steps of the stream that Python makes."""
    cells = [layers.LSTMCell(7), layers.StackedRNNCells([layers.GRUCell(5), layers.SimpleRNNCell(3)])]
    model = models.Sequential([layers.Input((None, 3)), layers.RNN(cells, return_sequences=True), layers.Dense(2)])
    model.save(tmp_path / "m.safetensors")
    x = rows(6, 3)
    library = os.path.join(seqcore._engine.library_folder(), "lib", "libseqcore.so")
    client = os.path.join(ROOT, "examples", "cpp_service", "ctypes_client.py")
    lines = "".join(" ".join(map(str, row)) + "\n" for row in x.tolist())
    done = subprocess.run(
        [sys.executable, client, library, tmp_path / "m.safetensors"],
        input=lines, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    steps = [[float.fromhex(word) for word in line.split()] for line in done.stdout.splitlines()]
    assert same_bits(np.float32(steps), model.predict(x[None], verbose=0)[0])


# ------------------------------------------------------------------------------------------------------ what is refused


class Own(layers.Layer):
    state_size = output_size = 3

    def call(self, x, states):
        return x, states


class Derived(layers.GRUCell):
    pass


@pytest.mark.parametrize("cell", [Own(), [layers.GRUCell(3), Own()], Derived(3), layers.LSTM(3)], ids=repr)
def test_cells_of_ones_own(cell):
    with pytest.raises(ValueError, match=r"`cell` of RNN: expected SimpleRNNCell.*no automatic differentiation"):
        layers.RNN(cell)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.RNN(layers.Dense(3)), r"`cell` of RNN: expected SimpleRNNCell.*got <Dense[^.]*$"),
        (lambda: layers.RNN("LSTM"), "got 'LSTM'"),
        (lambda: layers.RNN([]), r"expected a list of cells, got \[\]"),
        (lambda: layers.RNN(spec("LSTM", units=3)), "got <LSTM"),
        (lambda: layers.StackedRNNCells(layers.GRUCell(3)), "`cells` of StackedRNNCells: expected a list of cells"),
        (lambda: layers.StackedRNNCells([layers.GRUCell(3), 4]), "got 4"),
        (lambda: layers.RNN([layers.GRUCell(3)] * 2), "one twice"),
        (lambda: layers.GRUCell(0), "`units` of GRUCell: expected a positive integer, got 0"),
        (lambda: layers.LSTMCell(3, dropout=1.5), "`dropout` of LSTMCell"),
        (lambda: layers.SimpleRNNCell(3, return_sequences=True), "SimpleRNNCell: unrecognized.*return_sequences"),
        (lambda: layers.SimpleRNNCell(3, recurrent_activation="tanh"), "unrecognized.*recurrent_activation"),
        (lambda: layers.RNN(layers.GRUCell(3), dropout=0.1), "RNN: unrecognized.*dropout"),
        (lambda: models.Sequential([layers.Input((2, 3)), layers.LSTMCell(3)]), "expected a layer, got a cell"),
        (lambda: layers.TimeDistributed(layers.GRUCell(3))(rows(2, 3, 4)), "expected a layer, got a cell"),
        (lambda: layers.Bidirectional(layers.GRUCell(3)), "expected SimpleRNN, LSTM, GRU or RNN"),
        (lambda: layers.RNN(layers.GRUCell(3))(rows(2, 3)), "expected 3 axes"),
        (lambda: layers.GRUCell(3)(rows(2, 3, 4), np.zeros((2, 3))), "expected 2 axes"),
        (lambda: layers.GRUCell(3)(rows(2, 3), np.zeros((2, 4))), "`states`.*expects 1 arrays of shapes"),
        (lambda: layers.LSTMCell(3)(rows(2, 3), np.zeros((2, 3))), "`states`.*expects 2 arrays of shapes"),
        (lambda: layers.LSTMCell(3)(rows(0, 3), [np.zeros((0, 3))] * 2), "at least one sample"),
        (lambda: layers.GRUCell(3).get_initial_state(0), "`batch_size`"),
    ],
)
def test_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_cell_in_two_layers():
    cell = layers.GRUCell(3)
    pair = [layers.RNN(cell, return_sequences=True), layers.RNN(cell)]
    model = models.Sequential([layers.Input((2, 3)), *pair])
    with pytest.raises(ValueError, match="twice"):
        model.build()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "RNN: cell must be a cell, got nothing"),
        ({"cell": 3}, "RNN: cell must be a cell, got 3"),
        ({"cell": spec("LSTM", units=3)}, "RNN: cell must be SimpleRNNCell.*got LSTM"),
        ({"cell": spec("RNN", cell=spec("GRUCell", units=3))}, "got RNN"),
        ({"cell": spec("StackedRNNCells", cells=[])}, "StackedRNNCells: cells must be a list of cells"),
        ({"cell": spec("StackedRNNCells", cells=[spec("Dense", units=2)])}, "got Dense"),
        ({"cell": spec("StackedRNNCells", cells=[spec("GRUCell", units=2)], x=1)}, "unknown key 'x'"),
        ({"cell": spec("GRUCell", units=3, return_sequences=True)}, "GRUCell: unknown key 'return_sequences'"),
        ({"cell": spec("GRUCell", units=3, activity_regularizer=spec("L2"))}, "unknown key 'activity_regularizer'"),
        ({"cell": spec("GRUCell", units=0)}, "GRUCell: units must be a positive integer"),
        ({"cell": spec("SimpleRNNCell", units=3, recurrent_activation="tanh")}, "unknown key"),
        ({"cell": spec("GRUCell", units=3), "units": 3}, "RNN: unknown key 'units'"),
    ],
    ids=str,
)
def test_refused_by_the_core(config, message):
    with pytest.raises(ValueError, match=message):
        _core.Model(json.dumps(chain((None, 2, 3), spec("RNN", **config))), 0)
