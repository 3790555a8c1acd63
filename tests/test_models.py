"""Sequential as a container: building, names, weights, configs, summary, layers called alone, utilities, doctests."""

import copy
import inspect
import os
import pickle
import re

import numpy as np
import pytest

import seqcore
from seqcore import constraints, layers, models, regularizers, utils
from support import Case, chain, random_case, rng_pick, sequential, spec

RNG = np.random.default_rng(0)


def small():
    return models.Sequential([layers.Input((4, 3)), layers.LSTM(5), layers.Dropout(0.5), layers.Dense(2)])


def test_weights_have_keras_order_shapes_and_names():
    model = models.Sequential([
        layers.Input((6,), dtype="int32"), layers.Embedding(10, 4), layers.SimpleRNN(3, return_sequences=True),
        layers.Bidirectional(layers.GRU(2, return_sequences=True)), layers.LayerNormalization(),
        layers.TimeDistributed(layers.Dense(3)), layers.GRU(2, reset_after=False), layers.Dense(1, use_bias=False),
    ])  # fmt: skip
    shapes = [
        (10, 4), (4, 3), (3, 3), (3,), (3, 6), (2, 6), (2, 6), (3, 6), (2, 6), (2, 6), (4,), (4,), (4, 3), (3,),
        (3, 6), (2, 6), (6,), (2, 1),
    ]  # fmt: skip
    assert [w.shape for w in model.get_weights()] == shapes
    assert [tuple(v.shape) for v in model.weights] == shapes
    assert model.count_params() == sum(int(np.prod(s)) for s in shapes)
    assert [w.shape for w in model.layers[2].get_weights()] == shapes[4:10]
    names = [v.name for v in model.layers[1].weights]
    assert names == ["kernel", "recurrent_kernel", "bias"]


def test_set_weights_round_trip_and_layer_by_layer():
    a, b = small(), small()
    assert not np.array_equal(a.predict(np.ones((1, 4, 3)), verbose=0), b.predict(np.ones((1, 4, 3)), verbose=0))
    b.set_weights(a.get_weights())
    assert np.array_equal(a.predict(np.ones((1, 4, 3)), verbose=0), b.predict(np.ones((1, 4, 3)), verbose=0))
    new = [np.full_like(w, 0.5) for w in a.layers[0].get_weights()]
    a.layers[0].set_weights(new)
    assert all((w == 0.5).all() for w in a.get_weights()[:3])
    copied = a.get_weights()
    copied[0][:] = 9
    assert (a.get_weights()[0] == 0.5).all()


def test_add_pop_and_shapes():
    model = models.Sequential()
    model.add(layers.SimpleRNN(4, return_sequences=True, input_shape=(None, 3)))
    model.add(layers.Dense(2))
    assert model.input_shape == (None, None, 3) and model.output_shape == (None, None, 2)
    assert len(model.layers) == 2
    model.pop()
    assert model.output_shape == (None, None, 4)
    assert model.predict(np.zeros((2, 7, 3)), verbose=0).shape == (2, 7, 4)
    assert model.predict(np.zeros((2, 1, 3)), verbose=0).shape == (2, 1, 4)


def test_deferred_build():
    model = models.Sequential([layers.LSTM(3), layers.Dense(1)])
    assert not model.built
    model.compile("adam", "mse")
    model.fit(RNG.random((4, 2, 5)), RNG.random((4, 1)), verbose=0)
    assert model.built and model.get_weights()[0].shape == (5, 12)
    other = models.Sequential([layers.Dense(1)])
    other.build((None, 7))
    assert other.get_weights()[0].shape == (7, 1)


def test_layers_have_their_weights_once_the_input_is_known():
    """Pretrained tables are set and weights are looked at before anything runs; a layer does not wait for its model."""
    table = np.arange(20.0, dtype=np.float32).reshape(10, 2)
    embedding, wrapped = layers.Embedding(10, 2), layers.TimeDistributed(layers.Dense(3))
    both = layers.Bidirectional(layers.GRU(4))
    model = models.Sequential([layers.Input((5,), dtype="int32"), embedding])
    assert model.built and embedding.built
    embedding.set_weights([table])
    model.add(wrapped)
    model.add(both)
    assert [v.shape for v in wrapped.layer.weights] == [(2, 3), (3,)]
    assert both.backward_layer.recurrent_kernel.shape == (4, 12) and both.count_params() == 2 * (36 + 48 + 24)
    assert np.array_equal(model.get_weights()[0], table)
    assert np.array_equal(model.layers[1].get_weights()[0], model.get_weights()[1])
    assert not hasattr(embedding, "units") and repr(layers.Dense(1, name="d")) == "<Dense name=d, built=False>"
    late = layers.Dense(2)
    model = models.Sequential([late])
    assert not model.built and not late.built and late.get_weights() == []
    model.build((None, 3))
    assert late.built and late.kernel.shape == (3, 2)
    looked, blind = (models.Sequential([layers.Input((3,))]) for _ in range(2))
    looked.seed = blind.seed = 5
    for _ in range(3):
        looked.add(layers.Dense(2))
        assert looked.layers[-1].built
        blind.add(layers.Dense(2))
    assert all(np.array_equal(a, b) for a, b in zip(looked.get_weights(), blind.get_weights(), strict=True))


