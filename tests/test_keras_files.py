"""Keras's files: written here as Keras documents them, read by seqcore; and written by seqcore. Real Keras's are in
test_keras.py, and real Keras reads ours in test_keras_saving.py."""

import io
import json
import os
import resource
import sys
import zipfile

import h5py
import numpy as np
import pytest

import seqcore
from seqcore import callbacks, layers, metrics, models, optimizers
from support import chain, random_case, rng_pick, sequential, spec

RNG = np.random.default_rng(0)
POLICY = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float32"}, "registered_name": None}
LSTM, DENSE = spec("LSTM", units=4, return_sequences=True), spec("Dense", units=3, activation="tanh")
EVERY_LAYER = {
    "ids": chain(
        (None, 5), spec("Embedding", input_dim=7, output_dim=3, mask_zero=True), spec("Dropout", rate=0.2), LSTM,
        spec("Bidirectional", layer=LSTM, merge_mode="sum"), LSTM, spec("TimeDistributed", layer=DENSE),
        spec("LayerNormalization", center=False), spec("BatchNormalization"), spec("BatchNormalization", scale=False),
        spec("TimeDistributed", layer=spec("BatchNormalization")), spec("Bidirectional", layer=spec("GRU", units=2)),
        DENSE, DENSE,
        dtype="int32",
    ),
    "numbers": chain(
        (None, 4, 2), spec("Masking", mask_value=0.5), spec("GRU", units=3, reset_after=False, return_sequences=True),
        spec("GRU", units=3, return_sequences=True), spec("SimpleRNN", units=2, use_bias=False, return_sequences=True),
        spec("LayerNormalization"), spec("TimeDistributed", layer=spec("Dense", units=2, use_bias=False)),
        spec("Activation", activation="relu"), spec("ReLU", max_value=2.0, negative_slope=0.1, threshold=0.2),
        spec("LeakyReLU"), spec("ELU", alpha=0.5), spec("GaussianNoise", stddev=0.1), spec("GaussianDropout", rate=0.1),
        spec("AlphaDropout", rate=0.1), spec("ActivityRegularization", l1=0.1), spec("Identity"),
        spec("Flatten"), spec("Softmax"), DENSE,
    ),
    "inside": chain((3, 6, 4, 2), spec("TimeDistributed", layer=spec("Bidirectional", layer=spec("LSTM", units=2)))),
    "cells": chain(
        (None, 4, 2), spec("RNN", cell=spec("LSTMCell", units=3), return_sequences=True),
        spec("RNN", cell=spec("StackedRNNCells", cells=[
            spec("LSTMCell", units=2), spec("GRUCell", units=3), spec("LSTMCell", units=3, use_bias=False),
            spec("StackedRNNCells", cells=[spec("SimpleRNNCell", units=3), spec("GRUCell", units=2)]),
            spec("GRUCell", units=2, reset_after=False),
        ]), return_sequences=True),
        spec("Bidirectional", layer=spec("RNN", cell=spec("GRUCell", units=2))), DENSE,
    ),
    "stateful": chain(
        (3, 4, 2), spec("LSTM", units=3, stateful=True, return_sequences=True),
        spec("RNN", cell=spec("StackedRNNCells", cells=[spec("GRUCell", units=3)]), stateful=True), DENSE,
    ),
}  # fmt: skip


def built(description):
    model = sequential(seqcore, description)
    model.set_weights([RNG.uniform(0 if v.statistic else -1, 1, v.shape) for v in model.weights])
    return model


def data(model):
    shape = [n or 3 for n in model.input_shape]
    if isinstance(model.layers[0], layers.Embedding):
        return RNG.integers(0, model.layers[0].input_dim, shape)
    return RNG.normal(size=shape).astype(np.float32)


# -------------------------------------------------------------------------------------------- files, as Keras has them


def dressed(value):
    """A config in the words of Keras 3: a module and a policy everywhere, and what else comes and goes."""
    if isinstance(value, list):
        return [dressed(v) for v in value]
    if not isinstance(value, dict):
        return value
    value = {k: POLICY if k == "dtype" and "batch_shape" not in value else dressed(v) for k, v in value.items()}
    if "class_name" in value:
        value |= {"module": "keras.layers", "registered_name": None, "build_config": {"input_shape": [None]}}
        value["config"] = {**value["config"], "quantization_config": None, "something_new": False}
    return value


def undressed(value):
    """A config in the words of Keras 2."""
    if isinstance(value, list):
        return [undressed(v) for v in value]
    if not isinstance(value, dict):
        return value
    value = {"batch_input_shape" if k == "batch_shape" else k: undressed(v) for k, v in value.items()}
    if "units" in value and "return_sequences" in value:
        value |= {"time_major": False, "implementation": 2}
    if value.get("class_name") in ("Zeros", "Orthogonal"):
        value["config"]["dtype"] = "float32"
    return value


def parts(layer, at):
    """(path, arrays) of the layer's groups."""
    if isinstance(layer, layers.Bidirectional):
        n = len(layer.forward_layer.weights)
        cells = layer.get_weights()
        return [(f"{at}/forward_layer/cell", cells[:n]), (f"{at}/backward_layer/cell", cells[n:])]
    if isinstance(layer, layers.TimeDistributed):
        return parts(layer.layer, f"{at}/layer")
    if isinstance(layer, layers.RNN):
        return parts(layer.cell, f"{at}/cell")
    if isinstance(layer, layers.StackedRNNCells):
        names = counted(layer.cells)
        return [part for cell, name in zip(layer.cells, names) for part in parts(cell, f"{at}/cells/{name}")]
    cell = "/cell" if isinstance(layer, (layers.LSTM, layers.GRU, layers.SimpleRNN)) else ""
    return [(f"{at}{cell}", layer.get_weights())]


NAMES = {
    "LSTM": "lstm", "GRU": "gru", "SimpleRNN": "simple_rnn", "TimeDistributed": "time_distributed",
    "LayerNormalization": "layer_normalization", "SimpleRNNCell": "simple_rnn_cell", "LSTMCell": "lstm_cell",
    "GRUCell": "gru_cell", "StackedRNNCells": "stacked_rnn_cells",
    "BatchNormalization": "batch_normalization", "ReLU": "re_lu", "LeakyReLU": "leaky_re_lu",
    "GaussianNoise": "gaussian_noise", "GaussianDropout": "gaussian_dropout", "AlphaDropout": "alpha_dropout",
    "ActivityRegularization": "activity_regularization",
}  # fmt: skip


def counted(items, step=1):
    used = {}
    for item in items:
        name = NAMES.get(type(item).__name__, type(item).__name__.lower())
        n = used[name] = used.get(name, -step) + step
        yield f"{name}_{n}" if n else name


def tree(file, model, root="layers", optimizer=(), step=1):
    for layer, name in zip(model.layers, counted(model.layers, step)):
        at = f"{root}/{name}"
        file.create_group(f"{at}/vars").attrs["name"] = layer.name
        for path, arrays in parts(layer, at):
            for i, array in enumerate(arrays):
                file[f"{path}/vars/{i}"] = array
    file.create_group(f"{root}/dropout/seed_generator/vars")["0"] = np.zeros(2, np.uint32)
    for i, value in enumerate(optimizer):
        file[f"optimizer/vars/{i}"] = value


def hdf5(path, write, *given, **more):
    with h5py.File(path, "w") as file:
        write(file, *given, **more)


def config_of(model):
    return {"module": "keras", "class_name": "Sequential", "registered_name": None,
            "config": {**dressed(model.get_config()), "build_input_shape": list(model.input_shape)}}  # fmt: skip


def keras_file(path, description, write, *given, version="3.15.1", **more):
    weights = io.BytesIO()
    hdf5(weights, write, *given, **more)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": version, "date_saved": "2024-01-01@00:00:00"}))
        archive.writestr("config.json", description if isinstance(description, str) else json.dumps(description))
        archive.writestr("model.weights.h5", weights.getvalue())


def legacy_weights(group, model, suffix="", chunks=False, as_bytes=False):
    def listed(at, name, values):
        values = [v.encode() for v in values] if as_bytes else values
        if chunks and len(values) > 1:
            at.attrs[f"{name}0"], at.attrs[f"{name}1"] = values[:1], values[1:]
        else:
            at.attrs[name] = values

    listed(group, "layer_names", [layer.name for layer in model.layers])
    for layer in model.layers:
        inner = group.create_group(layer.name)
        names = []
        for i, array in enumerate(layer.get_weights()):
            names.append(f"{layer.name}/cell_{i}/kernel{suffix}")
            inner[names[-1]] = array
        listed(inner, "weight_names", names)


def legacy(file, model, training=None, optimizer=(), config=None, version="3.15.1", **more):
    description = {"class_name": "Sequential", "config": config or model.get_config()}
    file.attrs["keras_version"], file.attrs["backend"] = version, "tensorflow"
    file.attrs["model_config"] = json.dumps(description)
    if training:
        file.attrs["training_config"] = json.dumps(training)
        group = file.create_group("optimizer_weights")
        group.attrs["weight_names"] = [name for name, _ in optimizer]
        for name, value in optimizer:
            group[name] = value
    legacy_weights(file.create_group("model_weights"), model, **more)


