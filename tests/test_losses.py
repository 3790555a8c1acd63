"""Losses, metrics, regularizers, constraints and initializers as people call them, against the reference."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import seqcore
from reference import losses as reference_losses
from reference import metrics as reference_metrics
from reference import penalties
from reference.metrics import Metric
from seqcore import _core, constraints, initializers, losses, metrics, regularizers
from support import Case, assert_close, chain, compiling, spec, target

LOSSES = [
    spec("MeanSquaredError"),
    spec("MeanAbsoluteError"),
    spec("Huber"),
    spec("Huber", delta=0.3),
    spec("MeanAbsolutePercentageError"),
    spec("MeanSquaredLogarithmicError"),
    spec("LogCosh"),
    spec("Poisson"),
    spec("KLDivergence"),
    spec("Hinge"),
    spec("SquaredHinge"),
    spec("CategoricalHinge"),
    spec("CosineSimilarity"),
    spec("BinaryFocalCrossentropy"),
    spec("BinaryFocalCrossentropy", gamma=0.5, apply_class_balancing=True, alpha=0.7, label_smoothing=0.2),
    spec("BinaryFocalCrossentropy", gamma=0.0, from_logits=True),
    spec("BinaryFocalCrossentropy", gamma=3.5, from_logits=True, apply_class_balancing=True),
    spec("CategoricalFocalCrossentropy"),
    spec("CategoricalFocalCrossentropy", gamma=0.5, alpha=0.7, label_smoothing=0.2),
    spec("CategoricalFocalCrossentropy", gamma=0.0, from_logits=True),
    spec("CategoricalFocalCrossentropy", gamma=3.5, from_logits=True, label_smoothing=0.1),
    spec("BinaryCrossentropy"),
    spec("BinaryCrossentropy", label_smoothing=0.2),
    spec("BinaryCrossentropy", from_logits=True),
    spec("CategoricalCrossentropy"),
    spec("CategoricalCrossentropy", label_smoothing=0.2),
    spec("CategoricalCrossentropy", from_logits=True),
    spec("SparseCategoricalCrossentropy"),
    spec("SparseCategoricalCrossentropy", from_logits=True),
    spec("SparseCategoricalCrossentropy", ignore_class=1),
    spec("SparseCategoricalCrossentropy", from_logits=True, ignore_class=0),
]
METRICS = [
    spec("MeanSquaredError"),
    spec("MeanAbsoluteError"),
    spec("BinaryAccuracy"),
    spec("BinaryAccuracy", threshold=0.3),
    spec("CategoricalAccuracy"),
    spec("SparseCategoricalAccuracy"),
    spec("SparseCategoricalCrossentropy", ignore_class=1),
]
label = json.dumps


def prediction(item, shape, rng):
    logits = rng.normal(size=shape)
    if item["class_name"] in ("Poisson", "KLDivergence"):
        return (np.abs(logits) + 0.01).astype(np.float32)
    if "Crossentropy" not in item["class_name"] or item["config"].get("from_logits"):
        return logits.astype(np.float32)
    e = np.exp(logits)
    return (e / e.sum(-1, keepdims=True) if "Categorical" in item["class_name"] else 1 / (1 + 1 / e)).astype(np.float32)


@pytest.mark.parametrize("item", LOSSES, ids=label)
@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (3, 4, 5), (2, 65)])
def test_loss_per_sample(item, shape):
    rng = np.random.default_rng(0)
    p, y = prediction(item, shape, rng), target(item, shape, rng)
    expected, _ = reference_losses.per_sample(item, y, p.astype(np.float64))
    np.testing.assert_allclose(_core.loss(json.dumps(item), y, p), expected, rtol=3e-6, atol=1e-7)


@pytest.mark.parametrize("item", LOSSES, ids=label)
@pytest.mark.parametrize("n", [1, 5, 17])
def test_the_references_gradients(item, n):
    """Of the specification itself: finite differences of its values."""
    rng = np.random.default_rng(n)
    p, y = prediction(item, (6, n), rng).astype(np.float64), target(item, (6, n), rng)
    _, slope = reference_losses.per_sample(item, y, p)
    for i in range(n):
        step = np.zeros(n)
        step[i] = 1e-6
        up, down = (reference_losses.per_sample(item, y, p + s)[0] for s in (step, -step))
        np.testing.assert_allclose((up - down) / 2e-6, slope[:, i], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("item", LOSSES, ids=label)
@pytest.mark.parametrize("n", [2, 5, 17])
def test_gradients_of_losses(item, n):
    """A Dense layer of the identity: the bias's gradient is the predictions', summed over the rows."""
    model = _core.Model(json.dumps(chain((None, n), spec("Dense", units=n))), 0)
    rng = np.random.default_rng(n)
    model.set_weight(0, np.eye(n, dtype=np.float32))
    model.set_weight(1, np.zeros(n, np.float32))
    model.compile(compiling(item))
    p, y = prediction(item, (6, n), rng), target(item, (6, n), rng)
    expected, slope = reference_losses.loss(item, y, p.astype(np.float64))
    value, (_, bias) = model.gradients(p, y, None)
    assert_close(value, expected, rtol=1e-5)
    assert_close(bias, slope.sum(0), rtol=2e-5)


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight", "none"])
@pytest.mark.parametrize("item", LOSSES[::3], ids=label)
def test_loss_object(item, reduction):
    rng = np.random.default_rng(1)
    p, y = prediction(item, (5, 4), rng), target(item, (5, 4), rng)
    w = rng.uniform(0, 2, 5).astype(np.float32)
    loss = getattr(losses, item["class_name"])(**item["config"], reduction=reduction)
    config = {**item["config"], "reduction": reduction}
    for weights in (None, w):
        value = loss(y, p, sample_weight=weights)
        if reduction == "none":
            per, _ = reference_losses.per_sample(item, y, p.astype(np.float64))
            assert_close(value, per * (1 if weights is None else weights))
        else:
            assert_close(value, reference_losses.loss(spec(item["class_name"], **config), y, p, None, weights)[0])
    again = type(loss).from_config(loss.get_config())
    assert again.get_config() == loss.get_config()


@pytest.mark.parametrize("extreme", [0.0, 1.0])
def test_probabilities_of_zero_and_one_are_clipped(extreme):
    p = np.array([[extreme, 1 - extreme]], np.float32)
    for name, y in (
        ("CategoricalCrossentropy", np.float32([[1, 0]])),
        ("SparseCategoricalCrossentropy", np.int32([0])),
    ):
        assert_close(
            _core.loss(json.dumps(spec(name)), y, p), [-np.log(1e-7) if extreme == 0 else -np.log1p(-1e-7)], rtol=1e-3
        )


@given(st.data())
def test_weights_masks_and_reductions(data):
    """Training loss and gradients with masks, weights per row or step, and every reduction."""
    pick = lambda options: data.draw(st.sampled_from(options))  # noqa: E731
    item = pick(LOSSES)
    item = spec(
        item["class_name"], **item["config"], reduction=pick(["sum_over_batch_size", "sum", "mean_with_sample_weight"])
    )
    activation = "sigmoid" if item["class_name"] in ("Poisson", "KLDivergence") else "linear"
    if "Crossentropy" in item["class_name"] and not item["config"].get("from_logits"):
        activation = "softmax" if "Categorical" in item["class_name"] else "sigmoid"
    first = spec("Masking", mask_value=0.0) if pick([True, False]) else spec("Dropout", rate=0.0)
    layers = [first, spec("SimpleRNN", units=3, return_sequences=True), spec("Dense", units=4, activation=activation)]
    case = Case(chain((None, 3, 2), *layers), item, pick([1, 4]), seed=pick(list(range(20))))
    rng = np.random.default_rng(0)
    case.x[rng.random(case.x.shape[:2]) < pick([0.0, 0.5])] = 0
    weights = {
        "none": None,
        "row": case.sample_weight,
        "step": rng.uniform(0, 2, case.x.shape[:2]).astype(np.float32),
        "zero": np.zeros(len(case.x), np.float32),
    }[pick(["none", "row", "step", "zero"])]
    model = _core.Model(json.dumps(case.description), 0)
    for i, w in enumerate(case.weights):
        model.set_weight(i, w)
    watched = [] if item["class_name"].startswith("Sparse") else METRICS[:2]
    model.compile(compiling(item, None, watched, watched))
    reference = case.reference()
    loss, gradients = reference.loss_and_gradients(item, case.x, case.y, weights)
    value, actual = model.gradients(case.x, case.y, weights)
    assert_close(value, loss, what="loss")
    for a, g in zip(actual, gradients, strict=True):
        assert_close(a, g, what="gradient")
    for half in (slice(0, 2), slice(2, 4)):
        if len(case.x[half]):
            rows = np.arange(len(case.x))[half].astype(np.int64)
            model.test_on_batch(case.x, case.y, weights, rows)
    expected = []
    for weighted in (False, True):
        for m in watched:
            metric = Metric(m)
            metric.update(case.y, reference.values[-1], reference.mask, weights if weighted else None)
            expected.append(metric.result())
    assert_close(model.metric_results(), expected, what="metrics")


@pytest.mark.parametrize("item", METRICS, ids=label)
@pytest.mark.parametrize("weighted", [False, True])
def test_metric_object(item, weighted):
    rng = np.random.default_rng(2)
    metric, expected = getattr(metrics, item["class_name"])(**item["config"]), Metric(item)
    for _ in range(3):
        p = rng.random((6, 4)).astype(np.float32)
        kind = {
            "Sparse": "SparseCategoricalCrossentropy",
            "Catego": "CategoricalCrossentropy",
            "Binary": "BinaryCrossentropy",
        }
        y = target(spec(kind.get(item["class_name"][:6], "MeanSquaredError")), p.shape, rng)
        w = rng.uniform(0, 2, 6).astype(np.float32) if weighted else None
        metric.update_state(y, p, sample_weight=w)
        expected.update(y, p, None, w)
    assert_close(metric.result(), expected.result())
    metric.reset_state()
    assert float(metric.result()) == 0
    assert reference_metrics.values(item, y, p).shape == (6,)


@pytest.mark.parametrize("masked", [False, True])
def test_ignore_class_outside_the_classes(masked):
    """Labels of -1: in the loss, its gradient and the metrics, weighted and not; other labels outside are refused."""
    first = spec("Masking", mask_value=0.0) if masked else spec("Dropout", rate=0.0)
    layers = [first, spec("SimpleRNN", units=3, return_sequences=True), spec("Dense", units=4, activation="softmax")]
    item = spec("SparseCategoricalCrossentropy", ignore_class=-1)
    watched = [item, spec("SparseCategoricalAccuracy")]
    case = Case(chain((None, 5, 2), *layers), item, 3, seed=1)
    case.x[0, 2:] = 0
    case.y[:, 1::2] = -1
    steps = np.random.default_rng(0).uniform(0.5, 2, case.y.shape).astype(np.float32)
    reference = case.reference()
    for weights in (None, case.sample_weight, steps):
        model = _core.Model(json.dumps(case.description), 0)
        for i, w in enumerate(case.weights):
            model.set_weight(i, w)
        model.compile(compiling(item, None, watched, watched))
        model.check_data(case.x, case.y, weights)
        loss, gradients = reference.loss_and_gradients(item, case.x, case.y, weights)
        value, actual = model.gradients(case.x, case.y, weights)
        assert_close(value, loss, what="loss")
        for a, g in zip(actual, gradients, strict=True):
            assert_close(a, g, what="gradient")
        model.test_on_batch(case.x, case.y, weights, None)
        expected = []
        for sample_weight in (None, weights):
            for m in watched:
                metric = Metric(m)
                metric.update(case.y, reference.values[-1], reference.mask, sample_weight)
                expected.append(metric.result())
        assert_close(model.metric_results(), expected, what="metrics")
    case.y[2, 1] = -2
    with pytest.raises(ValueError, match=r"ignore_class = -1, got -2.* in sample 2"):
        model.check_data(case.x, case.y, None)
    model.compile(compiling(item, None, [spec("SparseCategoricalCrossentropy")]))
    with pytest.raises(ValueError, match=r"labels in \[0, 4\), got -1"):
        model.check_data(case.x, np.maximum(case.y, -1), None)


@pytest.mark.parametrize("name", ["Hinge", "SquaredHinge"])
def test_targets_of_hinge_losses(name):
    """Zeros stand for -1 where a batch has zeros and ones alone."""
    p = np.float32([[0.5, -2.0], [0.25, 3.0], [-0.5, 0.0]])
    of_signs = getattr(losses, name)(reduction="none")([[1, -1], [-1, 1], [1, 1]], p)
    assert np.array_equal(getattr(losses, name)(reduction="none")([[1, 0], [0, 1], [1, 1]], p), of_signs)
    assert not np.array_equal(getattr(losses, name)(reduction="none")([[1, 0], [0, 1], [1, 2]], p)[:2], of_signs[:2])
    model = seqcore.Sequential([seqcore.Input((2,)), seqcore.layers.Dense(2)])
    model.set_weights([np.eye(2), np.zeros(2)])
    model.compile("sgd", name, metrics=[name])
    assert model.evaluate(p, [[1, 0], [0, 1], [1, 1]], verbose=0) == pytest.approx([of_signs.mean()] * 2)
    assert model.evaluate(p, [[1, -1], [-1, 1], [1, 1]], verbose=0) == pytest.approx([of_signs.mean()] * 2)


def test_focal_losses_of_the_certain():
    """Finite where a probability is 0 or 1, and without gamma the cross-entropies."""
    rng = np.random.default_rng(0)
    for kind in ("Binary", "Categorical"):
        for gamma in (0.0, 0.5, 1.0, 2.0, 3.5):
            item = spec(f"{kind}FocalCrossentropy", gamma=gamma, alpha=1.0)
            model = _core.Model(json.dumps(chain((None, 2), spec("Dense", units=2))), 0)
            model.set_weight(0, np.eye(2, dtype=np.float32))
            model.compile(compiling(item))
            x, y = np.float32([[0, 1], [1, 0], [1, 0]]), np.float32([[0, 1], [0, 1], [1, 0]])
            value, (kernel, bias) = model.gradients(x, y, None)
            assert np.isfinite(value) and np.isfinite(kernel).all() and np.isfinite(bias).all()
        p, y = prediction(item, (5, 3), rng), target(item, (5, 3), rng)
        plain = getattr(losses, f"{kind}Crossentropy")()(y, p)
        assert getattr(losses, f"{kind}FocalCrossentropy")(alpha=1.0, gamma=0.0)(y, p) == pytest.approx(plain, rel=1e-5)


def test_weights_of_classes():
    alpha = [0.5, 2.0, 1.0]
    loss = losses.CategoricalFocalCrossentropy(alpha, gamma=1.5, reduction="none")
    rng = np.random.default_rng(0)
    item = spec("CategoricalFocalCrossentropy", alpha=alpha, gamma=1.5)
    p, y = prediction(item, (4, 3), rng), target(item, (4, 3), rng)
    expected, _ = reference_losses.per_sample(item, y, p.astype(np.float64))
    np.testing.assert_allclose(loss(y, p), expected, rtol=1e-5)
    assert losses.CategoricalFocalCrossentropy.from_config(loss.get_config()).alpha == alpha
    with pytest.raises(ValueError, match="alpha has 3 weights of classes, y_pred 2 classes"):
        loss([[1, 0]], [[0.5, 0.5]])
    model = seqcore.Sequential([seqcore.Input((2,)), seqcore.layers.Dense(2, activation="softmax")])
    model.compile("sgd", losses.CategoricalFocalCrossentropy(np.array(alpha)))
    with pytest.raises(ValueError, match="alpha has 3 weights of classes, y_pred 2 classes"):
        model.fit(np.ones((2, 2)), np.eye(2), verbose=0)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("CosineSimilarity", {"axis": 0}), ("BinaryFocalCrossentropy", {"axis": 1}),
        ("CategoricalFocalCrossentropy", {"axis": 0}), ("BinaryFocalCrossentropy", {"gamma": -1.0}),
        ("BinaryFocalCrossentropy", {"alpha": [0.5]}), ("CategoricalFocalCrossentropy", {"alpha": "x"}),
        ("CategoricalFocalCrossentropy", {"alpha": [0.5, None]}), ("CategoricalFocalCrossentropy", {"alpha": []}),
        ("BinaryFocalCrossentropy", {"label_smoothing": 2.0}),
        ("BinaryFocalCrossentropy", {"apply_class_balancing": 3}),
    ],
)  # fmt: skip
def test_bad_arguments_of_losses(name, arguments):
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}` of {name}"):
        getattr(losses, name)(**arguments)


def test_everything_ignored():
    loss = losses.SparseCategoricalCrossentropy(ignore_class=0)
    assert float(loss([0, 0], [[0.5, 0.5], [0.1, 0.9]])) == 0
    assert losses.sparse_categorical_crossentropy([0, 1], [[0.5, 0.5], [0.5, 0.5]], ignore_class=0)[0] == 0


def test_sample_weights_are_broadcast():
    y, p = np.zeros((2, 3, 4)), np.arange(24.0).reshape(2, 3, 4)
    per = (p * p).mean(-1)
    for shape in [(), (2,), (2, 1), (2, 1, 1), (1, 3), (2, 3), (2, 3, 1), (1, 1)]:
        w = np.random.default_rng(0).uniform(0.5, 2, shape)
        full = np.broadcast_to(w.reshape(shape[:2] + (1,) * (2 - len(shape[:2]))), per.shape)
        assert_close(losses.MeanSquaredError()(y, p, sample_weight=w), (per * full).mean(), rtol=1e-6)
        assert_close(metrics.MeanSquaredError()(y, p, sample_weight=w), (per * full).sum() / full.sum(), rtol=1e-6)
    for shape in [(3,), (2, 2), (2, 3, 4), (2, 3, 1, 1)]:
        with pytest.raises(ValueError, match="`sample_weight`: expected shape"):
            losses.MeanSquaredError()(y, p, sample_weight=np.ones(shape))


def test_a_last_axis_of_one_is_dropped_or_added():
    """Ranks that differ by one, as Keras fits them: the axis goes, except that a vector gets it."""
    y, p = np.arange(6.0), np.float64([1, 1, 4, 3, 2, 0])
    error = (y - p) ** 2  # 1, 0, 4, 0, 4, 25
    none = losses.MeanSquaredError(reduction=None)
    assert none.reduction is None and none.get_config()["reduction"] is None
    assert float(none(y, p)) == pytest.approx(error.mean()) and np.shape(none(y, p)) == ()  # a vector is one sample
    for a, b in [((6, 1), (6,)), ((6,), (6, 1)), ((6, 1), (6, 1))]:
        assert none(y.reshape(a), p.reshape(b)).tolist() == error.tolist()
        assert metrics.MeanSquaredError()(y.reshape(a), p.reshape(b)) == pytest.approx(34 / 6)
        assert metrics.RootMeanSquaredError()(y.reshape(a), p.reshape(b)) == pytest.approx((34 / 6) ** 0.5)
    rows = error.reshape(2, 3).mean(-1).tolist()
    for a, b in [((2, 3, 1), (2, 3)), ((2, 3), (2, 3, 1)), ((2, 3), (2, 3))]:
        assert none(y.reshape(a), p.reshape(b)) == pytest.approx(rows)
        assert metrics.BinaryAccuracy(threshold=1.5)(y.reshape(a), p.reshape(b)) == pytest.approx(1 / 6)
    assert none(y.reshape(2, 3, 1), p.reshape(2, 3, 1)).tolist() == error.reshape(2, 3).tolist()
    with pytest.raises(ValueError, match="`y_true`: expected shape"):
        none(y.reshape(2, 3), p.reshape(3, 2))


@pytest.mark.parametrize("item", [item for item in LOSSES if not item["class_name"].startswith("Sparse")], ids=label)
@pytest.mark.parametrize("shape", [(), (1,), (3,), (3, 1), (1, 1)])
def test_weights_of_samples_in_any_shape(item, shape):
    """The mean with weights divides by the weights as they were given, not as they were broadcast."""
    rng = np.random.default_rng(3)
    p, y, w = prediction(item, (3, 4), rng), target(item, (3, 4), rng), rng.uniform(0.5, 2, shape)
    per, _ = reference_losses.per_sample(item, y, p.astype(np.float64))
    values = (per[:, None] if len(shape) == 2 else per) * w  # (samples, 1) stays so
    make = lambda reduction: getattr(losses, item["class_name"])(**item["config"], reduction=reduction)  # noqa: E731
    for reduction, expected in [
        ("none", values),
        (None, values),
        ("sum", values.sum()),
        ("mean", values.sum() / 3),
        ("sum_over_batch_size", values.sum() / 3),
        ("mean_with_sample_weight", values.sum() / w.sum()),
    ]:
        actual = make(reduction)(y, p, sample_weight=w)
        assert np.shape(actual) == np.shape(expected)
        assert_close(actual, expected, rtol=2e-5)
    assert float(make("mean_with_sample_weight")(y, p, sample_weight=0 * w)) == 0


def test_weights_of_steps_in_any_shape():
    y, p = np.zeros((2, 3, 2)), np.arange(12.0).reshape(2, 3, 2)
    per = (p * p).mean(-1)
    loss = losses.MeanSquaredError(reduction="mean_with_sample_weight")
    for shape, repeated in [((2, 1), 1), ((1, 3), 1), ((2, 3), 1), ((2, 3, 1), 1), ((2, 1, 1), 1), ((), 1), ((2,), 3)]:
        w = np.random.default_rng(0).uniform(0.5, 2, shape)
        full = np.broadcast_to(w.reshape(shape[:2] + (1,) * (2 - len(shape[:2]))), per.shape)
        assert_close(loss(y, p, sample_weight=w), (per * full).sum() / (w.sum() * repeated), rtol=1e-6)
    one = losses.MeanSquaredError(reduction="none")([1.0, 3.0], [1.0, 1.0], sample_weight=[1.0, 0.5, 2.0])
    assert one.tolist() == [2.0, 1.0, 4.0]  # one value, weighed three times
    ignoring = losses.SparseCategoricalCrossentropy(ignore_class=-1, reduction="mean_with_sample_weight")
    halves = np.full((2, 2), 0.5)
    assert float(ignoring([0, -1], halves, sample_weight=[[1.0], [5.0]])) == pytest.approx(np.log(2))
    assert ignoring.counts([0, -1], np.zeros(2)).tolist() == [1, 0]


def test_losses_and_metrics_by_position_and_name():
    y, p = [[1.0, 0.0]], [[0.5, 1.0]]
    assert float(losses.MeanSquaredError("sum", "mine")(y, p)) == 0.625
    assert losses.Huber(0.5, "sum").get_config() == {"delta": 0.5, "reduction": "sum", "name": "huber_loss"}
    assert losses.BinaryCrossentropy(True, 0.1, -1, None).reduction is None
    for name, function in [
        ("mse", losses.mean_squared_error),
        ("MAE", losses.mean_absolute_error),
        ("huber_loss", losses.huber),
        ("bce", losses.binary_crossentropy),
        ("sparse_categorical_crossentropy", losses.sparse_categorical_crossentropy),
        ("hinge", losses.hinge),
        ("squared_hinge", losses.squared_hinge),
        ("categorical_hinge", losses.categorical_hinge),
        ("cosine_similarity", losses.cosine_similarity),
        ("binary_focal_crossentropy", losses.binary_focal_crossentropy),
        ("categorical_focal_crossentropy", losses.categorical_focal_crossentropy),
    ]:
        assert losses.get(name) is function is losses.deserialize(name)
    assert losses.get(losses.huber) is losses.huber and losses.get(None) is None
    assert losses.get("mse")(y, p) == pytest.approx([0.625])
    assert isinstance(losses.get("MeanSquaredError"), losses.MeanSquaredError)
    described = losses.get({"class_name": "huber", "config": {"delta": 2}})
    assert isinstance(described, losses.Huber) and described.delta == 2
    for metric in (metrics.MeanSquaredError("m"), metrics.Mean("m"), metrics.BinaryAccuracy("m", 0.7)):
        assert metric.name == "m" and metric.dtype == metric.get_config()["dtype"] == "float32"
    assert [v.name for v in metrics.Sum().variables] == ["total"] and len(metrics.Mean().variables) == 2


def test_mean_metric():
    mean = metrics.Mean()
    mean.update_state([1.0, 3.0], sample_weight=[1.0, 3.0])
    mean.update_state(5.0)
    assert float(mean.result()) == pytest.approx((1 + 9 + 5) / 5)


@pytest.mark.parametrize("shape", [(4,), (3, 5), (7, 2)])
@pytest.mark.parametrize(
    "item",
    [
        spec("MaxNorm", max_value=0.7, axis=0),
        spec("NonNeg"),
        spec("UnitNorm", axis=0),
        spec("MinMaxNorm", min_value=0.3, max_value=0.9, rate=0.6, axis=0),
    ],
    ids=label,
)
@pytest.mark.parametrize("axis", [0, -1, None, [0], [0, -1], []], ids=str)
def test_constraints(item, shape, axis):
    if item["class_name"] != "NonNeg":
        item = spec(item["class_name"], **{**item["config"], "axis": axis})
    w = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    constraint = getattr(constraints, item["class_name"])(**item["config"])
    assert_close(constraint(w), penalties.constrain(item, w), rtol=1e-6)
    assert type(constraint).from_config(constraint.get_config()).get_config() == constraint.get_config()


@pytest.mark.parametrize("axis", [2, -3, [0, 7], "0", [0.5]], ids=str)
def test_an_axis_that_a_weight_has_not(axis):
    """It is said before any weight has changed."""
    with pytest.raises(ValueError, match="axis"):
        constraint = constraints.MaxNorm(0.5, axis=axis)
        model = seqcore.Sequential([seqcore.Input((3,)), seqcore.layers.Dense(2, kernel_constraint=constraint)])
        model.get_weights()


@pytest.mark.parametrize("item", [spec("L1", l1=0.3), spec("L2", l2=0.2), spec("L1L2", l1=0.1, l2=0.4)], ids=label)
def test_regularizers(item):
    w = np.random.default_rng(0).normal(size=(40, 50)).astype(np.float32)
    assert_close(
        getattr(regularizers, item["class_name"])(**item["config"])(w), penalties.regularize(item, w)[0], rtol=1e-6
    )


# -------------------------------------------------------------------------------------------------------- initializers

SHAPE = (200, 150)


@pytest.mark.parametrize(
    ("name", "config", "mean", "std", "limit"),
    [
        ("Zeros", {}, 0, 0, 0),
        ("Ones", {}, 1, 0, 1),
        ("Constant", {"value": 0.5}, 0.5, 0, 0.5),
        ("RandomUniform", {}, 0, 0.1 / 12**0.5, 0.05),
        ("RandomUniform", {"minval": 1.0, "maxval": 3.0}, 2, 2 / 12**0.5, 3.0),
        ("RandomNormal", {}, 0, 0.05, 0.4),
        ("RandomNormal", {"mean": 2.0, "stddev": 1.0}, 2, 1, 9),
        ("TruncatedNormal", {}, 0, 0.05 * 0.8796, 0.1),
        ("GlorotUniform", {}, 0, (2 / 350) ** 0.5, (6 / 350) ** 0.5),
        ("GlorotNormal", {}, 0, (2 / 350) ** 0.5, 2 / 0.8796 * (2 / 350) ** 0.5),
        ("HeUniform", {}, 0, (2 / 200) ** 0.5, (6 / 200) ** 0.5),
        ("HeNormal", {}, 0, (2 / 200) ** 0.5, 2 / 0.8796 * (2 / 200) ** 0.5),
        ("LecunUniform", {}, 0, (1 / 200) ** 0.5, (3 / 200) ** 0.5),
        ("LecunNormal", {}, 0, (1 / 200) ** 0.5, 2 / 0.8796 * (1 / 200) ** 0.5),
        (
            "VarianceScaling",
            {"scale": 2.0, "mode": "fan_out", "distribution": "uniform"},
            0,
            (2 / 150) ** 0.5,
            (6 / 150) ** 0.5,
        ),
    ],
)
def test_initializer_moments(name, config, mean, std, limit):
    make = lambda seed: getattr(initializers, name)(**config, **({"seed": seed} if std else {}))  # noqa: E731
    w = np.asarray(make(3)(SHAPE), np.float64)
    assert w.shape == SHAPE and np.abs(w).max() <= limit * (1 + 1e-6)
    assert abs(w.mean() - mean) <= 5 * std / w.size**0.5
    assert abs(w.std() - std) <= 0.03 * std
    assert np.array_equal(w, make(3)(SHAPE))
    if std:
        assert not np.array_equal(w, make(4)(SHAPE))
        assert len(np.unique(w)) > 0.9 * w.size


@pytest.mark.parametrize("shape", [(64, 64), (100, 30), (30, 100), (1, 5), (7, 1)])
def test_orthogonal(shape):
    w = np.asarray(initializers.Orthogonal(gain=2.0, seed=1)(shape), np.float64)
    gram = w @ w.T if shape[0] <= shape[1] else w.T @ w
    assert np.abs(gram - 4 * np.eye(min(shape))).max() < 1e-5


def test_identity():
    assert initializers.IdentityInitializer is initializers.Identity
    assert isinstance(initializers.get("OrthogonalInitializer"), initializers.Orthogonal)
    assert isinstance(initializers.get({"class_name": "he_normal", "config": {"seed": 3}}), initializers.HeNormal)
    assert np.array_equal(initializers.Identity(gain=3.0)((3, 3)), 3 * np.eye(3))


def test_lstm_starts_with_an_open_forget_gate_and_keras_fans():
    model = seqcore.Sequential([seqcore.layers.Input((5, 30)), seqcore.layers.LSTM(40)])
    kernel, recurrent, bias = model.get_weights()
    assert np.array_equal(bias, np.repeat([0, 1, 0, 0], 40))
    assert np.abs(kernel).max() == pytest.approx((6 / (30 + 160)) ** 0.5, rel=1e-3)
    assert np.abs(recurrent @ recurrent.T - np.eye(40)).max() < 1e-5
    closed = seqcore.Sequential([seqcore.layers.Input((5, 30)), seqcore.layers.LSTM(4, unit_forget_bias=False)])
    assert (closed.get_weights()[2] == 0).all()


def test_a_constant_may_be_an_array():
    for value in ([1.0, 2.0], [[1.0], [2.0], [3.0]], np.arange(6.0).reshape(3, 2), [[5]], 4):
        constant = initializers.Constant(value)
        assert np.array_equal(constant((3, 2)), np.broadcast_to(np.float32(value), (3, 2)))
        assert initializers.deserialize(initializers.serialize(constant)).get_config() == constant.get_config()
    layer = seqcore.layers.Dense(2, bias_initializer=initializers.Constant([1, 2]), kernel_initializer="zeros")
    assert layer([[1.0, 2.0, 3.0]]).tolist() == [[1.0, 2.0]]
    for value in ([1.0, 2.0, 3.0], [[[1.0]]], []):
        with pytest.raises(ValueError, match="initializer Constant"):
            initializers.Constant(value)((3, 2))
    for value in ([np.nan], "one", [[1], [2, 3]], ["a"]):
        with pytest.raises((ValueError, TypeError), match="`value` of Constant"):
            initializers.Constant(value)


@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_variance_scaling_needs_a_scale(scale):
    with pytest.raises(ValueError, match="`scale` of VarianceScaling: expected a number > 0"):
        initializers.VarianceScaling(scale=scale)


class Sevens(initializers.Zeros):
    def __call__(self, shape, dtype=None):
        return super().__call__(shape, dtype) + 7


class Fours(initializers.Constant):
    def __init__(self):
        super().__init__(4.0)


class Full(initializers.Initializer):
    def __init__(self, value):
        self.value = value

    def __call__(self, shape, dtype=None):
        return np.full(shape, self.value, dtype)


def counting(shape, dtype=None):
    return np.arange(np.prod(shape), dtype=dtype).reshape(shape)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (counting, [[0, 1], [2, 3], [4, 5]]),
        (np.ones, np.ones((3, 2))),
        (np.eye(3, 2), np.eye(3, 2)),
        (Full(3), np.full((3, 2), 3)),
        (Sevens, np.full((3, 2), 7)),
        (Fours(), np.full((3, 2), 4)),
    ],
)
def test_initializers_of_ones_own(given, expected):
    layer = seqcore.layers.Dense(2, kernel_initializer=given)
    layer.build((None, 3))
    assert np.array_equal(layer.kernel, expected)
    ready = initializers.get(given)
    assert np.array_equal(ready((3, 2)), expected)
    again = seqcore.layers.Dense.from_config(layer.get_config())
    again.build((None, 3))
    if isinstance(given, Fours):
        assert np.array_equal(again.kernel, expected)
    else:
        assert layer.get_config()["kernel_initializer"] is None


def test_where_initializers_of_ones_own_are_asked(tmp_path):
    own = dict.fromkeys(("kernel_initializer", "recurrent_initializer", "bias_initializer"), counting)
    lstm, gru = seqcore.layers.LSTM(2, **own), seqcore.layers.GRU(2, **own)
    lstm.build((None, 4, 3))
    gru.build((None, 4, 3))
    assert np.array_equal(lstm.recurrent_kernel, counting((2, 8))) and np.array_equal(gru.bias, counting((2, 6)))
    assert lstm.bias.numpy().tolist() == [0, 1, 1, 1, 0, 1, 2, 3]  # Keras asks for the forget gate's neighbours
    plain = seqcore.layers.LSTM(2, bias_initializer=counting, unit_forget_bias=False)
    plain.build((None, 4, 3))
    assert np.array_equal(plain.bias, counting((8,)))

    model = seqcore.Sequential([
        seqcore.Input((4,), dtype="int32"),
        seqcore.layers.Embedding(5, 3, embeddings_initializer=counting),
        seqcore.layers.LayerNormalization(gamma_initializer=counting),
        seqcore.layers.Bidirectional(seqcore.layers.GRU(2, **own)),
        seqcore.layers.Dense(2, kernel_initializer=np.ones((4, 2))),
    ])  # fmt: skip
    for made in (model, seqcore.models.clone_model(model)):
        assert all(np.array_equal(made.layers[2].weights[i], counting((3, 6))) for i in (0, 3))
        assert np.array_equal(made.layers[0].embeddings, counting((5, 3)))
        assert np.array_equal(made.layers[3].kernel, np.ones((4, 2)))
    path = tmp_path / "own.safetensors"
    seqcore.saving.save_model(model, path)
    loaded = seqcore.saving.load_model(path)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True))
    with pytest.raises(FileExistsError):
        seqcore.models.save_model(model, path, overwrite=False)
    with pytest.raises(ValueError, match="`model`"):
        seqcore.models.save_model(path, model)


def test_a_layer_whose_initializer_fails_has_no_weights():
    layer = seqcore.layers.Dense(2, kernel_initializer=lambda shape, dtype=None: np.ones(shape[::-1]))
    for _ in range(2):
        with pytest.raises(ValueError, match="`kernel_initializer`"):
            layer.build((None, 3))
    assert not layer.built
    with pytest.raises(ValueError, match="`initializer`"):
        initializers.serialize(initializers.get(counting))
    assert np.array_equal(initializers.get(counting).clone()((2, 3)), counting((2, 3)))
    assert initializers.serialize(Sevens()) == {"class_name": "Sevens", "config": {}}


def test_initializers_give_the_dtype_asked_for():
    for dtype in (None, "float32", "float64", np.float16, "int32"):
        assert initializers.Ones()((2,), dtype=dtype).dtype == np.dtype(dtype or "float32")
    with pytest.raises(TypeError, match=r"`dtype`.*'bfloat17'"):
        initializers.Ones()((2,), dtype="bfloat17")


class Cubed(losses.Loss):
    def __init__(self, factor=1.0, **more):
        super().__init__(**more)
        self.factor = factor

    def call(self, y_true, y_pred):
        return self.factor * (y_true - y_pred) ** 3


def test_a_loss_of_ones_own():
    loss = Cubed(2.0)
    assert loss.name == "cubed"
    assert float(loss([[3, 2]], [[1, 1]])) == (16 + 2) / 2
    assert float(loss([[3, 2], [0, 0]], np.ones((2, 2), int), sample_weight=[[1], [3]])) == (16 + 2 - 6 - 6) / 4
    assert Cubed(reduction="none")([[3, 2]], [[1, 1]]).tolist() == [[8.0, 1.0]]
    assert float(Cubed(reduction="sum", name="mine")([[3, 2]], [[1, 1]])) == 9
    model = seqcore.Sequential([seqcore.Input((2,)), seqcore.layers.Dense(1)])
    for refused in (loss, Cubed):
        with pytest.raises(ValueError, match="`loss`: the gradient of Cubed is not known"):
            model.compile("sgd", refused)
    assert not model.compiled