def test_models_from_input_to_output():
    """Keras's functional form, of one chain."""
    inputs = layers.Input((None,), dtype="int32")
    assert inputs.shape == (None, None) and layers.Input((5, 3), batch_size=2).shape == (2, 5, 3)
    x = layers.Embedding(9, 4, mask_zero=True)(inputs)
    x = hidden = layers.Bidirectional(layers.LSTM(3))(x)
    assert x.shape == (None, 6) and x.dtype == "float32" and "bidirectional" in repr(x)
    model = seqcore.Model(inputs=inputs, outputs=[layers.Dense(2)(x)])
    assert isinstance(model, models.Sequential) and isinstance(model, models.Model)
    assert [type(layer) for layer in model.layers] == [layers.Embedding, layers.Bidirectional, layers.Dense]
    assert model.input_shape == (None, None) and model.name.startswith("functional")
    ids = RNG.integers(0, 9, (5, 7))
    alike = models.Sequential([layers.Input((None,), dtype="int32"), *model.layers])
    assert np.array_equal(model.predict(ids, verbose=0), alike.predict(ids, verbose=0))
    encoder = models.Model([inputs], hidden, name="encoder", trainable=False)
    assert encoder.name == "encoder" and not encoder.trainable_weights
    model.compile("adam", "mse")
    model.fit(ids, np.ones((5, 2)), verbose=0)
    both = model.layers[2](encoder.predict(ids, verbose=0))  # the same layers, trained
    assert np.array_equal(both, model.predict(ids, verbose=0))
    assert isinstance(copy.deepcopy(model), models.Sequential)


@pytest.mark.parametrize(
    "begin", [[layers.Input((4, 3), name="x")], [layers.Dense(5, input_shape=(4, 3))], [layers.Dense(5)]]
)
def test_parts_of_a_model(begin):
    model, x = models.Sequential([*begin, layers.LSTM(4, name="code"), layers.Dense(2)]), RNG.random((3, 4, 3))
    whole = model.predict(x, verbose=0)
    assert model.input.shape == (None, 4, 3) or len(begin[0].name) > 1  # fitted to data, a model takes any time
    assert [(t.shape[-1], t.dtype, t.name) for t in (*model.inputs, *model.outputs)] == [
        (3, "float32", model.input.name), (2, "float32", model.output_names[0])
    ]  # fmt: skip
    code, last = model.get_layer("code"), model.layers[-1]
    encoder = models.Model(inputs=model.inputs, outputs=code.output)
    codes = encoder.predict(x, verbose=0)
    assert codes.shape == (3, 4) and np.array_equal(last(codes), whole)
    del encoder  # it had the layer, too
    assert np.array_equal(models.Model(model.input, [code.output]).predict(x, verbose=0), codes)
    assert np.array_equal(models.Model(model.input, model.output).predict(x, verbose=0), whole)
    assert np.array_equal(models.Model(last.input, last.output).predict(codes, verbose=0), whole)
    more = models.Model(model.inputs, layers.Dense(1)(code.output))
    assert more.layers[:-1] == model.layers[:-1] and more.output_shape == (None, 1)
    alone = layers.Dense(3)
    assert not hasattr(alone, "output") and not hasattr(models.Sequential([alone]), "input")
    with pytest.raises(AttributeError, match="stands in no model whose input is known"):
        _ = alone.input
    with pytest.raises(ValueError, match="`outputs` of Model: expected layers called on"):
        models.Model(last.input, code.output)


def test_models_in_models():
    """A model stands for its layers, as frozen as it is."""
    x = RNG.random((3, 4, 3))
    base = models.Sequential([layers.Input((4, 3)), layers.GRU(4), layers.Dense(3, name="head")], trainable=False)
    inputs = layers.Input((4, 3))
    for model in (
        models.Sequential([base, layers.Dense(2)]),
        models.Sequential([layers.Input((4, 3)), layers.Dropout(0.0), base, layers.Dense(2)]),
        models.Model(inputs, layers.Dense(2)(base(inputs))),
    ):
        assert [type(layer).__name__ for layer in model.layers[-3:]] == ["GRU", "Dense", "Dense"]
        assert np.array_equal(model.predict(x, verbose=0), model.layers[-1](base.predict(x, verbose=0)))
        before = base.get_weights()
        model.compile("sgd", "mse")
        model.fit(x, np.ones((3, 2)), verbose=0)
        assert len(model.trainable_weights) == 2 and all(map(np.array_equal, base.get_weights(), before))
    base.trainable = True
    assert len(model.trainable_weights) == 7
    model = models.Sequential([base])
    for other, message in (
        (models.Sequential([layers.Dense(2), layers.Dense(3, name="head")]), "unique names"),
        (models.Sequential([layers.Dense(2), layers.LSTM(3)]), "axes"),
    ):
        with pytest.raises(ValueError, match=message):
            model.add(other)
        assert len(model.layers) == 2 and model.output_shape == (None, 3)
    for arguments in ({"training": True}, {"mask": np.ones((3, 4))}):
        with pytest.raises(ValueError, match="`training=True` and `mask` are for calls on arrays"):
            base(inputs, **arguments)