def same(model, other):
    assert [type(layer) for layer in model.layers] == [type(layer) for layer in other.layers]
    x = data(model)
    for m in (model, other):
        m.reset_states()
    results = [m.predict(x, verbose=0, batch_size=len(x)) for m in (model, other)]
    assert np.array_equal(*results)


# ------------------------------------------------------------------------------------------------------ models, weights


@pytest.mark.parametrize("name", EVERY_LAYER)
def test_keras_3(tmp_path, name):
    model = built(EVERY_LAYER[name])
    keras_file(tmp_path / "m.keras", config_of(model), tree, model)
    loaded = models.load_model(tmp_path / "m.keras")
    same(model, loaded)
    assert not loaded.compiled and loaded.name == model.name
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in model.layers]
    assert loaded.input_shape[0] == (3 if name == "stateful" else None)


@pytest.mark.parametrize("seed", range(20))
def test_random_models(tmp_path, seed):
    case = random_case(rng_pick(seed))
    model = sequential(seqcore, case.description)
    model.set_weights(case.weights)
    keras_file(tmp_path / "m.keras", config_of(model), tree, model)
    hdf5(tmp_path / "m.h5", legacy, model)
    for suffix in ("keras", "h5"):
        loaded = models.load_model(tmp_path / f"m.{suffix}")
        assert np.array_equal(loaded.predict(case.x, verbose=0), model.predict(case.x, verbose=0))


@pytest.mark.parametrize("step", [1, 2])
def test_tf_keras(tmp_path, step):
    """2.12 had the layers under another name, some of them counted twice; the configs are Keras 2's."""
    model = built(EVERY_LAYER["ids"])
    description = {"module": "keras", "class_name": "Sequential", "config": undressed(model.get_config())}
    write = {"root": "_layer_checkpoint_dependencies", "step": step, "version": "2.12.0"}
    keras_file(tmp_path / "m.keras", description, tree, model, **write)
    same(model, models.load_model(tmp_path / "m.keras"))


@pytest.mark.parametrize("name", EVERY_LAYER)
@pytest.mark.parametrize("suffix", ["h5", "hdf5"])
def test_legacy(tmp_path, name, suffix):
    model = built(EVERY_LAYER[name])
    path = tmp_path / f"m.{suffix}"
    hdf5(path, legacy, model)
    same(model, models.load_model(path))
    config = undressed(model.get_config())
    hdf5(path, legacy, model, config=config, version="2.4.0", suffix=":0", chunks=True, as_bytes=True)
    same(model, models.load_model(path))
    if name != "stateful":  # older: the list of layers alone, the shape with the first of them
        listed = config["layers"][1:]
        listed[0]["config"]["batch_input_shape"] = config["layers"][0]["config"]["batch_input_shape"]
        hdf5(path, legacy, model, config=listed, version="2.1.6", suffix=":0")
        same(model, models.load_model(path))


@pytest.mark.parametrize("name", EVERY_LAYER)
def test_load_weights(tmp_path, name):
    model = built(EVERY_LAYER[name])
    keras_file(tmp_path / "m.keras", config_of(model), tree, model)
    hdf5(tmp_path / "m.weights.h5", tree, model)
    hdf5(tmp_path / "whole.h5", legacy, model)
    hdf5(tmp_path / "alone.h5", legacy_weights, model, chunks=True)
    for file in ("m.keras", "m.weights.h5", "whole.h5", "alone.h5"):
        other = built(EVERY_LAYER[name])
        other.load_weights(str(tmp_path / file))
        same(model, other)
    for file in ("m.weights.h5", "alone.h5"):
        with pytest.raises(ValueError, match=rf"{file}: .*load_weights"):
            models.load_model(tmp_path / file)


@pytest.mark.parametrize("file", ["m.keras", "m.weights.h5", "m.h5"])
def test_weights_that_do_not_fit(tmp_path, file):
    model = built(chain((None, 3, 2), LSTM, LSTM, DENSE))
    keras_file(tmp_path / "m.keras", config_of(model), tree, model)
    hdf5(tmp_path / "m.weights.h5", tree, model)
    hdf5(tmp_path / "m.h5", legacy, model)
    for other in (chain((None, 3, 2), LSTM, LSTM, spec("Dense", units=5)), chain((None, 3, 2), LSTM, DENSE),
                  chain((None, 3, 2), LSTM, LSTM, LSTM, DENSE)):  # fmt: skip
        wrong = built(other)
        before = wrong.get_weights()
        with pytest.raises(ValueError, match=rf"{file}: the weights do not fit"):
            wrong.load_weights(tmp_path / file)
        assert all(np.array_equal(a, b) for a, b in zip(before, wrong.get_weights()))
    wrong = built(chain((None, 3, 2), LSTM, LSTM, spec("Dense", units=5)))
    with pytest.warns(UserWarning, match="skipped"):
        wrong.load_weights(tmp_path / file, skip_mismatch=True)
    assert np.array_equal(wrong.get_weights()[3], model.get_weights()[3])
    with pytest.raises(ValueError, match="no weights yet"):
        models.Sequential([layers.Dense(2)]).load_weights(tmp_path / file)


def test_frozen_layers_in_legacy_files(tmp_path):
    """Keras lists the weights that are trained first."""
    model = built(chain((None, 3, 2), spec("Bidirectional", layer=LSTM)))
    model.layers[0].forward_layer.trainable = False
    config = model.get_config()
    config["layers"][1]["config"]["backward_layer"] = {
        "class_name": "LSTM", "config": model.layers[0].backward_layer.get_config()
    }  # fmt: skip
    swapped = built(chain((None, 3, 2), spec("Bidirectional", layer=LSTM)))
    weights = model.get_weights()
    swapped.set_weights([*weights[3:], *weights[:3]])
    swapped.layers[0].name = model.layers[0].name
    hdf5(tmp_path / "m.h5", legacy, swapped, config=config)
    loaded = models.load_model(tmp_path / "m.h5")
    both = loaded.layers[0]
    assert not both.forward_layer.trainable and both.backward_layer.trainable
    same(model, loaded)


def test_backslashes_in_paths(tmp_path):
    """As some files written on Windows have them: one group `layers\\lstm\\cell`, not three."""
    model = built(chain((None, 3, 2), LSTM, LSTM, DENSE))

    def windows(file):
        hdf5(tmp_path / "w.h5", tree, model)
        file.create_group("layers")
        with h5py.File(tmp_path / "w.h5") as plain:
            for layer in ("lstm/cell", "lstm_1/cell", "dense"):
                name = f"layers/{layer}".replace("/", "\\")
                plain.copy(f"layers/{layer}", file, name)

    keras_file(tmp_path / "m.keras", config_of(model), windows)
    same(model, models.load_model(tmp_path / "m.keras"))


def test_an_input_shape_of_the_first_call(tmp_path):
    model = built(chain((None, 3, 2), LSTM, DENSE))
    description = config_of(model)
    description["config"]["layers"][0]["config"]["batch_shape"] = [32, 3, 2]
    keras_file(tmp_path / "m.keras", description, tree, model)
    assert models.load_model(tmp_path / "m.keras").input_shape == (None, 3, 2)
    description["config"]["layers"].pop(0)
    description["config"]["build_input_shape"] = [32, 3, 2]
    keras_file(tmp_path / "m.keras", description, tree, model)
    loaded = models.load_model(tmp_path / "m.keras")
    same(model, loaded)
    assert loaded.input_shape == (None, 3, 2)
    del description["config"]["build_input_shape"]
    keras_file(tmp_path / "m.keras", description, tree, model)
    with pytest.raises(ValueError, match="no input shape"):
        models.load_model(tmp_path / "m.keras")


# -------------------------------------------------------------------------------------------------- functional models


def functional(model, keras_2=False):
    config = model.get_config()
    listed, before = [], None
    for item in (undressed if keras_2 else dressed)(config["layers"]):
        name = item["config"]["name"]
        node = {"args": [{"class_name": "__keras_tensor__", "config": {"keras_history": [before, 0, 0]}}],
                "kwargs": {"training": False, "mask": None}}  # fmt: skip
        nodes = [] if before is None else [[[before, 0, 0, {}]]] if keras_2 else [node]
        listed.append({**item, "name": name, "inbound_nodes": nodes})
        before = name
    ends = [listed[0]["name"], 0, 0], [before, 0, 0]
    return {"module": "keras.src.models.functional", "class_name": "Functional", "registered_name": "Functional",
            "config": {"name": "f", "layers": listed, "input_layers": [ends[0]] if keras_2 else ends[0],
                       "output_layers": [ends[1]] if keras_2 else ends[1]}}  # fmt: skip


@pytest.mark.parametrize("keras_2", [False, True])
def test_a_functional_chain(tmp_path, keras_2):
    model = built(chain((None, 3, 2), LSTM, LSTM, spec("Bidirectional", layer=LSTM), DENSE))
    description = functional(model, keras_2)
    description["config"]["layers"].reverse()
    keras_file(tmp_path / "m.keras", description, tree, model)
    same(model, models.load_model(tmp_path / "m.keras"))


