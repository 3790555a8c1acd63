"""`Sequential.export`: what is written, run by ONNX Runtime beside `predict`."""

import os
import resource
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import seqcore
from seqcore import __main__ as command
from seqcore import layers, models
from seqcore._onnx import _activations, _graph, _layers
from support import (
    TAME,
    Case,
    assert_close,
    chain,
    nudge,
    random_case,
    random_window_case,
    rng_pick,
    sequential,
    spec,
)

RNG = np.random.default_rng(0)


def exported(model, path, **arguments):
    """The file, checked, and a session that runs it."""
    model.export(path, format="onnx", verbose=False, **arguments)
    file = onnx.load(path)
    onnx.checker.check_model(file, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return file, onnxruntime.InferenceSession(file.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(session, x):
    (first,) = session.get_inputs()
    return session.run(None, {first.name: x})


def count(file, kind):
    return sum(node.op_type == kind for node in file.graph.node)


def randomized(model):
    variances = [w.name.endswith("moving_variance") for w in model.weights]
    model.set_weights([RNG.uniform(0.3, 1.7, w.shape) if variance else RNG.uniform(-0.7, 0.7, w.shape)
                       for w, variance in zip(model.weights, variances)])  # fmt: skip
    return model


def compare(model, path, x, rtol=2e-6, **arguments):
    """Exports the model and compares what the file gives for each of the arrays `x` with what `predict` gives."""
    file, session = exported(model, path, **arguments)
    for each in x:
        expected = model.predict(each, verbose=0)
        expected = expected if isinstance(expected, list) else [expected]
        actual = run(session, each)
        assert len(actual) == len(expected)
        for a, e in zip(actual, expected):
            assert a.dtype == np.float32
            assert_close(a, e, rtol=rtol, what=f"x of shape {each.shape}")
    return file


def opened(description):
    """The description for sequences of any length, where its layers can do with that."""
    if any(item["class_name"] == "Flatten" for item in description["layers"]):
        return description
    given = description["input"]
    return {**description, "input": {**given, "shape": [None, None, *given["shape"][2:]]}}


def known(item):
    """A layer with activations that ONNX's recurrent nodes know in place of those that they do not."""
    config = {k: known(v) if k in ("layer", "cell") else v for k, v in item["config"].items()}
    if "cells" in config:
        config["cells"] = [known(cell) for cell in config["cells"]]
    if "return_sequences" in config or item["class_name"].endswith("Cell"):
        for key, other in (("activation", "tanh"), ("recurrent_activation", "sigmoid")):
            if config.get(key, other) not in _activations._RECURRENT:
                config[key] = other
    return {**item, "config": config}


def drawn(seed):
    """A random model that ONNX can hold, for sequences of any length from its shortest on, and that."""
    pick = rng_pick(seed)
    windows = seed % 3 == 0
    case = random_window_case(pick) if windows else random_case(pick)
    items = [known(item) for item in case.description["layers"]]
    for _ in range(pick([0, 0, 1, 2])):
        norm = spec("BatchNormalization", center=pick([True, False]), scale=pick([True, False]), epsilon=0.01)
        items.insert(pick(range(1, len(items) + 1)), norm)
    case = Case({**case.description, "layers": items}, case.loss, len(case.x), seed)
    case.description = opened(case.description)
    return case, 7 if windows else 1


@pytest.mark.parametrize("seed", range(200))
def test_random_models(seed, tmp_path):
    """Embeddings, masks anywhere, every cell, stack, merge mode, direction and window, what may stand between and
    behind."""
    case, shortest = drawn(seed)
    model = sequential(seqcore, case.description)
    model.set_weights(case.weights)
    _, session = exported(model, tmp_path / "model.onnx")
    rng = np.random.default_rng(seed)
    shape = case.description["input"]["shape"]
    for batch, steps in ((1, shortest), (len(case.x), shortest + 3), (7, 13)):
        x = case.inputs((batch, shape[1] or steps, *shape[2:]), rng)
        (actual,) = run(session, x)
        expected = model.predict(x, verbose=0)
        # Where the problem itself is sensitive, by how much a few roundings of the weights move it.
        moved = sequential(seqcore, case.description)
        moved.set_weights(nudge(case.weights))
        assert_close(actual, expected, moved.predict(x, verbose=0), rtol=5e-6, what=f"{case!r} x{x.shape}")


SEQ = {"return_sequences": True}
STACK = spec("StackedRNNCells", cells=[
    spec("GRUCell", units=5, reset_after=False), spec("LSTMCell", units=3, use_bias=False, activation="relu"),
    spec("StackedRNNCells", cells=[spec("SimpleRNNCell", units=4)]),
])  # fmt: skip
MIXED = {
    "layer": spec("GRU", units=3, **SEQ),
    "backward_layer": spec("LSTM", units=5, go_backwards=True, activation="relu", **SEQ),
}
BACK_FIRST = {
    "layer": spec("LSTM", units=3, go_backwards=True, **SEQ),
    "backward_layer": spec("LSTM", units=3, **SEQ),
}
EVERY_LAYER = {
    "pooling": chain((None, None, 4), spec("Masking"), spec("Dropout", rate=0.5), spec("GlobalAveragePooling1D")),
    "pooling, kept": chain((None, None, 4), spec("Masking", mask_value=0.5), spec("LSTM", units=3, **SEQ),
                           spec("GlobalAveragePooling1D", keepdims=True), spec("Flatten")),
    "pooling of all": chain((None, None, 4), spec("GlobalAveragePooling1D", keepdims=True), spec("GRU", units=2)),
    "largest": chain((None, None, 4), spec("Masking"), spec("GlobalMaxPooling1D")),
    "largest, kept": chain((None, None, 4), spec("GlobalMaxPooling1D", keepdims=True)),
    "pooled ids": chain((None, None), spec("Embedding", input_dim=5, output_dim=3, mask_zero=True),
                        spec("SpatialDropout1D", rate=0.3), spec("GaussianNoise", stddev=0.3),
                        spec("TimeDistributed", layer=spec("GaussianDropout", rate=0.3)),
                        spec("AlphaDropout", rate=0.3), spec("ActivityRegularization", l1=0.1),
                        spec("GlobalAveragePooling1D"), dtype="int32"),
    "repeat": chain((None, None, 4), spec("LSTM", units=3), spec("RepeatVector", n=6), spec("LSTM", units=3, **SEQ),
                    spec("TimeDistributed", layer=spec("Dense", units=2))),
    "reshape": chain((None, 6, 2), spec("Reshape", target_shape=(4, -1)), spec("SimpleRNN", units=3, **SEQ),
                     spec("Permute", dims=(2, 1)), spec("GRU", units=2)),
    "steps are split": chain((None, None, 6), spec("Reshape", target_shape=(-1, 3, 2)),
                             spec("TimeDistributed", layer=spec("LSTM", units=4)), spec("LSTM", units=2)),
    "other steps": chain((None, None, 6), spec("LSTM", units=6, **SEQ), spec("Reshape", target_shape=(-1, 2)),
                         spec("GRU", units=3, **SEQ), spec("Reshape", target_shape=(-1, 1, 3)),
                         spec("TimeDistributed", layer=spec("Flatten")), spec("Dense", units=2)),
    "softmax over steps": chain((None, None, 4), spec("LSTM", units=6, **SEQ), spec("Softmax", axis=1),
                                spec("TimeDistributed", layer=spec("Softmax", axis=1)), spec("GRU", units=3)),
    "softmax over masked steps": chain((None, None, 4), spec("Masking"), spec("Softmax", axis=-2),
                                       spec("LSTM", units=3, **SEQ)),
    "softmax over steps inside": chain((None, None, 4, 3), spec("Softmax", axis=1),
                                       spec("TimeDistributed", layer=spec("Softmax", axis=1))),
    "permuted": chain((None, 5, 3), spec("Permute", dims=(2, 1)), spec("Activation", activation="softmax")),
    "rectified": chain((None, None, 4), spec("Masking"), spec("ReLU"), spec("ReLU", max_value=0.5, negative_slope=0.1),
                       spec("TimeDistributed", layer=spec("ReLU", threshold=0.25)), spec("LSTM", units=3, **SEQ),
                       spec("ReLU", max_value=0.5), spec("LeakyReLU"), spec("ReLU", negative_slope=2),
                       spec("ELU", alpha=0.5), spec("Identity"), spec("TimeDistributed", layer=spec("Identity")),
                       spec("Softmax")),
    "flat": chain((None, 5, 3), spec("Masking"), spec("SimpleRNN", units=3, **SEQ), spec("Flatten")),
    "dense of any rank": chain((None, None, 4, 2), spec("Dense", units=3, activation="gelu"),
                               spec("LayerNormalization"),
                               spec("TimeDistributed", layer=spec("GlobalAveragePooling1D"))),
    "vectors": chain((None, 5), spec("Dense", units=3, activation="softmax"), spec("LayerNormalization", scale=False)),
    "time inside": chain((None, None, 4, 3), spec("TimeDistributed", layer=spec("Flatten")), spec("GRU", units=3)),
    "time inside time": chain((None, None, 4, 3), spec("TimeDistributed", layer=spec("Permute", dims=(2, 1)))),
    "masks inside end": chain((None, None, 4, 3), spec("TimeDistributed", layer=spec("Masking")),
                              spec("TimeDistributed", layer=spec("SimpleRNN", units=2)), spec("LSTM", units=2)),
    "ids inside": chain((None, None, 1), spec("TimeDistributed", layer=spec("Embedding", input_dim=5, output_dim=3)),
                        spec("TimeDistributed", layer=spec("LSTM", units=2)), dtype="int32"),
    "masked, then by step": chain((None, None, 4), spec("Masking"), spec("TimeDistributed", layer=spec("Reshape",
                                  target_shape=(2, 2))), spec("TimeDistributed", layer=spec("Flatten")),
                                  spec("LSTM", units=3)),
    "different directions": chain((None, None, 4), spec("Masking"), spec("Bidirectional", **MIXED)),
    "backwards first": chain((None, None, 4), spec("Masking"), spec("Bidirectional", merge_mode="mul", **BACK_FIRST)),
    "backwards first, all": chain((None, None, 4), spec("Bidirectional", merge_mode="ave", **BACK_FIRST)),
    "masks after flips": chain((None, None, 4), spec("Masking"), spec("GRU", units=3, go_backwards=True, **SEQ),
                               spec("LSTM", units=3, zero_output_for_mask=True, go_backwards=True, **SEQ),
                               spec("SimpleRNN", units=2, zero_output_for_mask=True, go_backwards=True)),
    "anew": chain((None, None, 4), spec("Masking"), spec("Dense", units=3, activation="relu"), spec("Masking"),
                  spec("LSTM", units=2)),
    "states": chain((None, None, 4), spec("Masking"), spec("LSTM", units=3, return_state=True, **SEQ)),
    "both and states": chain((None, None, 4), spec("Masking"), spec("Bidirectional", merge_mode=None,
                             layer=spec("LSTM", units=3, return_state=True))),
    "both": chain((None, None, 4), spec("Bidirectional", merge_mode=None, layer=spec("GRU", units=3, **SEQ))),
    "a stack and states": chain((None, None, 4), spec("Masking"), spec("RNN", cell=STACK, return_state=True, **SEQ)),
    "a stack backwards": chain((None, None, 4), spec("RNN", cell=STACK, go_backwards=True, return_state=True, **SEQ)),
    "stacks backwards": chain((None, None, 4), spec("Masking"), spec("RNN", cell=STACK, go_backwards=True, **SEQ),
                              spec("RNN", cell=STACK, go_backwards=True, zero_output_for_mask=True)),
    "both stacks and states": chain((None, None, 4), spec("Masking"), spec("Bidirectional", merge_mode=None,
                                    layer=spec("RNN", cell=STACK, return_state=True, **SEQ))),
    "a stack and a layer": chain((None, None, 4), spec("Bidirectional", layer=spec("RNN", cell=STACK, **SEQ),
                                 backward_layer=spec("LSTM", units=4, go_backwards=True, **SEQ), merge_mode="sum")),
    "stacks inside": chain((None, None, 4, 3), spec("TimeDistributed", layer=spec("RNN", cell=STACK)),
                           spec("RNN", cell=spec("GRUCell", units=2))),
    "normalized": chain((None, None, 4), spec("Masking"), spec("BatchNormalization", scale=False),
                        spec("GRU", units=3), spec("BatchNormalization", center=False)),
    "normalized, any rank": chain((None, None, 4, 2), spec("BatchNormalization"),
                                  spec("TimeDistributed", layer=spec("BatchNormalization")),
                                  spec("TimeDistributed", layer=spec("LSTM", units=2))),
    "normalized by step": chain((None, None, 4), spec("Masking"),
                                spec("TimeDistributed", layer=spec("BatchNormalization")), spec("LSTM", units=2)),
    "windows": chain((None, None, 4), spec("Masking"),
                     spec("Conv1D", filters=6, kernel_size=3, padding="causal", activation="softmax", groups=2),
                     spec("MaxPooling1D", padding="same"), spec("AveragePooling1D", strides=3, padding="same"),
                     spec("LSTM", units=3, return_sequences=True)),
    "windows inside": chain((None, None, 9, 3), spec("TimeDistributed", layer=spec("Conv1D", filters=5, kernel_size=2)),
                            spec("TimeDistributed", layer=spec("MaxPooling1D", padding="same", strides=3)),
                            spec("TimeDistributed", layer=spec("AveragePooling1D")),
                            spec("TimeDistributed", layer=spec("GlobalMaxPooling1D")), spec("GRU", units=3)),
    "masked windows inside": chain((None, None, 4), spec("Masking"), spec("TimeDistributed", layer=spec("Reshape",
                                   target_shape=(2, 2))), spec("TimeDistributed", layer=spec("MaxPooling1D")),
                                   spec("TimeDistributed", layer=spec("Flatten")), spec("LSTM", units=3)),
}  # fmt: skip


def data(model, shape):
    if model.inputs[0].dtype == "int32":
        return RNG.integers(0, 5, shape).astype(np.int32)
    x = RNG.normal(size=shape).astype(np.float32)
    value = getattr(model.layers[0], "mask_value", 0.0)
    if len(shape) == 4:  # what masks inside
        x[RNG.random(shape[:3]) < 0.3] = value
    x[RNG.random(shape[:2]) < 0.4] = value
    return x


@pytest.mark.parametrize("name", EVERY_LAYER)
def test_every_layer(name, tmp_path):
    description = EVERY_LAYER[name]
    model = randomized(sequential(seqcore, description))
    shape = description["input"]["shape"][1:]
    sizes = [(batch, *(n or steps for n in shape)) for batch, steps in ((1, 1), (5, 9), (17, 3))]
    file = compare(model, tmp_path / "model.onnx", [data(model, size) for size in sizes])
    got = [d.dim_value or d.dim_param or None for d in file.graph.output[0].type.tensor_type.shape.dim]
    assert [n if isinstance(n, int) else None for n in got] == list(model.output_shape)
    assert got[0] == "batch"


@pytest.mark.parametrize("name", ["flat", "permuted", "time inside time", "dense of any rank", "masks inside end",
                                  "normalized, any rank", "windows inside"])  # fmt: skip
def test_more_axes_than_predict_leaves_open(name, tmp_path):
    description = EVERY_LAYER[name]
    model = randomized(sequential(seqcore, description))
    *_, features = shape = model.input_shape
    _, session = exported(model, tmp_path / "model.onnx", input_signature=(*[None] * (len(shape) - 1), features))
    assert session.get_inputs()[0].shape == [*["batch", "time", "axis_2"][: len(shape) - 1], features]
    size = (3, 7, 6, features) if len(shape) == 4 else (3, 7, *shape[2:])
    other = models.Sequential([layers.Input(size[1:]), *model.layers])
    x = data(model, size)
    assert_close(run(session, x)[0], other.predict(x, verbose=0), rtol=2e-6)


@pytest.mark.parametrize("steps", [None, 14])
@pytest.mark.parametrize("padding", ["valid", "same", "causal"])
def test_windows(padding, steps, tmp_path):
    """Windows apart and on each other, of any length of time: also shorter ones than they are."""
    shapes = [(1, 1, 1), (1, 3, 1), (2, 1, 9), (4, 3, 1), (2, 5, 1), (3, 7, 1), (6, 5, 1), (5, 1, 3)]
    for size, stride, dilation in shapes:
        made = [layers.Conv1D(6, size, stride, padding, dilation_rate=dilation, groups=2)]
        if padding != "causal":
            made += [kind(size, stride, padding) for kind in (layers.MaxPooling1D, layers.AveragePooling1D)]
        shortest = (size - 1) * dilation + 1 if padding == "valid" else 1
        lengths = range(shortest, shortest + stride + 2) if steps is None else [steps]
        for layer in made:
            model = randomized(models.Sequential([layers.Input((steps, 4)), layer, layers.Conv1D(3, 1)]))
            x = [RNG.normal(size=(batch, n, 4)).astype(np.float32) for batch, n in zip(range(1, 99), lengths)]
            file = compare(model, tmp_path / "model.onnx", x)
            shape = file.graph.output[0].type.tensor_type.shape.dim
            # The steps are not the input's any more.
            assert (shape[0].dim_param, shape[1].dim_param, shape[1].dim_value or None, shape[2].dim_value) == (
                "batch", "", model.output_shape[1], 3
            )  # fmt: skip


MASKS = {
    "right": [[1, 1, 1, 1, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]],
    "left": [[0, 0, 1, 1, 1], [0, 0, 0, 0, 1], [0, 1, 1, 1, 1]],
    "holes": [[1, 0, 1, 0, 1], [0, 1, 0, 0, 0], [0, 1, 1, 0, 1]],
    "nothing": [[0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]],
    "one of nothing": [[0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 1, 0, 0]],
}


def stack(units, **over):
    return layers.RNN([layers.LSTMCell(3), layers.GRUCell(5), layers.SimpleRNNCell(units)], **over)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("cell", [layers.SimpleRNN, layers.LSTM, layers.GRU, stack])
def test_masks(mask, cell, tmp_path):
    x = np.where(MASKS[mask], RNG.integers(1, 9, (3, 5)), 0).astype(np.int32)
    for sequences in (False, True):
        for layer in (
            cell(4, return_sequences=sequences),
            cell(4, return_sequences=sequences, go_backwards=True),
            cell(4, return_sequences=sequences, zero_output_for_mask=True),
            layers.Bidirectional(cell(4, return_sequences=sequences)),
        ):
            embedding = layers.Embedding(9, 3, mask_zero=True)
            model = randomized(models.Sequential([layers.Input((None,), dtype="int32"), embedding, layer]))
            file = compare(model, tmp_path / "model.onnx", [x, np.tile(x, (2, 3))])
            nodes = [n for n in file.graph.node if n.op_type in ("RNN", "LSTM", "GRU")]
            # Nothing rests on `sequence_lens`, which not all programs heed.
            assert nodes and all(len(n.input) == 4 for n in nodes)


def test_recurrent_nodes(tmp_path):
    """One node a cell, of no unrolled steps; Bidirectional's halves are one node where it can hold them."""
    for kind, cell, inner in (("LSTM", layers.LSTM, layers.LSTMCell), ("GRU", layers.GRU, layers.GRUCell),
                              ("RNN", layers.SimpleRNN, layers.SimpleRNNCell)):  # fmt: skip
        for layer, nodes in (
            (cell(3), 1),
            (layers.Bidirectional(cell(3)), 1),
            (layers.Bidirectional(cell(3, activation="relu"), backward_layer=cell(3, go_backwards=True)), 1),
            (layers.Bidirectional(cell(3), backward_layer=cell(4, go_backwards=True, use_bias=False)), 2),
            (layers.Bidirectional(cell(3, go_backwards=True), backward_layer=cell(3)), 2),
            (layers.RNN([inner(3), inner(4)]), 2),
            (layers.Bidirectional(layers.RNN(inner(3))), 1),
            (layers.Bidirectional(layers.RNN([inner(3), inner(3)])), 4),
        ):
            model = randomized(models.Sequential([layers.Input((None, 2)), layer]))
            file = compare(model, tmp_path / "model.onnx", [RNG.normal(size=(4, 9, 2)).astype(np.float32)])
            assert count(file, kind) == nodes and count(file, "MatMul") == count(file, "Loop") == 0
    forms = layers.Bidirectional(layers.GRU(3), backward_layer=layers.GRU(3, go_backwards=True, reset_after=False))
    model = randomized(models.Sequential([layers.Input((None, 2)), forms]))
    assert count(compare(model, tmp_path / "model.onnx", [np.ones((2, 3, 2), np.float32)]), "GRU") == 2


@pytest.mark.parametrize("name", [*seqcore._engine.activation_names(), "celu"])
def test_activations(name, tmp_path):
    x = np.concatenate([RNG.normal(size=(40, 7)) * 4, [[-80, -6, -3, -0.5, 0, 0.5, 3]]]).astype(np.float32)
    for layer in (layers.Activation(name), layers.Dense(7, activation=name, kernel_initializer=np.eye(7))):
        compare(models.Sequential([layers.Input((7,)), layer]), tmp_path / "model.onnx", [x])


@pytest.mark.parametrize("name", [*TAME, "celu"])
def test_activations_of_recurrent_layers(name, tmp_path):
    for cell in (layers.LSTM, layers.GRU, layers.SimpleRNN):
        gates = {} if cell is layers.SimpleRNN else {"recurrent_activation": name}
        for given in ({"activation": name}, gates, {"activation": name, **gates}):
            inside = cell(3, name="inside", **given)
            model = randomized(models.Sequential([layers.Input((None, 2)), layers.Bidirectional(inside)]))
            if given and name not in _activations._RECURRENT:
                with pytest.raises(ValueError, match=f"layer \"forward_inside\": .* activation '{name}'"):
                    model.export(tmp_path / "model.onnx", "onnx")
            else:
                compare(model, tmp_path / "model.onnx", [RNG.normal(size=(3, 4, 2)).astype(np.float32)], rtol=1e-5)
    assert not set(_activations._RECURRENT) - {*TAME, "celu"}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("wrap", [lambda layer: layer, layers.Bidirectional])
@pytest.mark.parametrize("stacked", [False, True])
def test_states_are_inputs_and_outputs(masked, wrap, stacked, tmp_path):
    """A stateful model gives in the file what predict gives for one batch after the other."""
    first = {"stateful": True, "return_sequences": True, "name": "first"}
    model = models.Sequential([
        layers.Input(batch_shape=(3, None, 2)), layers.Masking(9.0 if not masked else 0.0),
        wrap(layers.RNN([layers.LSTMCell(4), layers.GRUCell(5)], **first) if stacked else layers.LSTM(4, **first)),
        wrap(layers.GRU(5, stateful=True, name="second")), layers.Dense(2, name="head"),
    ])  # fmt: skip
    _, session = exported(randomized(model), tmp_path / "model.onnx")
    first, *given = (i.name for i in session.get_inputs())
    output, *kept = (o.name for o in session.get_outputs())
    sides = ["forward_", "backward_"] if wrap is layers.Bidirectional else [""]
    states = ["0_h", "0_c", "1_h"] if stacked else ["h", "c"]
    expected = [*(f"{s}first_{state}" for s in sides for state in states), *(f"{s}second_h" for s in sides)]
    assert given == expected and kept == [f"{name}_next" for name in expected] and output == "head"
    shapes = {i.name: i.shape for i in session.get_inputs()}
    assert shapes[first] == [3, "time", 2] and all(
        shapes[n] == [3, 5 if "second" in n or "1_h" in n else 4] for n in given
    )
    states = {n: np.zeros(shapes[n], np.float32) for n in given}
    for steps in (4, 1, 7, 2):
        x = RNG.normal(size=(3, steps, 2)).astype(np.float32)
        if masked:
            x[RNG.random((3, steps)) < 0.5] = 0
            x[1] = 0
        y, *new = session.run(None, {first: x, **states})
        assert_close(y, model.predict(x, verbose=0, batch_size=3), rtol=2e-6)
        states = dict(zip(given, new))


def test_names_shapes_and_metadata(tmp_path):
    model = models.Sequential(
        [
            layers.Input((None,), name="ids", dtype="int32"),
            layers.Embedding(7, 3),
            layers.LSTM(4, return_sequences=True),
            layers.Dropout(0.1, name="words"),
        ],
        name="tagger",
    )
    file, session = exported(model, tmp_path / "model.onnx")
    assert (file.producer_name, file.producer_version) == ("seqcore", seqcore.__version__)
    assert [(o.domain, o.version) for o in file.opset_import] == [("", 17)] and file.ir_version == 8
    assert file.graph.name == "tagger" and not file.functions and not file.metadata_props
    (given,), (made,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.shape, given.type) == ("ids", ["batch", "time"], "tensor(int32)")
    assert (made.name, made.shape, made.type) == ("words", ["batch", "time", 4], "tensor(float)")
    stored = {i.name: onnx.numpy_helper.to_array(i) for i in file.graph.initializer}
    assert np.array_equal(stored[f"{model.layers[0].name}/embeddings"], model.get_weights()[0])
    same = models.Sequential([layers.Input((3,), name="x"), layers.Dense(2, name="x")])
    _, session = exported(same, tmp_path / "model.onnx")
    assert [n.name for n in (*session.get_inputs(), *session.get_outputs())] == ["x", "x_1"]
    several = models.Sequential([layers.Input((4, 3)), layers.LSTM(2, return_state=True, name="last")])
    _, session = exported(several, tmp_path / "model.onnx")
    assert [(n.name, n.shape) for n in session.get_outputs()] == [(f"last_{i}", ["batch", 2]) for i in range(3)]


def test_what_nothing_needs_is_left_out(tmp_path):
    """Masks that end before anything looks at them, and outputs of all steps."""
    model = models.Sequential([layers.Input((5,), dtype="int32"), layers.Embedding(7, 3, mask_zero=True),
                               layers.Flatten(), layers.Dense(1)])  # fmt: skip
    file, _ = exported(model, tmp_path / "model.onnx")
    assert [n.op_type for n in file.graph.node] == ["Gather", "Flatten", "MatMul", "Add", "Identity"]
    file, _ = exported(models.Sequential([layers.Input((5, 2)), layers.LSTM(3)]), tmp_path / "model.onnx")
    assert [n.op_type for n in file.graph.node] == ["Transpose", "LSTM", "Squeeze", "Identity"]


@pytest.mark.parametrize(
    "signature", [(None, None, 2), [(None, None, 2)], [layers.Input((None, 2))], layers.Input(batch_shape=(4, None, 2)),
                  np.zeros((4, 10, 2)), [[4, 10, 2]]],
    ids=str,
)  # fmt: skip
def test_input_signature(signature, tmp_path):
    """Axes of the model's input opened or fixed: windows of ten steps become sequences of any length."""
    model = randomized(models.Sequential([layers.Input((10, 2)), layers.LSTM(3), layers.Dense(1)]))
    _, session = exported(model, tmp_path / "model.onnx", input_signature=signature)
    shape = session.get_inputs()[0].shape
    fixed = signature[0] if isinstance(signature, list) else signature
    asked = list(getattr(fixed, "batch_shape", None) or getattr(fixed, "shape", fixed))
    assert shape == [n or name for n, name in zip(asked, ("batch", "time", ""))]
    x = RNG.normal(size=(4, 10 if shape[1] == 10 else 17, 2)).astype(np.float32)
    free = models.Sequential([layers.Input((None, 2)), *model.layers])
    assert_close(run(session, x)[0], free.predict(x, verbose=0), rtol=2e-6)


def test_what_cannot_be_exported(tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"before")
    model = models.Sequential([layers.Input((4, 2)), layers.LSTM(3, name="cell"), layers.Dense(1)])
    for arguments, error, message in (
        ({"format": "tf_saved_model"}, ValueError, "`format`: expected \"onnx\", .* got 'tf_saved_model'"),
        ({"format": None}, ValueError, "`format`"),
        ({"opset_version": 18}, TypeError, r"unrecognized keyword arguments \['opset_version'\]"),
        ({"input_signature": (None, 4, 3)}, ValueError, r"`input_signature`: expected the model's input shape"),
        ({"input_signature": (None, 5, 2)}, ValueError, "`input_signature`"),
        ({"input_signature": [(None, 2)]}, ValueError, "`input_signature`"),
        ({"input_signature": "nonsense"}, ValueError, "`input_signature`: expected a tuple"),
        ({"input_signature": (None, None, None)}, ValueError, 'layer "cell": expected a known last axis'),
    ):
        with pytest.raises(error, match=message):
            model.export(path, **arguments)
    flat = models.Sequential([layers.Input((4, 2)), layers.Flatten(), layers.Dense(1, name="flat_head")])
    with pytest.raises(ValueError, match='layer "flat_head": expected a known last axis'):
        flat.export(path, input_signature=(None, None, 2))
    with pytest.raises(ValueError, match="no weights yet"):
        models.Sequential([layers.LSTM(3)]).export(path)
    with pytest.raises(TypeError, match="`filepath`"):
        model.export(b"model.onnx")
    with pytest.raises(ValueError, match="null characters"):
        model.export("model\0.onnx")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        model.export(tmp_path / "nowhere" / "model.onnx")
    monkeypatch.setattr(_graph, "LARGEST_FILE", 4 * model.count_params())
    with pytest.raises(ValueError, match=r"the model's weights take .* bytes: an ONNX file"):
        model.export(path)
    monkeypatch.undo()
    monkeypatch.delitem(_layers._HANDLERS, layers.LSTM)
    with pytest.raises(ValueError, match='layer "cell": LSTM is not exported to ONNX'):
        model.export(path)
    assert path.read_bytes() == b"before" and os.listdir(tmp_path) == ["model.onnx"]


def test_without_onnx(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    model = models.Sequential([layers.Input((4, 2)), layers.LSTM(3)])
    with pytest.raises(ImportError, match=r"pip install 'seqcore\[onnx\]'"):
        model.export(tmp_path / "model.onnx")


def test_the_file_is_written_whole_as_any_other(tmp_path, capsys):
    model = models.Sequential([layers.Input((4, 2)), layers.LSTM(3)])
    path = tmp_path / "model.onnx"
    model.export(path)
    assert capsys.readouterr().out == f"Saved artifact at '{path}'.\n"
    (tmp_path / "other").write_bytes(b"")
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode
    before = path.read_bytes()

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            model.export(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(os.listdir(tmp_path)) == ["model.onnx", "other"] and path.read_bytes() == before


def test_command(capsys, tmp_path):
    model = randomized(models.Sequential([layers.Input((None, 3)), layers.LSTM(4), layers.Dense(2)]))
    model.compile("adam", "mse")
    model.save(tmp_path / "model.safetensors")
    assert command.main(["export", str(tmp_path / "model.safetensors"), str(tmp_path / "model.onnx")]) == 0
    assert capsys.readouterr() == ("", "")
    x = RNG.normal(size=(3, 6, 3)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    assert_close(run(session, x)[0], model.predict(x, verbose=0), rtol=2e-6)
    assert command.main(["export", "nothing.safetensors", str(tmp_path / "other.onnx")]) == 1
    assert "nothing.safetensors" in capsys.readouterr().err and not Path(tmp_path, "other.onnx").exists()