def test_layers_that_are_in_training_as_at_inference():
    """Dropout is left out, statistics stay, all else is trained; so it is in clones, copies and files."""
    x, y = RNG.random((20, 4, 3)), RNG.random((20, 2))
    base = models.Sequential([layers.Input((4, 3)), layers.GRU(4, return_sequences=True), layers.Dropout(0.9),
                              layers.BatchNormalization(name="bn"), layers.SpatialDropout1D(0.5),
                              layers.TimeDistributed(layers.Dropout(0.5)), layers.Dropout(0.0),
                              layers.TimeDistributed(layers.BatchNormalization()), layers.LSTM(3)])  # fmt: skip
    base.get_layer("bn").set_weights([np.full(4, v) for v in (2.0, -1.0, 0.5, 3.0)])
    inputs = layers.Input((4, 3))
    model = models.Model(inputs, layers.Dense(2)(base(inputs, training=False)))
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds == ["GRU", "BatchNormalization", "Dropout", "TimeDistributed", "LSTM", "Dense"]
    np.testing.assert_array_equal(model.predict(x, verbose=0), model.layers[-1](base.predict(x, verbose=0)))
    model.compile("adam", "mse")
    told = model.evaluate(x, y, verbose=0)
    assert model.train_on_batch(x, y) == pytest.approx(told, rel=1e-6)  # batches are not normalised by themselves
    model.fit(x, y, verbose=0)
    norm = base.get_layer("bn")
    assert [float(w.numpy()[0]) for w in norm.weights[2:]] == [0.5, 3.0]
    assert not np.array_equal(norm.gamma, np.full(4, 2.0)) and norm.trainable
    assert [w.tolist() for w in model.layers[3].get_weights()[2:]] == [[0.0] * 4, [1.0] * 4]
    alike = models.clone_model(model)
    alike.set_weights(model.get_weights())
    for other in (alike, copy.deepcopy(model)):
        other.compile(seqcore.optimizers.SGD(0.5), "mse")
        other.fit(x, y, verbose=0)
        for layer in (other.layers[1], other.layers[3]):
            before = model.layers[other.layers.index(layer)].get_weights()[2:]
            assert all(map(np.array_equal, layer.get_weights()[2:], before))
    assert copy.deepcopy(norm).inference_only and pickle.loads(pickle.dumps(model.layers[3])).inference_only
    assert not copy.deepcopy(layers.BatchNormalization()).inference_only
    with pytest.raises(ValueError, match=r'layer "bn" is trained in a call with `training=False`, .*no words'):
        model.save("never.keras")
    base.trainable = False
    config = model.get_config()
    assert "never.keras" not in os.listdir() and config["layers"][2]["config"]["trainable"] is False


def test_what_files_know_of_statistics_that_stay(tmp_path):
    x, y = RNG.random((20, 3)), RNG.random((20, 2))
    inputs = layers.Input((3,))
    out = layers.Dense(2)(layers.BatchNormalization()(layers.Dense(4)(inputs), training=False))
    model = models.Model(inputs, out)
    model.compile("adam", "mse")
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "m.safetensors")
    again = models.load_model(tmp_path / "m.safetensors")
    for each in (model, again):
        each.fit(x, y, epochs=3, verbose=0)
        assert [w.tolist() for w in each.layers[1].get_weights()[2:]] == [[0.0] * 4, [1.0] * 4]
    assert all(map(np.array_equal, model.get_weights(), again.get_weights()))


def test_recurrent_dropout_is_no_inference():
    inputs = layers.Input((4, 3))
    norm = layers.BatchNormalization()
    for layer in (
        layers.LSTM(3, dropout=0.5), layers.Bidirectional(layers.GRU(2, recurrent_dropout=0.25)),
        layers.RNN([layers.GRUCell(2), layers.LSTMCell(3, dropout=0.1)]),
        layers.TimeDistributed(layers.Bidirectional(layers.SimpleRNN(2, dropout=0.5))),
    ):  # fmt: skip
        given = layers.Input((2, 4, 3)) if isinstance(layer, layers.TimeDistributed) else inputs
        with pytest.raises(ValueError, match=r"`training=False`: it drops in training, .*: set both to 0 before"):
            layer(given, training=False)
        with pytest.raises(ValueError, match="`training=False`: it drops in training"):
            models.Sequential([norm, layer])(given, training=False)
        assert not norm.inference_only
        assert layer(given).shape == layer(given, training=None).shape
    for layer in (layers.LSTM(3), layers.Bidirectional(layers.GRU(2)), layers.RNN([layers.GRUCell(2)])):
        assert layer(inputs, training=False).layers == (layer,)
    with pytest.raises(ValueError, match="expected 3 axes"):
        layers.SpatialDropout1D(0.5)(layers.Input((3,)), training=False)


def test_what_is_no_chain():
    inputs, other = layers.Input((4, 3)), layers.Input((4, 3))
    out = layers.LSTM(2, name="one")(inputs)
    twice = layers.Dense(3, name="twice")
    for make, error, message in (
        (
            lambda: models.Model(inputs, layers.LSTM(2)(other)),
            ValueError,
            "`outputs` of Model: expected layers called on",
        ),
        (lambda: models.Model([inputs, other], out), ValueError, "`inputs` of Model: expected an Input"),
        (lambda: models.Model(inputs, [out, out]), ValueError, "`outputs` of Model: expected what a layer gave"),
        (lambda: models.Model(inputs, inputs), ValueError, "`outputs` of Model"),
        (lambda: models.Model(inputs, twice(twice(inputs))), ValueError, "unique names"),
        (lambda: models.Model(), TypeError, "inputs"),
        (lambda: type("Own", (models.Model,), {})(), TypeError, "Own: .* expected a subclass of Sequential"),
        (lambda: layers.Dense(2)(layers.Dense(3)), TypeError, "`x`: expected an array, an Input"),
        (lambda: layers.Flatten()(inputs, mask=np.ones((1, 4))), ValueError, "are for calls on arrays"),
        (lambda: layers.Dropout(0.5)(out, training=True), ValueError, "`training=True`, .* are for calls on arrays"),
        (lambda: layers.LSTM(2, return_state=True, name="two")(inputs), ValueError, '"two" has several outputs'),
        (lambda: layers.LSTM(2)(out), ValueError, "expected 3 axes"),
    ):
        with pytest.raises(error, match=message):
            make()