def changed(change):
    description = functional(built(chain((None, 3, 2), LSTM, spec("Dropout", rate=0.1), LSTM, DENSE)))
    listed = description["config"]["layers"]
    change(description["config"], listed)
    return description


def tensor(listed, i, place=(0, 0)):
    return {"class_name": "__keras_tensor__", "config": {"keras_history": [listed[i]["name"], *place]}}


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c, ls: ls[3]["inbound_nodes"][0].update(args=[tensor(ls, 1)]), "no chain: the output of layer"),
        (lambda c, ls: ls[3]["inbound_nodes"][0].update(args=[tensor(ls, 1), tensor(ls, 2)]), "takes 2 inputs"),
        (lambda c, ls: ls[3]["inbound_nodes"][0].update(args=[tensor(ls, 2, (0, 1))]), "no chain"),
        (lambda c, ls: ls[3]["inbound_nodes"].append(ls[3]["inbound_nodes"][0]), "called 2 times"),
        (lambda c, ls: ls[3]["inbound_nodes"][0].update(kwargs={"initial_state": [1]}), "initial_state"),
        (lambda c, ls: ls[2]["inbound_nodes"][0].update(kwargs={"training": True}), "training"),
        (lambda c, ls: ls[3]["inbound_nodes"][0].update(kwargs={"mask": tensor(ls, 1)}), "mask"),
        (lambda c, ls: c.update(output_layers=[[ls[3]["name"], 0, 0], [ls[4]["name"], 0, 0]]), "output_layers"),
        (lambda c, ls: c.update(output_layers=[ls[3]["name"], 0, 0]), "the output is that of"),
        (lambda c, ls: ls[2].update(class_name="Lambda"), "unknown layer 'Lambda'"),
        (lambda c, ls: ls[4]["inbound_nodes"][0].update(args=[tensor(ls, 4)]), "no chain"),
        (lambda c, ls: ls[0].update(class_name="Dense"), "no chain"),
    ],
)
def test_what_is_no_chain(tmp_path, change, message):
    model = built(chain((None, 3, 2), LSTM, spec("Dropout", rate=0.1), LSTM, DENSE))
    keras_file(tmp_path / "m.keras", changed(change), tree, model)
    with pytest.raises(ValueError, match=rf"m.keras: .*{message}"):
        models.load_model(tmp_path / "m.keras")


# ------------------------------------------------------------------------------------------------------------- compile


def trained(optimizer, steps=4):
    model = built(chain((None, 5, 2), spec("Bidirectional", layer=LSTM), LSTM, spec("Flatten"), spec("Dense", units=3)))
    model.layers[1].trainable = False
    model.compile(optimizer, "mse", metrics=["mae"])
    x, y = RNG.normal(size=(6, 5, 2)), RNG.normal(size=(6, 3))
    for _ in range(steps):
        model.train_on_batch(x, y)
    return model, x, y


def slots(model):
    """In Keras's order, with names as Keras 3's older files have them."""
    have = {}
    for variable in model.optimizer.variables[2:]:
        slot, _, index = variable.name.partition("/") if "/" in variable.name else variable.path.partition("/")
        have.setdefault(slot, {})[int(index or 0)] = variable.numpy()
    found = []
    for group in (
        ["average"],
        ["gradient_accumulator"],
        *{
            "RMSprop": [["velocity"], ["momentum"], ["average_gradient"]],
            "Nadam": [["momentum", "velocity"], ["u_product"]],
            "Adamax": [["momentum", "norm"]],
            "Adagrad": [["accumulator"]],
            "Adadelta": [["accumulated_grad", "accumulated_delta_var"]],
            "Ftrl": [["accumulator", "linear"]],
        }.get(type(model.optimizer).__name__, [["momentum", "velocity"], ["velocity_hat"]]),
    ):
        present = [s for s in group if s in have]
        for index in sorted(have[present[0]]) if present else ():
            found += [
                ("variable" if slot == "u_product" else f"adam/w_{index}_{slot}", have[slot][index]) for slot in present
            ]
    return found  # fmt: skip


def compile_config(model, **more):
    optimizer = optimizers.serialize(model.optimizer)
    return {"optimizer": {**optimizer, "module": "keras.src.backend.torch.optimizers.torch_adam",
                          "registered_name": optimizer["class_name"]},
            "loss": "mse", "loss_weights": None, "metrics": ["mae"], "weighted_metrics": None, "run_eagerly": False,
            "steps_per_execution": 1, "jit_compile": False, **more}  # fmt: skip


OPTIMIZERS = {
    "adam": lambda: optimizers.Adam(0.01),
    "amsgrad": lambda: optimizers.Adam(0.01, amsgrad=True, use_ema=True),
    "adamw": lambda: optimizers.AdamW(0.01, gradient_accumulation_steps=3),
    "sgd": lambda: optimizers.SGD(0.1),
    "momentum": lambda: optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "rmsprop": lambda: optimizers.RMSprop(0.01, momentum=0.5, centered=True),
    "nadam": lambda: optimizers.Nadam(0.01, use_ema=True),
    "adamax": lambda: optimizers.Adamax(0.01),
    "adagrad": lambda: optimizers.Adagrad(0.01),
    "adadelta": lambda: optimizers.Adadelta(1.0, gradient_accumulation_steps=3),
    "ftrl": lambda: optimizers.Ftrl(0.01, beta=0.1),
    "lion": lambda: optimizers.Lion(0.001),
}  # fmt: skip


@pytest.mark.parametrize("suffix", ["keras", "h5"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on(tmp_path, name, suffix):
    model, x, y = trained(OPTIMIZERS[name]())
    state = [("adam/iteration", np.int64(4)), ("adam/learning_rate", np.float32(0.02)), *slots(model)]
    model.optimizer.learning_rate = 0.02
    config = compile_config(model)
    path = tmp_path / f"m.{suffix}"
    if suffix == "keras":
        description = {**config_of(model), "compile_config": config}
        keras_file(path, description, tree, model, optimizer=[v for _, v in state])
    else:
        config["optimizer_config"] = config.pop("optimizer")
        hdf5(path, legacy, model, training=config, optimizer=state)
    loaded = models.load_model(path)
    assert loaded.metrics_names == ["loss", "mae"] and float(loaded.optimizer.learning_rate) == np.float32(0.02)
    assert [layer.trainable for layer in loaded.layers] == [True, False, True, True]
    for _ in range(5):
        assert np.array_equal(model.train_on_batch(x, y), loaded.train_on_batch(x, y))
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), loaded.get_weights()))
    assert not models.load_model(path, compile=False).compiled


@pytest.mark.parametrize("suffix", ["weights.h5", "keras"])
@pytest.mark.parametrize("name", ["amsgrad", "adamw", "rmsprop", "nadam"])
def test_load_weights_into_a_trained_optimizer(tmp_path, name, suffix):
    """As Keras's: it takes over iterations, rate and slots; one that has made no step keeps its own."""
    model, x, y = trained(OPTIMIZERS[name]())
    state = [np.int64(4), np.float32(0.02), *(v for _, v in slots(model))]
    model.optimizer.learning_rate = 0.02
    path = tmp_path / f"m.{suffix}"
    if suffix == "keras":
        keras_file(path, config_of(model), tree, model, optimizer=state)
    else:
        hdf5(path, tree, model, optimizer=state)
    new, _, _ = trained(OPTIMIZERS[name](), 0)
    new.load_weights(path)
    same(model, new)
    assert int(new.optimizer.iterations) == 0 and float(new.optimizer.learning_rate) == np.float32(0.01)
    new.fit(x, y, verbose=0)
    new.compile(OPTIMIZERS[name](), "mse")  # anew
    new.load_weights(path)
    assert int(new.optimizer.iterations) == 0
    other, _, _ = trained(OPTIMIZERS[name](), 2)
    other.load_weights(path)
    assert float(other.optimizer.learning_rate) == np.float32(0.02)
    for _ in range(4):
        assert np.array_equal(model.train_on_batch(x, y), other.train_on_batch(x, y))
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), other.get_weights()))


@pytest.mark.parametrize("name", ["momentum", "sgd", "adamax"])
def test_load_weights_beside_another_optimizer(tmp_path, name):
    model, _, _ = trained("adam")
    state = [np.int64(4), np.float32(0.02), *(v for _, v in slots(model))]
    if name == "adamax":
        state[2] = state[3] = np.zeros(9, np.float32)
    hdf5(tmp_path / "m.weights.h5", tree, model, optimizer=state)
    other, _, _ = trained(OPTIMIZERS[name](), 3)
    before = [v.numpy() for v in other.optimizer.variables]
    with pytest.warns(UserWarning, match=r"m\.weights\.h5: the state of the optimizer does not fit and is left alone"):
        other.load_weights(tmp_path / "m.weights.h5")
    same(model, other)
    assert all(np.array_equal(a, b) for a, b in zip(before, other.optimizer.variables, strict=True))
    hdf5(tmp_path / "n.weights.h5", tree, model)  # of a model that was not compiled
    other.load_weights(tmp_path / "n.weights.h5")


