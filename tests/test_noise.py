"""GaussianNoise, GaussianDropout, AlphaDropout: random in training, nothing otherwise. ActivityRegularization."""

import json

import numpy as np
import pytest

import seqcore
from seqcore import _core, layers, models
from support import Case, assert_close, chain, compiling, instance, spec
from test_layers import MSE, check_layer

SHAPE = (None, 1, None)
ITEMS = [
    spec("GaussianNoise", stddev=0.5), spec("GaussianDropout", rate=0.3), spec("AlphaDropout", rate=0.4),
    spec("AlphaDropout", rate=0.4, noise_shape=SHAPE),
]  # fmt: skip
each = pytest.mark.parametrize("item", ITEMS, ids=json.dumps)


def drawn(item, shape, seed=7):
    """What the layer draws: what is added, the factors, or 0 where something is dropped."""
    x = np.zeros(shape, np.float32) if item["class_name"] == "GaussianNoise" else np.ones(shape, np.float32)
    model = _core.Model(json.dumps(chain((None, *shape[1:]), spec(item["class_name"], **item["config"], seed=seed))), 0)
    (y,), _ = model.forward(x, True, None, None)
    return np.where(y == y.min(), 0.0, y) if item["class_name"] == "AlphaDropout" else y


@each
def test_values_and_gradients(item):
    """Those of the reference with the same draws."""
    seeded = spec(item["class_name"], **item["config"], seed=7)
    case = Case(chain((None, 5, 3), spec("Dense", units=19), seeded, spec("Dense", units=2)), MSE, 6, seed=0)
    model = _core.Model(json.dumps(case.description), 0)
    for i, w in enumerate(case.weights):
        model.set_weight(i, w)
    model.compile(compiling(MSE, spec("SGD", learning_rate=1.0)))
    noise = drawn(item, (6, 5, 19))
    loss, gradients = case.reference().loss_and_gradients(MSE, case.x, case.y, None, noise={1: noise})
    assert_close(model.train_on_batch(case.x, case.y, None, None), loss)
    for i, (w, g) in enumerate(zip(case.weights, gradients, strict=True)):
        assert_close(w - model.get_weight(i), g, rtol=1e-4)


@each
def test_inference(item):
    layer, x = instance(seqcore, item), np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
    assert np.array_equal(layer(x), x) and not np.array_equal(layer(x, training=True), x)
    assert layer.compute_output_shape((None, 5, 3)) == (None, 5, 3) and layer.count_params() == 0
    mask = x[..., 0] < 0
    assert np.array_equal(layer.compute_mask(x, mask), mask)
    check_layer(Case(chain((None, 5, 3), spec("Masking", mask_value=0.5), item, spec("LSTM", units=3)), MSE, 4, seed=1))
    stream = models.Sequential([layers.Input((None, 3)), layer]).stream()
    assert np.array_equal(stream.step(x[0, 0]), x[0, 0])


@each
def test_moments(item):
    """Of what comes out for normal numbers, and of the draws."""
    shape = (4000, 7, 8)
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    y = instance(seqcore, item)(x, training=True)
    variance = {"GaussianNoise": 1.25, "GaussianDropout": 1 + 3 / 7, "AlphaDropout": 1.0}[item["class_name"]]
    tolerance = 0.05 if "noise_shape" in item["config"] else 0.01
    assert abs(y.mean()) < tolerance and abs(y.var() - variance) < 2 * tolerance
    noise = drawn(item, shape)
    if item["class_name"] == "AlphaDropout":
        assert abs((noise == 0).mean() - 0.4) < tolerance
        assert ("noise_shape" in item["config"]) == np.array_equal(noise, np.broadcast_to(noise[:, :1], shape))
    else:
        z = (noise - noise.mean()) / noise.std()
        assert abs(noise.mean() - (item["class_name"] == "GaussianDropout")) < 0.005
        assert abs((z**3).mean()) < 0.03 and abs((z**4).mean() - 3) < 0.06
        assert abs(np.corrcoef(z[:, 0].ravel(), z[:, 1].ravel())[0, 1]) < 0.02