def test_arguments_set_too_late():
    x, model = RNG.random((3, 4, 3)), small()
    model.layers[-1].activation = "relu"  # nothing is built yet
    model.layers[-1].bias.assign([3, -9])
    before = model.predict(x, verbose=0)
    assert (before[:, 0] > 0).all() and not before[:, 1].any()
    with pytest.warns(UserWarning, match=r'layer "dense.*": `activation` is set too late'):
        model.layers[-1].activation = "tanh"
    model.layers[-1].trainable, model.layers[0].name = False, "first"
    assert np.array_equal(model.predict(x, verbose=0), before)
    clone = models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert np.allclose(clone.predict(x, verbose=0)[:, 0], np.tanh(before[:, 0]), atol=1e-6)


def test_penalties_on_weights():
    given = {"kernel_regularizer": regularizers.L1(0.5), "kernel_initializer": "ones", "bias_initializer": "ones"}
    lstm = layers.LSTM(2, recurrent_regularizer=regularizers.L2(2), recurrent_initializer="ones", **given)
    dense = layers.Dense(1, bias_regularizer="l1l2", name="last", **given)
    table = layers.Embedding(4, 3, embeddings_regularizer="l1", embeddings_initializer="ones")
    both = layers.Bidirectional(layers.SimpleRNN(1, return_sequences=True, **given))
    model = models.Sequential([layers.Input((5,), dtype="int32"), table, both, lstm, dense])
    assert table.losses == pytest.approx([0.12]) and both.losses == pytest.approx([1.5, 1.5])
    assert lstm.losses == pytest.approx([0.5 * 2 * 8, 2 * 2 * 8]) and dense.losses == pytest.approx([1.0, 0.0])
    assert model.losses == pytest.approx([0.12, 1.5, 1.5, 8, 32, 1, 0])
    assert lstm.recurrent_kernel.regularizer is lstm.recurrent_regularizer and lstm.bias.regularizer is None
    limited = layers.Dense(2, kernel_constraint="non_neg", bias_constraint="max_norm")
    limited.build((None, 3))
    assert limited.kernel.constraint is limited.kernel_constraint
    assert limited.bias.constraint.get_config() == constraints.MaxNorm().get_config()
    lstm.trainable = False
    assert lstm.losses == [] and layers.Dense(1, kernel_regularizer="l1").losses == []
    assert layers.TimeDistributed(dense).losses == dense.losses


def test_names_by_class():
    """Keras's: words begin at capitals, not at those after a digit."""
    seqcore.utils.clear_session()
    made = [layers.SimpleRNN(1), layers.LSTM(1), layers.GlobalMaxPool1D(), layers.SpatialDropout1D(0.1)]
    expected = ["simple_rnn", "lstm", "global_max_pooling1d", "spatial_dropout1d"]
    assert [layer.name for layer in made] == expected
    assert seqcore.optimizers.RMSprop().name == "rm_sprop" and seqcore.optimizers.AdamW().name == "adam_w"
    assert [seqcore.metrics.R2Score().name, seqcore.metrics.AUC().name] == ["r2_score", "auc"]


def test_what_layers_say_about_masks():
    assert layers.LSTM(1).supports_masking and layers.Dense(1).supports_masking
    assert not layers.Flatten().supports_masking and not layers.Input((1,)).supports_masking
    moving = layers.Reshape((2,)), layers.Permute((1,)), layers.RepeatVector(2)
    assert not any(layer.supports_masking for layer in moving)
    assert [layers.Embedding(1, 1, mask_zero=mask).supports_masking for mask in (False, True)] == [False, True]


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: layers.LSTM(2, time_major=True), "time_major"),
        (lambda: layers.LayerNormalization(rms_scaling=True), "rms_scaling"),
        (lambda: layers.Dense(2, lora_rank=1), "lora_rank"),
        (lambda: layers.Input((2,), sparse=True), "sparse"),
        (lambda: layers.Flatten("channels_first")(np.ones((2, 3, 4))), "data_format"),
    ],
)
def test_words_that_would_change_results_are_refused(make, what):
    with pytest.raises(ValueError, match=what):
        make()


def test_dtypes_in_any_form():
    for dtype in (None, "float32", np.float32, np.dtype("float32"), float):
        assert layers.Dense(2, dtype=dtype).get_config()["dtype"] == "float32"
        assert layers.Input((3,), dtype=dtype).dtype == "float32"
    for dtype in ("int32", np.int32, np.dtype("int32"), int):
        ids = layers.Input((3,), dtype=dtype)
        assert ids.dtype == ids.get_config()["dtype"] == "int32"


def test_words_that_change_nothing_are_accepted():
    assert layers.LSTM(2, time_major=False, use_cudnn=True, implementation=1).units == 2
    assert layers.LayerNormalization(rms_scaling=False, quantization_config=None).axis == -1
    assert layers.Flatten("channels_first")(np.ones((2, 3))).shape == (2, 3)


def test_a_table_given_to_the_constructor():
    table = np.arange(6.0).reshape(3, 2)
    for given in (table, [table]):
        layer = layers.Embedding(3, 2, weights=given)
        assert np.array_equal(layer.embeddings, table) and layer.built
    fresh = layers.Embedding(3, 2)
    assert not hasattr(fresh, "embeddings")
    fresh.build((7,))
    assert fresh.embeddings.shape == (3, 2)


def test_no_input_shape_yet():
    model = models.Sequential([layers.Dense(2)])
    for name in ("input_shape", "output_shape", "inputs", "outputs"):
        assert not hasattr(model, name)
        with pytest.raises(ValueError, match="has no input shape yet"):
            getattr(model, name)
    model.build((None, 3))
    assert model.input_shape == (None, 3) and hasattr(model, "outputs")
    with pytest.raises(ValueError, match="`layer`: expected a layer"):
        models.Sequential([{}])