@pytest.mark.parametrize("name", ["amsgrad", "momentum", "nadam", "adadelta"])
def test_layers_that_were_frozen_later(tmp_path, name):
    model, x, y = trained(OPTIMIZERS[name](), 0)
    model.layers[1].trainable = True
    for _ in range(4):
        model.train_on_batch(x, y)
    state = [np.int64(4), np.float32(0.01), *(v for _, v in slots(model))]
    model.layers[1].trainable = False
    keras_file(
        tmp_path / "m.keras",
        {**config_of(model), "compile_config": compile_config(model)},
        tree,
        model,
        optimizer=state,
    )
    loaded = models.load_model(tmp_path / "m.keras")
    before = dict(zip((v.path for v in model.optimizer.variables), model.optimizer.variables))
    for variable in loaded.optimizer.variables[2:]:
        assert np.array_equal(variable, before[variable.path])
    assert 0 < len(loaded.optimizer.variables) < len(before)


BEFORE_2_11 = {
    "Adam": ({"amsgrad": True}, {"momentum": "m", "velocity": "v", "velocity_hat": "vhat"}),
    "SGD": ({"momentum": 0.9}, {"momentum": "momentum"}),
    "Nadam": ({}, {"momentum": "m", "velocity": "v"}),
    "Adamax": ({}, {"momentum": "m", "norm": "v"}),
    "Adagrad": ({}, {"accumulator": "accumulator"}),
    "Ftrl": ({}, {"accumulator": "accumulator", "linear": "linear"}),
    "Adadelta": ({}, {"accumulated_grad": "accum_grad", "accumulated_delta_var": "accum_var"}),
}


@pytest.mark.parametrize("kind", BEFORE_2_11)
def test_the_optimizers_before_2_11(tmp_path, kind):
    """All m, then all v; `decay`, `lr`; iterations alone before the slots."""
    decay = optimizers.schedules.InverseTimeDecay(0.05, 1, 0.1)
    more, old = BEFORE_2_11[kind]
    rates = {"learning_rate": decay, **more}
    model, x, y = trained(getattr(optimizers, kind)(**rates))
    state = [("Adam/iter:0", np.int64(4))]
    if kind == "Nadam":
        state.append(("Adam/momentum_cache:0", np.asarray(model.optimizer.variables[-1])))
    for slot, end in old.items():
        for variable in model.optimizer.variables[1:]:
            where = variable.name if "/" in variable.name else variable.path
            if where.startswith(f"{slot}/"):
                state.append((f"Adam/{where.partition('/')[2]}/kernel/{end}:0", variable.numpy()))
    config = {k: v for k, v in rates.items() if k != "learning_rate"} | {"name": "A", "lr": 0.05, "decay": 0.1}
    training = {"optimizer_config": {"class_name": kind, "config": config}, "loss": ["mse"], "metrics": [["mae"]],
                "weighted_metrics": None, "loss_weights": None, "sample_weight_mode": None}  # fmt: skip
    hdf5(tmp_path / "m.h5", legacy, model, training=training, optimizer=state, version="2.4.0")
    loaded = models.load_model(tmp_path / "m.h5")
    for _ in range(5):
        np.testing.assert_allclose(model.train_on_batch(x, y), loaded.train_on_batch(x, y), rtol=1e-6)


def worst(y_true, y_pred):
    return np.abs(y_true - y_pred).max(-1)


class Own(metrics.MeanAbsoluteError):
    """A metric of one's own."""


MSE = {"module": "keras.losses", "class_name": "MeanSquaredError", "registered_name": None,
       "config": {"name": "a", "reduction": "auto", "fn": "mean_squared_error", "dtype": "float32"}}  # fmt: skip
FUNCTION = {"module": "builtins", "class_name": "function", "config": "worst", "registered_name": "function"}


@pytest.mark.parametrize(
    "loss", ["mse", "mean_squared_error", MSE, ["mse"], {"dense": "mse"}, [MSE],
             {"module": "keras.losses", "class_name": "function", "config": "mean_squared_error"},
             {"class_name": "LossFunctionWrapper", "config": {"fn": "mean_squared_error", "name": "b"}}]
)  # fmt: skip
@pytest.mark.parametrize(
    "given, names",
    [
        (["mae"], ["mae"]),
        ([["mae", None]], ["mae"]),
        ({"dense": ["mae", "mse"]}, ["mae", "mse"]),
        (
            [{"module": "keras.metrics", "class_name": "MeanAbsoluteError", "config": {"name": "q", "dtype": POLICY}}],
            ["q"],
        ),
        ([[{"class_name": "MeanMetricWrapper", "config": {"name": "e", "fn": "mean_absolute_error"}}]], ["e"]),
        (["worst"], ["worst"]),
        ([FUNCTION], ["worst"]),
        ([{"class_name": "MeanMetricWrapper", "config": {"name": "w", "fn": FUNCTION}}], ["w"]),
        ([{"module": None, "class_name": "Own", "config": {"name": "o"}, "registered_name": "pack>Own"}], ["o"]),
    ],
)
def test_losses_and_metrics(tmp_path, loss, given, names):
    model, x, y = trained("sgd", 0)
    config = compile_config(model, loss=loss, metrics=given, weighted_metrics=given)
    keras_file(tmp_path / "m.keras", {**config_of(model), "compile_config": config}, tree, model,
               optimizer=[np.int32(0), np.float32(0.01)])  # fmt: skip
    loaded = models.load_model(tmp_path / "m.keras", custom_objects={"worst": worst, "Own": Own})
    loss_now, *_ = loaded.evaluate(x, y, verbose=0)
    assert loaded.metrics_names == ["loss", *names, *(f"weighted_{n}" for n in names)]
    assert loss_now == pytest.approx(model.evaluate(x, y, verbose=0)[0])


@pytest.mark.parametrize(
    "change",
    [
        {"loss": "my_loss"}, {"loss": {"a": "mse", "b": "mse"}}, {"metrics": ["mine"]}, {"metrics": [FUNCTION]},
        {"weighted_metrics": [{"class_name": "Mine", "config": {}}]}, {"metrics": 5}, {"optimizer": None},
        {"optimizer": {"class_name": "Lamb", "config": {}}}, {"loss_weights": [2.0]}, {"loss": {"class_name": 3}},
        {"optimizer": {"class_name": "Adam", "config": {"momentum": 0.5}}},
    ],
    ids=str,
)  # fmt: skip
def test_what_compile_cannot_restore(tmp_path, change):
    model, _, _ = trained("sgd", 0)
    description = {**config_of(model), "compile_config": {**compile_config(model), **change}}
    keras_file(tmp_path / "m.keras", description, tree, model, optimizer=[np.int32(0), np.float32(0.01)])
    with pytest.raises(ValueError, match=r"m.keras: .*compile=False"):
        models.load_model(tmp_path / "m.keras")
    same(model, models.load_model(tmp_path / "m.keras", compile=False))


@pytest.mark.parametrize("kind", ["adam", "nadam"])
@pytest.mark.parametrize("case", ["missing", "more", "shape", "dtype", "count", "negative", "none"])
def test_the_optimizers_state_does_not_fit(tmp_path, case, kind):
    model, _, _ = trained(kind)
    state = [np.int64(4), np.float32(0.01), *(v for _, v in slots(model))]
    if case == "missing":
        state = state[:-1]
    elif case == "more":
        state.append(np.zeros(3, np.float32))
    elif case == "shape":
        state[2] = np.zeros((9, 9), np.float32)
    elif case == "dtype":
        state[2] = state[2].astype(np.int32)
    elif case == "count":
        state[0] = np.float32(4)
    elif case == "negative":
        state[0] = np.int64(-4)
    else:
        state = []
    description = {**config_of(model), "compile_config": compile_config(model)}
    keras_file(tmp_path / "m.keras", description, tree, model, optimizer=state)
    if case == "none":
        with pytest.warns(UserWarning, match="begins anew"):
            assert int(models.load_model(tmp_path / "m.keras").optimizer.iterations) == 0
    else:
        with pytest.raises(ValueError, match=r"m.keras: .*compile=False"):
            models.load_model(tmp_path / "m.keras")


# ------------------------------------------------------------------------------------------------------- what is not it