@each
def test_seeds(item):
    """The same draws for a seed, others in each step and for other seeds, whatever the number of threads."""
    shape = (300, 7, 19)
    seeded = spec(item["class_name"], **item["config"], seed=3)
    model = _core.Model(json.dumps(chain((None, 7, 19), seeded)), 0)
    model.compile(compiling(MSE, spec("SGD")))
    x = np.ones(shape, np.float32)
    losses = [model.train_on_batch(x, x, None, None) for _ in range(3)]
    assert len(set(losses)) == 3
    before, found = seqcore.get_num_threads(), set()
    try:
        for threads in (1, 2, 3):
            seqcore.set_num_threads(threads)
            found.add(drawn(item, shape, 3).tobytes())
    finally:
        seqcore.set_num_threads(before)
    assert len(found) == 1 and found != {drawn(item, shape, 4).tobytes()}


@pytest.mark.parametrize("suffix", ["safetensors", "keras"])
def test_files(tmp_path, suffix):
    more = [spec("ActivityRegularization", l1=0.1, l2=0.25), spec("GaussianNoise", stddev=0.1, seed=5)]
    model = models.Sequential([layers.Input((4, 3)), *(instance(seqcore, item) for item in [*ITEMS, *more])])
    model.save(tmp_path / f"m.{suffix}")
    loaded = models.load_model(tmp_path / f"m.{suffix}")
    assert loaded.get_config() == model.get_config()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.GaussianNoise(1.5), "`stddev` of GaussianNoise: expected a float between 0 and 1, got 1.5"),
        (lambda: layers.GaussianNoise(-0.5), "`stddev` of GaussianNoise: expected a float between 0 and 1"),
        (lambda: layers.GaussianDropout(1), "`rate` of GaussianDropout: expected a float of at least 0 and below 1"),
        (lambda: layers.AlphaDropout(1.0), "`rate` of AlphaDropout: expected a float of at least 0 and below 1"),
        (lambda: layers.AlphaDropout("a"), "`rate` of AlphaDropout: expected a number"),
        (lambda: layers.AlphaDropout(0.5, (2, None))(np.ones((4, 3))), "noise_shape of AlphaDropout: expected"),
        (lambda: layers.ActivityRegularization(-1), "`l1` of ActivityRegularization: expected a number >= 0"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (spec("GaussianDropout", rate=1), "rate must be at least 0 and below 1"),
        (spec("AlphaDropout", rate=1), "rate must be at least 0 and below 1"),
        (spec("GaussianNoise", stddev=2), r"stddev must be in \[0, 1\]"),
        (spec("GaussianNoise", rate=0.5), "unknown key 'rate'"),
        (spec("GaussianNoise", stddev=0.5, noise_shape=[1, 1]), "unknown key 'noise_shape'"),
        (spec("ActivityRegularization", l2=-1), "l2 must be at least 0"),
    ],
)
def test_what_the_core_refuses(item, message):
    with pytest.raises(ValueError, match=message):
        _core.Model(json.dumps(chain((None, 3), item)), 0)


def test_none_of_it_in_a_call_at_inference():
    for layer in (layers.GaussianNoise(0), layers.GaussianDropout(0), layers.AlphaDropout(0)):
        x = np.ones((2, 3), np.float32)
        assert layer.as_at_inference() and np.array_equal(layer(x, training=True), x)
    given = layers.Input((3,))
    assert layers.GaussianNoise(0.5)(given, training=False).layers == ()


def test_activity_regularization():
    """In a chain; first; last; beside a penalty of the same on a layer's output."""
    item = spec("ActivityRegularization", l1=0.1, l2=0.25)
    for chain_ in (
        [spec("Dense", units=5), item, spec("LSTM", units=3)],
        [item, spec("GRU", units=3)],
        [spec("LSTM", units=3), item],
        [spec("TimeDistributed", layer=item), spec("GRU", units=2)],
    ):
        check_layer(Case(chain((None, 4, 3), *chain_), MSE, 5, seed=1))
    check_layer(Case(chain((None, 4, 3), spec("Masking", mask_value=0.5), spec("GRU", units=4, return_sequences=True),
                           item, spec("SimpleRNN", units=2)), MSE, 5, seed=1))  # fmt: skip
    x = np.random.default_rng(0).normal(size=(5, 3))
    found = []
    for more, last in (({}, [item]), ({"activity_regularizer": spec("L1L2", l1=0.1, l2=0.25)}, [])):
        case = Case(chain((None, 3), spec("Dense", units=4, **more), *last), MSE, 5, seed=1)
        model = _core.Model(json.dumps(case.description), 0)
        for i, w in enumerate(case.weights):
            model.set_weight(i, w)
        model.compile(compiling(MSE, spec("SGD")))
        found.append((model.predict(x.astype(np.float32), 8), *model.gradients(case.x, case.y, None)[1]))
    assert all(map(np.array_equal, *found))