def test_names_are_unique_and_layers_are_found():
    model = models.Sequential([layers.Input((3,)), layers.Dense(2, name="a"), layers.Dense(2)])
    assert model.get_layer("a") is model.layers[0] and model.get_layer(index=1) is model.layers[1]
    assert layers.Dense(1).name != layers.Dense(1).name
    assert re.fullmatch(r"simple_rnn(_\d+)?", layers.SimpleRNN(1).name)
    with pytest.raises(ValueError, match="unique"):
        models.Sequential([layers.Input((3,)), layers.Dense(2, name="a"), layers.Dense(2, name="a")])
    with pytest.raises(ValueError, match="nothing"):
        model.get_layer("nothing")


def test_summary():
    model = small()
    model.compile("adam", "mse")
    lines = []
    model.summary(print_fn=lambda line, **_: lines.append(line))
    text = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(lines))
    assert re.search(r'Model: "sequential', text)
    assert re.search(r"Layer \(type\)\s*[│|┃]\s*Output Shape\s*[│|┃]\s*Param #", text)
    for row in (
        r"lstm\w* \(LSTM\)\s*[│|]\s*\(None, 5\)\s*[│|]\s*180",
        r"dense\w* \(Dense\)\s*[│|]\s*\(None, 2\)\s*[│|]\s*12",
    ):
        assert re.search(row, text), row
    assert re.search(r"Total params: 192 \(768\.00 B\)", text)
    assert re.search(r"Trainable params: 192", text) and re.search(r"Non-trainable params: 0", text)


def test_summary_of_an_unbuilt_model(capsys):
    models.Sequential([layers.LSTM(3)]).summary()
    assert "unbuilt" in capsys.readouterr().out


@pytest.mark.parametrize("seed", range(40, 60))
def test_config_round_trip(seed):
    """from_config(get_config()) and clone_model give the same model, whatever is in it."""
    case = random_case(rng_pick(seed))
    model = sequential(seqcore, case.description)
    again = models.Sequential.from_config(model.get_config())
    clone = models.clone_model(model)
    model.set_weights(case.weights)
    for other in (again, clone):
        assert [type(layer) for layer in other.layers] == [type(layer) for layer in model.layers]
        assert other.get_config() == model.get_config()
        other.set_weights(case.weights)
        assert np.array_equal(other.predict(case.x, verbose=0), model.predict(case.x, verbose=0))
    parsed = models.model_from_json(model.to_json())
    assert parsed.get_config() == model.get_config()


def test_description_and_public_layers_agree():
    """The public model's weights and outputs are the core's, for models built from Python arguments."""
    case = Case(
        chain((None, 3, 2), spec("GRU", units=3, reset_after=False, activation="relu"), spec("Dense", units=2)),
        spec("MeanSquaredError"), 4, seed=0,
    )  # fmt: skip
    model = sequential(seqcore, case.description)
    model.set_weights(case.weights)
    np.testing.assert_allclose(model.predict(case.x, verbose=0), case.reference().forward(case.x), rtol=1e-5, atol=1e-6)


def test_layers_called_alone():
    x = RNG.normal(size=(2, 5, 3)).astype(np.float32)
    lstm = layers.LSTM(4, return_sequences=True, return_state=True)
    y, h, c = lstm(x)
    assert y.shape == (2, 5, 4) and np.array_equal(y[:, -1], h) and c.shape == (2, 4)
    y2, h2, _ = lstm(x[:, 2:], initial_state=lstm(x[:, :2])[1:])
    assert np.array_equal(y2, y[:, 2:]) and np.array_equal(h2, h)
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]], bool)
    masked = layers.SimpleRNN(4)
    assert np.array_equal(masked(x, mask=mask)[1], masked(x[1:, :2])[0])
    with_mask = np.where(mask[..., None], x, np.nan)
    assert np.isfinite(masked(with_mask, mask=mask)).all()
    d = layers.Dropout(0.5, seed=1)
    assert np.array_equal(d(x), x) and not np.array_equal(d(x, training=True), x)
    f, b = layers.Bidirectional(layers.GRU(3), merge_mode=None)(x)
    assert f.shape == b.shape == (2, 3)
    assert layers.Dense(7).compute_output_shape((None, 5, 3)) == (None, 5, 7)
    assert np.array_equal(layers.Embedding(5, 2, mask_zero=True).compute_mask(np.array([[1, 0]])), [[True, False]])


def test_what_editors_and_notebooks_show():
    class Own(models.Sequential):
        def __init__(self, units, *, depth=1):
            super().__init__([layers.Dense(units) for _ in range(depth)])

    shown = [list(inspect.signature(cls).parameters) for cls in (models.Sequential, models.Model, Own)]
    assert shown == [["layers", "trainable", "name"], ["inputs", "outputs", "name", "trainable"], ["units", "depth"]]
    layer = layers.GRU(3)
    assert "recurrent_kernel" not in dir(layer)
    layer.build((None, 2, 3))
    assert {"kernel", "recurrent_kernel", "bias", "units"} <= set(dir(layer))


def test_seeds_of_layers_make_the_same_layer():
    a, b = (layers.Dense(4, kernel_initializer=seqcore.initializers.GlorotUniform(seed=3)) for _ in range(2))
    x = RNG.random((2, 3))
    assert np.array_equal(a(x), b(x))
    assert not np.array_equal(layers.Dense(4)(x), layers.Dense(4)(x))


@pytest.mark.parametrize("padding", ["pre", "post"])
@pytest.mark.parametrize("truncating", ["pre", "post"])
def test_pad_sequences(padding, truncating):
    got = utils.pad_sequences([[1, 2, 3, 4], [5]], maxlen=3, padding=padding, truncating=truncating)
    first = [2, 3, 4] if truncating == "pre" else [1, 2, 3]
    assert got.dtype == np.int32 and got.tolist() == [first, [0, 0, 5] if padding == "pre" else [5, 0, 0]]
    assert seqcore.preprocessing.sequence.pad_sequences([[1], [1, 2]]).tolist() == [[0, 1], [1, 2]]
    assert seqcore.preprocessing.timeseries_dataset_from_array is utils.timeseries_dataset_from_array