def config_with(change):
    description = config_of(built(chain((None, 3, 2), LSTM, DENSE)))
    change(description["config"]["layers"])
    return description


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda ls: ls[1]["config"].update(time_major=True), "'LSTM' .*time_major"),
        (lambda ls: ls[1]["config"].update(quantization_config={"a": 1}), "'LSTM' .*quantization_config"),
        (lambda ls: ls[2]["config"].update(novelty=3), r"'Dense' \(layer .*novelty"),
        (
            lambda ls: ls[2]["config"].update(dtype={"class_name": "DTypePolicy", "config": {"name": "mixed_float16"}}),
            "float32",
        ),
        (lambda ls: ls[2].update(module="my.code"), "unknown layer 'Dense'"),
        (lambda ls: ls[2].update(registered_name="pack>Dense"), "unknown layer 'pack>Dense'"),
        (
            lambda ls: ls[2].update(class_name="Lambda", config={"function": ["4wEAAAA", None, None]}),
            "unknown layer 'Lambda'",
        ),
        (lambda ls: ls[2].update(class_name=["Dense"]), "unknown layer|damaged"),
        (lambda ls: ls[2].update(config=[1]), "dict"),
        (lambda ls: ls.insert(0, 7), "dict"),
        (lambda ls: ls[2]["config"].update(activation={"class_name": "function", "config": "evil"}), "evil"),
        (
            lambda ls: ls[2]["config"].update(
                kernel_initializer={"module": "os", "class_name": "system", "config": {}}
            ),
            "system",
        ),
        (lambda ls: ls[2]["config"].update(units=10**9), "units"),
        (lambda ls: ls[2]["config"].update(units=16), "the weights|numbers"),
        (lambda ls: ls[0]["config"].update(batch_shape=[None, 3, 10**9]), "numbers"),
        (
            lambda ls: ls[0]["config"].update(batch_shape=[10**12, 3, 2]) or ls[1]["config"].update(stateful=True),
            "states",
        ),
        (lambda ls: ls.clear(), "a list `layers`"),
    ],
)
def test_configs_that_are_refused(tmp_path, change, message):
    model = built(chain((None, 3, 2), LSTM, DENSE))
    keras_file(tmp_path / "m.keras", config_with(change), tree, model)
    with pytest.raises(ValueError, match=rf"(?s)m.keras: .*({message})"):
        models.load_model(tmp_path / "m.keras")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda cells: cells[1]["config"].update(units=10**9), "units"),
        (lambda cells: cells[1]["config"].update(units=12), "numbers"),
        (lambda cells: cells[0].update(class_name="LSTM"), "got <LSTM"),
        (lambda cells: cells[0].update(class_name="Own", registered_name="own>Own"), "unknown layer 'own>Own'"),
        (lambda cells: cells.insert(0, 7), "dict"),
        (lambda cells: cells.clear(), "a list of cells"),
    ],
)
def test_cells_that_are_refused(tmp_path, change, message):
    model = built(EVERY_LAYER["cells"])
    config = config_of(model)
    change(config["config"]["layers"][2]["config"]["cell"]["config"]["cells"])
    keras_file(tmp_path / "m.keras", config, tree, model)
    with pytest.raises(ValueError, match=rf"(?s)m.keras: .*({message})"):
        models.load_model(tmp_path / "m.keras")


def test_words_that_changed_their_meaning(tmp_path):
    """hard_sigmoid is another function in Keras 2, and GRU's `reset_after` was False where configs are silent."""
    model = built(chain((None, 3, 2), spec("GRU", units=2, reset_after=False, recurrent_activation="hard_sigmoid")))
    hdf5(tmp_path / "m.h5", legacy, model, version="2.9.0")
    with pytest.raises(ValueError, match="hard_sigmoid"):
        models.load_model(tmp_path / "m.h5")
    hdf5(tmp_path / "m.h5", legacy, model)
    same(model, models.load_model(tmp_path / "m.h5"))
    model = built(chain((None, 3, 2), spec("GRU", units=2, reset_after=False)))
    config = model.get_config()
    del config["layers"][1]["config"]["reset_after"]
    hdf5(tmp_path / "m.h5", legacy, model, config=config, version="2.1.0")
    same(model, models.load_model(tmp_path / "m.h5"))


def replaced(file, path, make):
    del file[path]
    make(file, path)


HOSTILE = {
    "soft link": lambda f, p: f.__setitem__(p, h5py.SoftLink("/optimizer")),
    "link to itself": lambda f, p: f.__setitem__(p, h5py.SoftLink("/" + p)),
    "external link": lambda f, p: f.__setitem__(p, h5py.ExternalLink("/etc/passwd", "x")),
    "external storage": lambda f, p: f.create_dataset(p, (2, 16), "f4", external=[("/etc/passwd", 0, 128)]),
    "virtual": lambda f, p: f.create_virtual_dataset(p, h5py.VirtualLayout((2, 16), "f4")),
    "huge, not there": lambda f, p: f.create_dataset(p, (10**6, 10**6), "f4"),
    "huge, but packed": lambda f, p: f.create_dataset(
        p, (4000, 4000), "f4", data=np.zeros((4000, 4000), "f4"), compression=9
    ),
    "huge, chunked": lambda f, p: f.create_dataset(p, (10**6, 10**6), "f4", chunks=(1000, 1000)),
    "huge chunks": lambda f, p: f.create_dataset(p, (2, 16), "f4", chunks=(10**4, 10**4), maxshape=(None, None)),
    "packed": lambda f, p: f.create_dataset(p, data=np.zeros((2, 16), "f4"), compression=9),
    "one for two": lambda f, p: [f.create_dataset(p, data=np.zeros(10**5)), f.__setitem__("layers/a", f[p])],
    "shape": lambda f, p: f.__setitem__(p, np.zeros((16, 2), np.float32)),
    "integers": lambda f, p: f.__setitem__(p, np.zeros((2, 16), np.int32)),
    "text": lambda f, p: f.__setitem__(p, [["a"] * 16] * 2),
    "empty": lambda f, p: f.create_dataset(p, data=h5py.Empty("f4")),
    "compound": lambda f, p: f.create_dataset(p, (2, 16), [("a", "f4"), ("b", "i4")]),
    "a group": lambda f, p: f.create_group(p),
    "missing": lambda f, p: None,
    "a cycle": lambda f, p: f.__setitem__(p, f["/"]),
    "a type": lambda f, p: f.__setitem__(p, np.dtype("f4")),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_hdf5(tmp_path, name):
    model = built(chain((None, 3, 2), LSTM, DENSE))

    def hostile_tree(file):
        tree(file, model)
        replaced(file, "layers/lstm/cell/vars/0", HOSTILE[name])

    def hostile_legacy(file):
        legacy(file, model)
        lstm = model.layers[0].name
        replaced(file, f"model_weights/{lstm}/{lstm}/cell_0/kernel", HOSTILE[name])

    keras_file(tmp_path / "m.keras", config_of(model), hostile_tree)
    hdf5(tmp_path / "m.weights.h5", hostile_tree)
    hdf5(tmp_path / "m.h5", hostile_legacy)
    for file in ("m.keras", "m.h5"):
        with pytest.raises(ValueError, match=rf"{file}: "):
            models.load_model(tmp_path / file)
    before = model.get_weights()
    for file in ("m.keras", "m.h5", "m.weights.h5"):
        with pytest.raises(ValueError, match=rf"{file}: "):
            model.load_weights(tmp_path / file)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights()))


def bad_attribute(name, value, at="/"):
    def write(file, model):
        legacy(file, model)
        file[at].attrs[name] = value

    return write


@pytest.mark.parametrize(
    "write",
    [
        bad_attribute("model_config", "{"),
        bad_attribute("model_config", "[" * 10**5),
        bad_attribute("model_config", "[]"),
        bad_attribute("model_config", "7"),
        bad_attribute("model_config", 7),
        bad_attribute("model_config", b"\xff\xfe"),
        bad_attribute("model_config", h5py.Empty("S5")),
        bad_attribute("training_config", "{"),
        bad_attribute("layer_names", [1.0], "model_weights"),
        bad_attribute("layer_names", ["x"], "model_weights"),
        bad_attribute("layer_names", "lstm", "model_weights"),
        bad_attribute("model_config", json.dumps({"class_name": "Evil", "config": {"layers": [1]}})),
    ],
)
def test_hostile_attributes(tmp_path, write):
    model = built(chain((None, 3, 2), LSTM, DENSE))
    hdf5(tmp_path / "m.h5", write, model)
    with pytest.raises(ValueError, match=r"m.h5: "):
        models.load_model(tmp_path / "m.h5")


def test_hostile_zips(tmp_path):
    model = built(chain((None, 3, 2), LSTM, DENSE))
    path = tmp_path / "m.keras"
    keras_file(path, config_of(model), tree, model)
    raw = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}

    def refused(message, call=models.load_model):
        with pytest.raises(ValueError, match=rf"m.keras: .*{message}"):
            call(path)

    for name in members:
        with zipfile.ZipFile(path, "w") as archive:
            for other in members:
                if other != name:
                    archive.writestr(other, members[other])
        refused(name)
    for name, bad in [("config.json", b"{"), ("config.json", b"[]"), ("config.json", b"\xff"), ("metadata.json", b"3"),
                      ("config.json", b"[" * 10**5), ("model.weights.h5", b"no"), ("model.weights.h5", b""),
                      ("model.weights.h5", members["model.weights.h5"][:3000]),
                      ("config.json", b'{"class_name":"Sequential","config":' * 500 + b"1" + b"}" * 500),
                      ("config.json", b" " * 10**8), ("model.weights.h5", b"\0" * 10**8)]:  # fmt: skip
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for other in members:
                archive.writestr(other, bad if other == name else members[other])
        refused("")
        if name == "model.weights.h5":
            refused("", model.load_weights)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "w") as archive:
        for other in [*members, "config.json"]:
            archive.writestr(other, members[other])
    refused("config.json")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        for other in members:
            archive.writestr(other, members[other])
    refused("stored or deflated")
    for n in sorted({0, 1, 30, len(raw) // 2, len(raw) - 1}):
        path.write_bytes(raw[:n])
        refused("")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for other in members:
            archive.writestr(other, members[other])
    same(model, models.load_model(path))


@pytest.mark.parametrize("file", ["m.keras", "m.h5"])
def test_changed_bytes_raise_or_load(tmp_path, file):
    model = built(chain((None, 3, 2), spec("LSTM", units=2), spec("Dense", units=1)))
    keras_file(tmp_path / "m.keras", config_of(model), tree, model)
    hdf5(tmp_path / "m.h5", legacy, model)
    raw = (tmp_path / file).read_bytes()
    rng = np.random.default_rng(3)
    for _ in range(150):
        bad = bytearray(raw)
        for at in rng.integers(0, len(raw), 3):
            bad[at] = rng.integers(256)
        (tmp_path / file).write_bytes(bad)
        try:
            loaded = models.load_model(tmp_path / file, compile=False)
        except ValueError as error:
            assert str(error).startswith(str(tmp_path / file))
        else:
            assert loaded.layers


def test_a_missing_file_is_the_systems_error(tmp_path):
    for suffix in ("keras", "h5", "weights.h5"):
        with pytest.raises(FileNotFoundError):
            models.load_model(tmp_path / f"nothing.{suffix}")
    os.mkdir(tmp_path / "m.keras")
    with pytest.raises(IsADirectoryError):
        models.load_model(tmp_path / "m.keras")


def test_without_h5py(tmp_path, monkeypatch):
    model = built(chain((None, 3, 2), LSTM, DENSE))
    keras_file(tmp_path / "m.keras", config_of(model), tree, model)
    hdf5(tmp_path / "m.h5", legacy, model)
    before = sorted((path.name, path.read_bytes()) for path in tmp_path.iterdir())
    monkeypatch.setitem(sys.modules, "h5py", None)
    for file in ("m.keras", "m.h5"):
        for call in (models.load_model, model.load_weights):
            with pytest.raises(ImportError, match=r"pip install 'seqcore\[keras-files\]'"):
                call(tmp_path / file)
    for call in (
        lambda: model.save(tmp_path / "m.keras"),
        lambda: models.save_model(model, tmp_path / "new.keras"),
        lambda: model.save_weights(tmp_path / "new.weights.h5"),
        lambda: callbacks.ModelCheckpoint(tmp_path / "new.keras"),
        lambda: callbacks.ModelCheckpoint(tmp_path / "new.weights.h5", save_weights_only=True),
    ):
        with pytest.raises(ImportError, match=r"pip install 'seqcore\[keras-files\]'"):
            call()
    assert sorted((path.name, path.read_bytes()) for path in tmp_path.iterdir()) == before


# ----------------------------------------------------------------------------------------------------- models in models


def nested():
    """A chain, and the same layers as Keras describes them in models: [first, [[second, third], fourth], last]."""
    first, *rest = LSTM, DENSE, LSTM, spec("LayerNormalization"), spec("Dense", units=2)
    whole = built(chain((None, 3, 2), first, *rest))
    a, b, c, d, e = whole.layers
    inner = {"class_name": "Sequential", "layers": [b, c], "name": "inner"}
    outer = {"class_name": "Functional", "layers": [inner, d], "name": "outer"}
    return whole, {"class_name": "Sequential", "layers": [a, outer, e], "name": "all"}


def described(model, shape=(None, 3, 2)):
    """Keras's description of such a model."""
    listed = []
    for layer in model["layers"]:
        if isinstance(layer, dict):
            listed.append(described(layer, (None, 3, 4)))
        else:
            listed.append(dressed({"class_name": type(layer).__name__, "config": layer.get_config()}))
    begin = {"class_name": "InputLayer", "config": {"batch_shape": shape, "name": f"in_{model['name']}"}}
    config = {"name": model["name"], "trainable": True, "layers": [begin, *listed]}
    if model["class_name"] == "Functional":
        names = [item["config"]["name"] for item in config["layers"]]
        for item, name, before in zip(config["layers"], names, [None, *names], strict=False):
            tensor = {"class_name": "__keras_tensor__", "config": {"keras_history": [before, 0, 0]}}
            nodes = [{"args": [tensor], "kwargs": {"training": False}}]
            item |= {"name": name, "inbound_nodes": nodes if before else []}
        config |= {"input_layers": [names[0], 0, 0], "output_layers": [names[-1], 0, 0]}
    return {"module": "keras", "class_name": model["class_name"], "registered_name": None, "config": config}


def nested_tree(file, model, at="layers"):
    used = {}
    for layer in model["layers"]:
        kind = layer["class_name"] if isinstance(layer, dict) else type(layer).__name__
        name = NAMES.get(kind, kind.lower())
        n = used[name] = used.get(name, -1) + 1
        here = f"{at}/{name}_{n}" if n else f"{at}/{name}"
        if isinstance(layer, dict):
            file.create_group(f"{here}/vars")
            nested_tree(file, layer, f"{here}/layers")
            continue
        for path, arrays in parts(layer, here):
            for i, array in enumerate(arrays):
                file[f"{path}/vars/{i}"] = array


def nested_legacy(file, model, description):
    file.attrs["keras_version"], file.attrs["model_config"] = "3.15.1", json.dumps(description)
    group = file.create_group("model_weights")
    group.attrs["layer_names"] = [m["name"] if isinstance(m, dict) else m.name for m in model["layers"]]

    def arrays(layer):
        within = layer["layers"] if isinstance(layer, dict) else ()
        return [a for one in within for a in arrays(one)] if within else layer.get_weights()

    for layer, name in zip(model["layers"], group.attrs["layer_names"], strict=True):
        inner = group.create_group(name)
        inner.attrs["weight_names"] = [f"w/{i}" for i, _ in enumerate(arrays(layer))]
        for i, array in enumerate(arrays(layer)):
            inner[f"w/{i}"] = array


def test_models_in_models(tmp_path):
    """Their layers stand in one chain."""
    whole, model = nested()
    names = [layer.name for layer in whole.layers]
    keras_file(tmp_path / "m.keras", described(model), nested_tree, model)
    hdf5(tmp_path / "m.h5", nested_legacy, model, described(model))
    for file in ("m.keras", "m.h5"):
        loaded = models.load_model(tmp_path / file)
        same(whole, loaded)
        assert loaded.name == "all" and [layer.name for layer in loaded.layers] == names
        assert all(map(np.array_equal, loaded.get_weights(), whole.get_weights()))
        loaded.save(tmp_path / "again.keras")  # without models in it
        same(whole, models.load_model(tmp_path / "again.keras"))


def test_models_that_begin_a_model(tmp_path):
    """The outer one has no input of its own; the inner one is frozen."""
    _, model = nested()
    description = described(model["layers"][1], (None, 3, 4))
    description["config"]["trainable"] = False
    description["config"]["layers"][1]["config"]["trainable"] = False
    outer = {**described(model), "config": {"name": "all", "layers": [description]}}
    inner = {"class_name": "Sequential", "layers": [model["layers"][1]], "name": "all"}
    keras_file(tmp_path / "m.keras", outer, nested_tree, inner)
    hdf5(tmp_path / "m.h5", nested_legacy, inner, outer)
    for file in ("m.keras", "m.h5"):
        loaded = models.load_model(tmp_path / file)
        assert loaded.input_shape == (None, 3, 4) and not loaded.trainable_weights and loaded.trainable
        x = np.ones((2, 3, 4), np.float32)
        expected = x
        for layer in (*model["layers"][1]["layers"][0]["layers"], model["layers"][1]["layers"][1]):
            expected = layer(expected)
        assert np.array_equal(loaded.predict(x, verbose=0), expected)


def test_names_that_two_models_have(tmp_path):
    whole, model = nested()
    whole.layers[1].name = whole.layers[0].name = whole.layers[3].name = "x"
    keras_file(tmp_path / "m.keras", described(model), nested_tree, model)
    loaded = models.load_model(tmp_path / "m.keras")
    assert [layer.name for layer in loaded.layers[:4:3]] == ["x", "outer_x"]
    assert loaded.layers[1].name == "outer_inner_x"
    same(whole, loaded)


def deepen(model, levels):
    """Puts the last layer into that many models."""
    listed = model["config"]["layers"]
    for _ in range(levels):
        listed[-1] = {"class_name": "Sequential", "config": {"name": "m", "layers": [listed[-1]]}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["config"]["layers"][2].update(module="my.code"), "unknown layer 'Functional'"),
        (lambda m: m["config"]["layers"][2]["config"].update(layers=[]), "model 'Functional' .*a list `layers`"),
        (lambda m: m["config"]["layers"][2].update(config=[]), "model 'Functional': .*a list `layers`"),
        (lambda m: m["config"]["layers"][2].update(config=7), "dict"),
        (
            lambda m: m["config"]["layers"][2]["config"]["layers"][2]["inbound_nodes"].clear(),
            r"model 'Functional' \(layer \"outer\"\): no chain",
        ),
        (lambda m: m["config"]["layers"][2]["config"]["layers"].append(7), "dict"),
        (lambda m: deepen(m, 1), "do not fit"),
        (lambda m: deepen(m, 150), "do not fit|damaged"),
        (lambda m: m["config"]["layers"][2]["config"]["layers"][1]["config"]["layers"][1]["config"].update(units=10**6),
         "units|numbers"),
    ],
)  # fmt: skip
def test_models_in_models_that_are_refused(tmp_path, change, message):
    _, model = nested()
    description = described(model)
    change(description)
    keras_file(tmp_path / "m.keras", description, nested_tree, model)
    with pytest.raises(ValueError, match=rf"(?s)m.keras: .*({message})"):
        models.load_model(tmp_path / "m.keras")