def test_to_categorical():
    assert utils.to_categorical([0, 2], 3).tolist() == [[1, 0, 0], [0, 0, 1]]
    assert utils.to_categorical([[0], [1]]).shape == (2, 2)


def test_the_tree_of_names():
    homes = ["models", "layers", "optimizers", "losses", "metrics", "callbacks", "initializers", "regularizers"]
    for name in [*homes, "constraints", "activations", "utils", "optimizers.schedules", "preprocessing.sequence"]:
        __import__(f"seqcore.{name}")
    assert seqcore.Sequential is models.Sequential and seqcore.Input is layers.Input
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", seqcore.__version__)
    config = seqcore.show_config()
    assert {"isa", "threads", "compiler", "version"} <= set(config)


def test_models_can_be_copied():
    model = small()
    other = copy.deepcopy(model)
    other.layers[0].set_weights([np.zeros_like(w) for w in other.layers[0].get_weights()])
    assert any(w.any() for w in model.layers[0].get_weights()[:1])


def numbered(shape, dtype=None):
    """A function in an initializer's place, which pickles find by its name."""
    return np.arange(np.prod(shape), dtype=dtype).reshape(shape)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))])
@pytest.mark.parametrize("given", [numbered, np.full((3, 4), 2.5, np.float32)])
def test_copies_before_there_are_weights(copied, given):
    """They keep initializers that no config can hold, also those inside of what layers wrap."""
    model = models.Sequential([
        layers.TimeDistributed(layers.Dense(4, kernel_initializer=given)),
        layers.Bidirectional(layers.LSTM(2, bias_initializer=numbered),
                             backward_layer=layers.LSTM(2, go_backwards=True)),
        layers.RepeatVector(2), layers.RNN([layers.GRUCell(2), layers.GRUCell(3, recurrent_initializer=numbered)]),
    ])  # fmt: skip
    other = copied(model)
    assert not other.built and other.get_config() == model.get_config()
    for one in (model, other):
        one.build((None, 5, 3))
    for one in (model, other):
        cells = one.layers[3].cell.cells
        assert np.array_equal(one.layers[0].layer.kernel, numbered((3, 4)) if given is numbered else given)
        assert np.asarray(one.layers[1].forward_layer.cell.bias)[-2:].all()
        assert not np.asarray(one.layers[1].backward_layer.cell.bias)[-2:].any()
        assert np.array_equal(cells[1].recurrent_kernel, numbered((3, 9)))
        assert not np.array_equal(cells[0].recurrent_kernel, numbered((2, 6)))


def test_copies_of_models_that_know_their_input():
    """Like those of Keras, which has made the weights then."""
    model = models.Sequential([layers.Input((3,)), layers.Dense(4), layers.Dropout(0.5)], name="whole")
    model.trainable = False
    other = copy.deepcopy(model)
    assert other.name == "whole" and not other.trainable and other.get_config() == model.get_config()
    assert all(map(np.array_equal, model.get_weights(), other.get_weights()))
    assert other.layers[0] is not model.layers[0]


def test_weights_have_names():
    layer = layers.LSTM(3)
    with pytest.raises(AttributeError, match="kernel"):
        _ = layer.kernel
    layer.build((None, 4, 2))
    assert [layer.kernel.shape, layer.cell.recurrent_kernel.shape, layer.bias.shape] == [(2, 12), (3, 12), (12,)]
    layer.kernel.assign(np.ones((2, 12)))
    assert layer.get_weights()[0].min() == 1.0