def test_models_in_models_of_tf_keras(tmp_path):
    whole, model = nested()
    keras_file(tmp_path / "m.keras", described(model), tree, whole, root="_layer_checkpoint_dependencies")
    with pytest.raises(ValueError, match=r"a model in a model, in a file of tf.keras before 2.13"):
        models.load_model(tmp_path / "m.keras")


# -------------------------------------------------------------------------------------------------------------- writing


def contents(file):
    """Datasets by their paths; text of attributes."""
    found = {}
    with h5py.File(file) as opened:
        opened.visititems(lambda path, item: found.update({path: item[()]} if isinstance(item, h5py.Dataset) else {}))
        opened.visititems(lambda path, item: found.update({f"{path}@{k}": v for k, v in item.attrs.items()}))
    return found


def same_contents(a, b):
    same = ((np.asarray(v), np.asarray(b.get(k))) for k, v in a.items())
    return a.keys() == b.keys() and all(v.dtype == w.dtype and np.array_equal(v, w) for v, w in same)


def weights_of(path):
    with zipfile.ZipFile(path) as archive:
        return io.BytesIO(archive.read("model.weights.h5"))


@pytest.mark.parametrize("name", EVERY_LAYER)
def test_every_layer_written(tmp_path, name):
    """The weights are where Keras has them, with the names that it notes; read back, all is as it was."""
    model = built(EVERY_LAYER[name])
    model.save(tmp_path / "m.keras")
    model.save_weights(tmp_path / "m.weights.h5")
    hdf5(tmp_path / "expected.h5", tree, model)
    expected = {k: v for k, v in contents(tmp_path / "expected.h5").items() if "@" not in k and "dropout" not in k}
    noted = {f"layers/{at}/vars@name": layer.name for layer, at in zip(model.layers, counted(model.layers))}
    for file in (weights_of(tmp_path / "m.keras"), tmp_path / "m.weights.h5"):
        found = contents(file)
        assert same_contents({k: v for k, v in found.items() if "@" not in k}, expected)
        assert noted.items() <= found.items() and found["vars@name"] == model.name
    loaded = models.load_model(tmp_path / "m.keras")
    same(model, loaded)
    if name != "inside":  # whose batch is fixed, for no layer's sake
        assert loaded.get_config() == model.get_config()
    other = built(EVERY_LAYER[name])
    other.load_weights(tmp_path / "m.weights.h5")
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), other.get_weights(), strict=True))
    assert not loaded.compiled


@pytest.mark.parametrize("seed", range(20))
def test_random_models_written(tmp_path, seed):
    case = random_case(rng_pick(seed))
    model = sequential(seqcore, case.description)
    model.set_weights(case.weights)
    models.save_model(model, tmp_path / "m.keras")
    loaded = models.load_model(tmp_path / "m.keras")
    assert loaded.get_config() == model.get_config()
    assert np.array_equal(loaded.predict(case.x, verbose=0), model.predict(case.x, verbose=0))


def test_the_members_of_a_keras_file(tmp_path):
    model = built(chain((None, 3, 2), LSTM, DENSE))
    model.compile(optimizers.Adam(0.5), "mse", metrics=["mae"])
    model.save(tmp_path / "m.keras", zipped=True)
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        assert archive.namelist() == ["metadata.json", "config.json", "model.weights.h5"]
        assert all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())
        metadata, config = (json.loads(archive.read(f"{name}.json")) for name in ("metadata", "config"))
    assert metadata["keras_version"].split(".")[0] == "3" and len(metadata["date_saved"]) == len("2024-01-01@00:00:00")
    assert config["module"] == "keras" and config["class_name"] == "Sequential" and config["registered_name"] is None
    assert config["build_config"] == {"input_shape": [None, 3, 2]}
    assert config["config"]["build_input_shape"] == [None, 3, 2]
    begin, lstm, _ = config["config"]["layers"]
    assert begin["class_name"] == "InputLayer" and begin["config"]["batch_shape"] == [None, 3, 2]
    assert lstm["module"] == "keras.layers" and lstm["config"]["recurrent_initializer"] == {
        "module": "keras.initializers", "class_name": "Orthogonal", "config": {"gain": 1.0, "seed": None},
        "registered_name": None,
    }  # fmt: skip
    compiled = config["compile_config"]
    assert compiled["optimizer"]["module"] == "keras.optimizers" and compiled["loss"]["module"] == "keras.losses"
    assert [m["config"]["name"] for m in compiled["metrics"]] == ["mae"] and compiled["weighted_metrics"] == []
    model.save(tmp_path / "m.keras", include_optimizer=False)
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        assert json.loads(archive.read("config.json"))["compile_config"] is None
    assert not any(path.startswith("optimizer") for path in contents(weights_of(tmp_path / "m.keras")))
    assert not models.load_model(tmp_path / "m.keras").compiled


@pytest.mark.parametrize("steps", [0, 4])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_state_of_the_optimizer_written(tmp_path, name, steps):
    model, x, y = trained(OPTIMIZERS[name](), steps)
    model.optimizer.learning_rate = 0.02
    expected = [np.int64(steps), np.float32(0.02), *(v for _, v in slots(model))]
    model.save(tmp_path / "m.keras")
    model.save_weights(tmp_path / "m.weights.h5")
    for file in (weights_of(tmp_path / "m.keras"), tmp_path / "m.weights.h5"):
        found = {k: v for k, v in contents(file).items() if k.startswith("optimizer/")}
        assert found.pop("optimizer/vars@name") == model.optimizer.name
        assert same_contents(found, {f"optimizer/vars/{i}": v for i, v in enumerate(expected)})
    loaded = models.load_model(tmp_path / "m.keras")
    assert loaded.optimizer.get_config() == model.optimizer.get_config() and loaded.metrics_names == ["loss", "mae"]
    assert int(loaded.optimizer.iterations) == int(model.optimizer.iterations)
    other, _, _ = trained(OPTIMIZERS[name](), 1)
    other.load_weights(tmp_path / "m.weights.h5")
    for one in (loaded, other):
        both = zip(model.optimizer.variables, one.optimizer.variables, strict=True)
        assert all(np.array_equal(a, b) for a, b in both)
    for _ in range(5):
        losses = [one.train_on_batch(x, y) for one in (model, loaded, other)]
        assert np.array_equal(losses[0], losses[1]) and np.array_equal(losses[0], losses[2])


def test_schedules_losses_and_metrics_written(tmp_path):
    schedule = optimizers.schedules.CosineDecay(0.1, 9, warmup_target=0.2, warmup_steps=2)
    model, x, y = trained(optimizers.Nadam(schedule, clipnorm=0.5, name="mine"), 0)
    given = ["mse", metrics.RootMeanSquaredError(), metrics.RootMeanSquaredError(), metrics.AUC(thresholds=[0.25, 0.5])]
    model.compile(model.optimizer, seqcore.losses.Huber(delta=0.3, name="h"), metrics=given,
                  weighted_metrics=["mse", metrics.R2Score()])  # fmt: skip
    for _ in range(3):
        model.train_on_batch(x, y)
    model.save(tmp_path / "m.keras")
    loaded = models.load_model(tmp_path / "m.keras")
    assert loaded.metrics_names == model.metrics_names and loaded.loss.get_config() == model.loss.get_config()
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        compiled = json.loads(archive.read("config.json"))["compile_config"]
    names = [m["config"]["name"] for m in (*compiled["metrics"], *compiled["weighted_metrics"])]
    assert names == model.metrics_names[1:] == ["mse", "root_mean_squared_error", "root_mean_squared_error_1", "auc",
                                                "weighted_mse", "r2_score"]  # fmt: skip
    assert optimizers.serialize(loaded.optimizer) == optimizers.serialize(model.optimizer)
    assert loaded.evaluate(x, y, verbose=0) == model.evaluate(x, y, verbose=0)
    for _ in range(4):
        assert np.array_equal(model.train_on_batch(x, y), loaded.train_on_batch(x, y))


def test_null_is_a_value(tmp_path):
    """As `axis` of constraints, whose default is another."""
    layer = layers.Dense(3, kernel_constraint=seqcore.constraints.MaxNorm(0.5, axis=None))
    model = models.Sequential([layers.Input((4,)), layer])
    model.save(tmp_path / "m.keras")
    assert models.load_model(tmp_path / "m.keras").layers[0].kernel_constraint.axis is None


def test_frozen_layers_written(tmp_path):
    """Keras says of all inner layers that they are frozen; they are unfrozen with the outer one."""
    model, _, _ = trained("adam", 3)
    model.layers[0].trainable = False  # in slots, but not the loaded model's
    model.save(tmp_path / "m.keras")
    loaded = models.load_model(tmp_path / "m.keras")
    assert [layer.trainable for layer in loaded.layers] == [False, False, True, True]
    assert len(loaded.optimizer.variables) == 2 + 2 * len(loaded.trainable_weights) < len(model.optimizer.variables)
    before = {v.path: v.numpy() for v in model.optimizer.variables}
    assert all(np.array_equal(v, before[v.path]) for v in loaded.optimizer.variables)
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        first = json.loads(archive.read("config.json"))["config"]["layers"][1]["config"]
    assert not first["layer"]["config"]["trainable"] and not first["backward_layer"]["config"]["trainable"]
    loaded.layers[0].trainable = True
    assert len(loaded.layers[0].trainable_weights) == 6
    model.layers[1].trainable = True
    with pytest.raises(ValueError, match=r"knows nothing of .*not trainable in its first step: call compile again"):
        model.save(tmp_path / "new.keras")
    assert sorted(os.listdir(tmp_path)) == ["m.keras"]
    model.save_weights(tmp_path / "m.weights.h5")  # for this very model
    model.compile("adam", "mse")
    model.save(tmp_path / "new.keras")
    model.trainable = False
    model.save(tmp_path / "m.keras", include_optimizer=False)
    assert not models.load_model(tmp_path / "m.keras").trainable_weights


def own_words():
    """What Keras's files have no words for, with a part of the message."""

    class Own(layers.Dense):
        pass

    class Start(seqcore.initializers.Initializer):
        def __call__(self, shape, dtype=None):
            return np.zeros(shape, dtype)

    def rate():
        return 0.1

    class Slower(optimizers.schedules.LearningRateSchedule):
        def _at(self, at):
            return 1 / (1 + at)

    begin = [layers.Input((4,), name="begin")]
    function = layers.Dense(2, name="d", kernel_initializer=lambda shape, dtype=None: np.ones(shape, dtype))
    inside = layers.Bidirectional(layers.LSTM(2, bias_initializer=np.ones(8), unit_forget_bias=False, name="in"))
    return {
        "function": ([*begin, function], {}, r'layer "d": `kernel_initializer` is a function'),
        "class": ([*begin, layers.Dense(2, name="d", bias_initializer=Start())], {}, r'layer "d": `bias_initializer`'),
        "inside": ([layers.Input((3, 2)), inside], {}, r'layer "forward_in": `bias_initializer`'),
        "slash": ([*begin, layers.Dense(2, name="a/b")], {}, "slash"),
        "input": ([*begin, layers.Dense(2, name="begin")], {}, "'begin'"),
        "seed": ([*begin, layers.Dropout(0.1, seed=2**31, name="d"), layers.Dense(2)], {}, r'"d": .*below 2\*\*31'),
        "rate": ([*begin, layers.Dense(2)], {"optimizer": optimizers.SGD(rate)}, "`learning_rate` of the optimizer"),
        "schedule": ([*begin, layers.Dense(2)], {"optimizer": optimizers.SGD(Slower())}, "`learning_rate`"),
    }


@pytest.mark.parametrize("case", ["function", "class", "inside", "slash", "input", "seed", "rate", "schedule"])
def test_what_keras_has_no_words_for(tmp_path, case):
    stack, more, message = own_words()[case]
    model = models.Sequential(stack)
    model.compile(**{"optimizer": "sgd", "loss": "mse", **more})
    path = tmp_path / "m.keras"
    path.write_bytes(b"before")
    saving = callbacks.ModelCheckpoint(path)
    x = np.ones((2, *model.input_shape[1:]))
    before = model.get_weights()
    for call in (
        lambda: model.save(path),
        lambda: models.save_model(model, tmp_path / "new.keras"),
        lambda: model.fit(x, np.ones((2, model.output_shape[-1])), verbose=0, callbacks=[saving]),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert os.listdir(tmp_path) == ["m.keras"] and path.read_bytes() == b"before"
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights()))
    model.save_weights(tmp_path / "m.weights.h5")  # of weights alone there is nothing to say
    if more:
        model.save(path, include_optimizer=False)
        assert models.load_model(path).get_config() == model.get_config()


@pytest.mark.parametrize(
    ("call", "name", "message"),
    [
        ("save", "m.h5", r"ending in \.safetensors or \.keras; got \.h5.*the older \.h5 are only read"),
        ("save", "m.hdf5", "only read"),
        ("save", "m.weights.h5", r"\.weights\.h5 of weights alone"),
        ("save_weights", "m.h5", r"ending in \.safetensors or \.weights\.h5; got \.h5.*only read"),
        ("save_weights", "m.keras", r"ending in \.safetensors or \.weights\.h5; got \.keras"),
        ("save_weights", "m.weights", r"got \.weights"),
    ],
)
def test_suffixes_that_are_not_written(tmp_path, call, name, message):
    model = built(chain((None, 3, 2), LSTM, DENSE))
    with pytest.raises(ValueError, match=message):
        getattr(model, call)(tmp_path / name)
    with pytest.raises(ValueError, match=r"`filepath`.*only read|`filepath`.*got"):
        callbacks.ModelCheckpoint(tmp_path / name, save_weights_only=call == "save_weights")
    assert not os.listdir(tmp_path)


def test_words_of_save(tmp_path):
    model = built(chain((None, 3, 2), LSTM, DENSE))
    path, weights = tmp_path / "m.keras", tmp_path / "m.weights.h5"
    with pytest.raises(ValueError, match=r"`zipped`: .*got False"):
        model.save(path, zipped=False)
    for file in (path, weights):
        file.write_bytes(b"before")
    with pytest.raises(FileExistsError, match=r"m\.keras"):
        model.save(path, overwrite=False)
    with pytest.raises(FileExistsError, match=r"m\.weights\.h5"):
        model.save_weights(weights, overwrite=False)
    with pytest.raises(ValueError, match="no weights yet"):
        models.Sequential([layers.Dense(2)]).save(path)
    with pytest.raises(ValueError, match="no weights yet"):
        models.Sequential([layers.Dense(2)]).save_weights(weights)
    with pytest.raises(FileNotFoundError):
        model.save(tmp_path / "no" / "m.keras")
    assert path.read_bytes() == weights.read_bytes() == b"before" and len(os.listdir(tmp_path)) == 2


def test_a_full_disk_leaves_the_old_file(tmp_path):
    model = built(chain((None, 3, 2), LSTM, DENSE))
    model.save(tmp_path / "m.keras")
    model.save_weights(tmp_path / "m.weights.h5")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        for call in (lambda: model.save(tmp_path / "m.keras"), lambda: model.save_weights(tmp_path / "m.weights.h5")):
            with pytest.raises(OSError, match="File too large"):
                call()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_checkpoints(tmp_path):
    model, x, y = trained("adam", 0)
    saving = [
        callbacks.ModelCheckpoint(tmp_path / "{epoch}-{mae:.0f}.keras"),
        callbacks.ModelCheckpoint(str(tmp_path / "w.weights.h5"), save_weights_only=True, save_freq=2),
        callbacks.BackupAndRestore(tmp_path / "backup"),
    ]
    model.fit(x, y, batch_size=2, epochs=2, verbose=0, callbacks=saving)
    names = sorted(os.listdir(tmp_path))
    assert len(names) == 3 and names[0].startswith("1-") and names[1].startswith("2-") and names[2] == "w.weights.h5"
    loaded = models.load_model(tmp_path / names[1])
    other, _, _ = trained("adam", 1)
    other.load_weights(tmp_path / names[2])
    assert [int(m.optimizer.iterations) for m in (loaded, other)] == [6, 6]
    for one in (loaded, other):
        assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), one.get_weights()))


def test_metrics_of_ones_own_are_written_by_name(tmp_path):
    model, x, y = trained("sgd", 0)
    renamed = metrics.MeanMetricWrapper(worst, name="w")
    model.compile("sgd", "mse", metrics=[worst, renamed, Own()], weighted_metrics=[Own(name="other")])
    model.save(tmp_path / "m.keras")
    with pytest.raises(ValueError, match="unknown metric 'worst'"):
        models.load_model(tmp_path / "m.keras")
    loaded = models.load_model(tmp_path / "m.keras", custom_objects={"worst": worst, "Own": Own})
    assert loaded.metrics_names == model.metrics_names
    assert loaded.evaluate(x, y, verbose=0) == model.evaluate(x, y, verbose=0)