def test_freezing_counts_until_the_first_step():
    x, y = np.ones((4, 5), np.float32), np.zeros((4, 1), np.float32)
    model = models.Sequential([layers.Dense(3, input_shape=(5,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    model.layers[0].trainable = False
    before = [layer.get_weights() for layer in model.layers]
    model.fit(x, y, verbose=0)
    after = [layer.get_weights() for layer in model.layers]
    assert np.array_equal(before[0][0], after[0][0]) and not np.array_equal(before[1][0], after[1][0])
    model.layers[0].trainable = True  # from now on it takes a compile
    model.fit(x, y, verbose=0)
    assert np.array_equal(before[0][0], model.layers[0].get_weights()[0])


def test_layers_without_a_bias_have_none():
    for layer in (layers.Dense(2, use_bias=False), layers.LSTM(2, use_bias=False), layers.SimpleRNN(2, use_bias=False),
                  layers.GRU(2, use_bias=False)):  # fmt: skip
        layer.build((None, 4, 3))
        assert layer.bias is None and getattr(layer, "cell", layer).bias is None
        assert layer.kernel is not None
    norm = layers.LayerNormalization(center=False, scale=False)
    assert norm.beta is None and norm.gamma is None
    with pytest.raises(AttributeError, match="bias"):
        layers.Dense(2).bias  # noqa: B018
    dense = layers.Dense(2)
    dense.build((None, 3))
    assert dense.bias.shape == (2,)


def test_embedding_needs_no_shape():
    layer = layers.Embedding(3, 2)
    layer.build()
    table = layer.get_weights()[0]
    assert table.shape == (3, 2)
    assert np.array_equal(layer([1, 2]), table[[1, 2]])
    assert np.array_equal(layer(np.array([[1, 2], [0, 1]])), table[[[1, 2], [0, 1]]])
    assert models.Sequential([layers.Input((5,), dtype="int32"), layer]).output_shape == (None, 5, 2)
    assert layers.Embedding(3, 2, mask_zero=True)([0, 2]).shape == (2, 2)
    assert layers.Embedding(3, 2, mask_zero=True).compute_mask([0, 2]).tolist() == [False, True]
    with pytest.raises(ValueError, match="id"):
        layer([3])


def test_a_mask_may_have_an_axis_of_one():
    x, mask = RNG.random((2, 3, 4)), np.array([[True, True, False], [True, False, False]])
    for layer in (layers.TimeDistributed(layers.Dense(2)), layers.GRU(3)):
        assert np.array_equal(layer(x, mask=mask[..., None]), layer(x, mask=mask))
    for shape in [(2, 3, 2), (2, 3, 1, 1), (2, 4, 1)]:
        with pytest.raises(ValueError, match="`mask`: expected shape"):
            layer(x, mask=np.ones(shape, bool))


def test_variables_are_arrays_in_arithmetic():
    layer = layers.Dense(2, kernel_initializer=seqcore.initializers.Constant([[1, -2], [3, 4]]))
    layer.build((None, 2))
    v, w = layer.kernel, layer.kernel.numpy()
    for ours, expected in [
        (v + 1, w + 1), (1 - v, 1 - w), (v * v, w * w), (2 / v, 2 / w), (v**2, w**2), (-v, -w), (abs(v), abs(w)),
        (v > 1, w > 1), (v <= w, w <= w), (v[0], w[0]), (v[:, 1], w[:, 1]), (np.sqrt(v * v), abs(w)), (v @ w, w @ w),
        (np.ones(2) * v, w), (np.sum(v), w.sum()), (list(v)[1], w[1]), (v[0] if v.ndim else 0, w[0]),
    ]:  # fmt: skip
        assert not isinstance(ours, utils.Variable) and np.array_equal(ours, expected)
    assert len(v) == 2 and {v: 1}[v] == 1 and v in {v} and v == v and v != layer.bias and [v, layer.bias].index(v) == 0
    assert (v == w).all() and not (v != w).any() and (v == -2).sum() == 1 and v not in [None, layer.bias]
    rate = seqcore.optimizers.SGD(0.5).learning_rate
    assert rate == 0.5 and rate != 0.25
    assert rate * 0.5 == 0.25 and float(rate) == 0.5 and rate > 0.25 and bool(rate)
    with pytest.raises(TypeError):
        len(rate)
    with pytest.raises(TypeError, match="assign"):
        v += 1
    with pytest.raises(ValueError, match="read-only"):
        v[0][0] = 9
    assert np.array_equal(layer.kernel.numpy(), w)


def test_copies_of_a_variable_are_their_own():
    model = small()
    model.build()
    kernel = model.layers[0].kernel
    for copied in (copy.deepcopy(kernel), pickle.loads(pickle.dumps(kernel))):
        for name in ("name", "path", "shape", "dtype", "trainable"):
            assert getattr(copied, name) == getattr(kernel, name)
        assert np.array_equal(copied.numpy(), kernel.numpy()) and copied is not kernel
        copied.assign(copied * 0)
        assert not copied.numpy().any() and kernel.numpy().any()
        with pytest.raises(ValueError, match="expected shape"):
            copied.assign([1.0])


def test_a_clone_of_a_compiled_model_is_compiled():
    model = small()
    assert not models.clone_model(model).compiled
    model.compile(seqcore.optimizers.SGD(0.125, momentum=0.5), "mae", metrics=["mse"], weighted_metrics=["mae"])
    x, y = RNG.random((8, 4, 3)), RNG.random((8, 2))
    model.train_on_batch(x, y)
    clone = models.clone_model(model)
    assert clone.compiled and clone.optimizer is not model.optimizer
    assert clone.optimizer.get_config() == model.optimizer.get_config() and int(clone.optimizer.iterations) == 0
    assert list(clone.test_on_batch(x, y, return_dict=True)) == ["loss", "mae", "mse"]
    before = model.get_weights()
    clone.fit(x, y, verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights()))


def test_clones_with_another_input():
    model = models.Sequential([layers.Input((4, 3), name="given"), layers.LSTM(5), layers.Dense(2)])
    inputs = layers.Input((None, 7), batch_size=6, name="other")
    for given in (inputs, [inputs], layers.Activation("tanh", name="other")(inputs)):
        clone = models.clone_model(model, input_tensors=given)
        assert clone.input_shape == (6, None, 7) and clone.input.name == "other"
        assert [w.shape for w in clone.layers[0].weights] == [(7, 20), (5, 20), (20,)]
        assert [layer.name for layer in clone.layers] == [layer.name for layer in model.layers]
    assert model.input_shape == (None, 4, 3) and models.clone_model(model).input.name == "given"
    ids = models.Sequential([layers.Embedding(9, 2), layers.GRU(3)])
    assert not models.clone_model(ids).built
    clone = models.clone_model(ids, layers.Input((None,), dtype="int32"))
    assert clone.input.dtype == "int32" and clone.output_shape == (None, 3) and clone.layers[0] is not ids.layers[0]
    # Layers that are built fit their own input alone.
    model.build()
    shared = models.clone_model(model, layers.Input((9, 3)), clone_function=lambda layer: layer)
    assert shared.layers == model.layers and shared.weights == model.weights
    with pytest.raises(ValueError, match="was built for another input"):
        models.clone_model(model, inputs, clone_function=lambda layer: layer).weights  # noqa: B018


def test_clones_of_what_another_function_makes():
    model = models.Sequential([layers.Input((4, 3)), layers.LSTM(5, name="r"), layers.Dense(2)])

    def both_ways(layer):
        new = type(layer).from_config(layer.get_config())
        return layers.Bidirectional(new) if isinstance(layer, layers.LSTM) else new

    for recursive in (False, True):
        clone = models.clone_model(model, clone_function=both_ways, recursive=recursive)
        assert [type(layer) for layer in clone.layers] == [layers.Bidirectional, layers.Dense]
        assert clone.input_shape == (None, 4, 3) and clone.layers[1].kernel.shape == (10, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"call_function": lambda layer, x: layer(x)}, "`call_function`: expected None"),
        ({"clone_function": 3}, "`clone_function`: expected a function of a layer, or None, got 3"),
        ({"clone_function": lambda layer: None}, '`clone_function`: expected a layer for layer "dense.*", got None'),
        ({"input_tensors": [layers.Input((3,)), layers.Input((3,))]}, "`input_tensors`: expected an Input, the only"),
        ({"input_tensors": np.ones((2, 3))}, "`input_tensors`: expected an Input"),
        ({"input_tensors": []}, r"`input_tensors`: expected an Input, the only one, got \[\]"),
        ({"recursive": "yes"}, "`recursive`: expected True or False, got 'yes'"),
        ({"model": layers.Dense(2)}, "`model`: expected a model"),
    ],
)  # fmt: skip
def test_bad_arguments_of_clones(arguments, message):
    model = models.Sequential([layers.Input((3,)), layers.Dense(2)])
    with pytest.raises(ValueError, match=message):
        models.clone_model(**{"model": model, **arguments})


@pytest.mark.parametrize(
    ("length", "stride", "rate", "size", "begin", "end", "many"),
    [(3, 1, 1, 4, None, None, 20), (1, 1, 1, 128, None, None, 20), (4, 3, 2, 2, 1, 18, 20), (2, 5, 7, 1, 0, 20, 6),
     (3, 2, 1, None, 2, None, 9), (20, 1, 1, 3, None, None, 20)],
)  # fmt: skip
def test_timeseries_dataset(length, stride, rate, size, begin, end, many):
    series, targets = np.arange(40.0).reshape(20, 2), np.arange(many) * 10
    given = dict(sequence_stride=stride, sampling_rate=rate, batch_size=size, start_index=begin, end_index=end)
    first, last = begin or 0, 20 if end is None else end
    expected = [
        (series[i : i + (length - 1) * rate + 1 : rate], i * 10)
        for i in range(first, last, stride)
        if i + (length - 1) * rate < last and i < many
    ]
    found = list(utils.timeseries_dataset_from_array(series, targets, length, **given))
    assert len(found) == len(utils.timeseries_dataset_from_array(series, targets, length, **given))
    if size is not None:
        assert [len(x) for x, _ in found[:-1]] == [size] * (len(found) - 1) and 0 < len(found[-1][0]) <= size
        found = [pair for x, y in found for pair in zip(x, y, strict=True)]
    assert len(found) == len(expected) > 0
    for (x, y), (window, target) in zip(found, expected, strict=True):
        assert np.array_equal(x, window) and y == target
    alone = utils.timeseries_dataset_from_array(series, None, length, **{**given, "batch_size": 128})
    assert alone[0].shape[1:] == (length, 2)


def test_timeseries_dataset_shuffled_and_trained_on():
    series = np.random.default_rng(0).normal(size=(50, 3))
    windows = utils.timeseries_dataset_from_array(series, np.arange(50), 4, batch_size=8, shuffle=True, seed=3)
    orders = []
    for _ in range(2):
        orders.append(np.concatenate([y for _, y in windows]).tolist())
        windows.on_epoch_end()
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1]) == list(range(47))
    again = utils.timeseries_dataset_from_array(series, np.arange(50), 4, batch_size=8, shuffle=True, seed=3)
    assert np.concatenate([y for _, y in again]).tolist() == orders[0]
    model = models.Sequential([layers.LSTM(3), layers.Dense(1)])
    model.compile(loss="mse")
    assert len(model.fit(windows, epochs=2, verbose=0, validation_data=again).history["val_loss"]) == 2
    assert model.predict(windows, verbose=0).shape == (47, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sequence_length": 0}, "`sequence_length`"),
        ({"sequence_length": 11}, "`sequence_length`: no window of 11 entries fits into 10"),
        ({"sequence_stride": 10}, "`sequence_stride`: expected less than the 10 entries"),
        ({"sampling_rate": 0}, "`sampling_rate`"),
        ({"batch_size": 0}, "`batch_size`"),
        ({"start_index": 5, "end_index": 5}, "`start_index` and `end_index`"),
        ({"end_index": 11}, "`end_index`"),
        ({"targets": []}, "no window"),
        ({"data": 3.0}, "`sequence_stride`"),
    ],
    ids=str,
)
def test_timeseries_dataset_refuses(change, message):
    given = {"data": np.arange(10), "targets": np.arange(10), "sequence_length": 2, **change}
    with pytest.raises(ValueError, match=message):
        utils.timeseries_dataset_from_array(**given)


def test_a_layer_called_on_an_input_has_weights():
    x = layers.Input((5, 3))
    lstm, dense = layers.LSTM(4), layers.Dense(2)
    y = dense(layers.Dropout(0.5)(lstm(x)))
    assert lstm.built and lstm.kernel.shape == (3, 16) and dense.kernel.shape == (4, 2)
    dense.set_weights([np.ones((4, 2)), np.zeros(2)])
    before = lstm.get_weights()
    model = models.Model(x, y)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights()[:3], before, strict=True))
    assert np.array_equal(model.get_weights()[3], np.ones((4, 2)))
    assert np.array_equal(model.predict(np.ones((2, 5, 3)), verbose=0), dense(lstm(np.ones((2, 5, 3)))))
