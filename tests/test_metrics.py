"""Metrics that are computed in Python, over the batches of a stream, against the reference over all of them at once."""

import json
import warnings

import numpy as np
import pytest

import seqcore
from reference import metrics as reference
from seqcore import layers, metrics
from support import HOST_CASES, HOST_METRICS, host_batches, spec

ids = lambda value: json.dumps(value) if isinstance(value, dict) else str(value)  # noqa: E731
ITEMS = [(item, shapes[-1]) for shapes, items in HOST_METRICS for item in items]


def make(item):
    return getattr(metrics, item["class_name"])(**item["config"])


def whole(batches):
    """All batches as one; weights of rows as weights of steps."""
    y, p = (np.concatenate([b[i] for b in batches]) for i in (0, 1))
    if batches[0][2] is None:
        return y, p, None
    spread = [w.reshape(w.shape + (1,) * (q.ndim - 1 - w.ndim)) * np.ones(q.shape[:-1]) for _, q, w in batches]
    return y, p, np.concatenate(spread).astype(np.float32).astype(np.float64)


def assert_same(actual, expected, rtol=2e-6):
    assert np.shape(actual) == np.shape(expected) and np.asarray(actual).dtype == np.float32
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=1e-6)


@pytest.mark.parametrize(("item", "shape", "weights"), HOST_CASES, ids=ids)
def test_against_the_reference(item, shape, weights):
    batches, metric = host_batches(item, shape, weights, 0), make(item)
    for y, p, w in batches:
        metric.update_state(y, p, sample_weight=w)
    y, p, w = whole(batches)
    expected = reference.score(item, y, p, w)
    assert_same(metric.result(), expected, 1e-5)
    assert np.all(np.isfinite(expected))
    again = type(metric).from_config(json.loads(json.dumps(metric.get_config())))
    assert_same(again(y, p, w), expected, 1e-5)


@pytest.mark.parametrize(("item", "shape"), ITEMS, ids=ids)
def test_reset_and_config(item, shape):
    (y, p, w), (y2, p2, _), _ = host_batches(item, shape, "rows", 3)
    metric = make(item)
    empty = np.asarray(metric.result())
    assert not empty.any() and metric.get_config() == make(item).get_config()
    first = metric(y, p, w)
    names = [v.name for v in metric.variables]
    assert len(names) == len(set(names)) >= 1 and any(v.numpy().any() for v in metric.variables)
    assert all(v.numpy().shape == v.shape for v in metric.variables)
    metric.update_state(y2, p2)
    metric.reset_state()
    assert not np.any(metric.result()) and not any(v.numpy().any() for v in metric.variables)
    assert np.array_equal(metric(y, p, w), first)
    for other in (metrics.deserialize(metrics.serialize(metric)), metrics.get(metrics.serialize(metric))):
        assert type(other) is type(metric) and other.get_config() == metric.get_config()
        assert np.array_equal(other(y, p, w), first)
    assert {
        k: metric.get_config()[k] for k in item["config"] if k not in ("curve", "summation_method", "thresholds")
    } == {k: v for k, v in item["config"].items() if k not in ("curve", "summation_method", "thresholds")}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("Precision", {}), ("AUC", {}), ("AUC", {"thresholds": [0.1, 0.7]}), ("RecallAtPrecision", {"precision": 0.4}),
     ("FalseNegatives", {"thresholds": [0.2, 0.5]}), ("F1Score", {"threshold": 0.5}), ("Hinge", {}), ("R2Score", {})],
)  # fmt: skip
def test_shapes_of_targets_and_weights(name, arguments):
    """(B,) and (B, 1) are the same; weights of rows are those of all their steps."""
    rng = np.random.default_rng(5)
    y, p, w = rng.integers(0, 2, 11), rng.random(11).astype(np.float32), rng.random(11).astype(np.float32)
    expected = make(spec(name, **arguments))(y[:, None], p[:, None], w)
    assert np.all(expected != 0)
    for weight in (w, w[:, None]):
        for true in (y, y[:, None], y.astype(bool), y.tolist()):
            assert np.array_equal(make(spec(name, **arguments))(true, p[:, None], weight), expected)
    if name in ("F1Score", "R2Score"):
        return
    y, p, w = y[:6], p[:6], w[:2]
    long = make(spec(name, **arguments))(y, p[:, None], np.repeat(w, 3))
    for true in (y.reshape(2, 3), y.reshape(2, 3, 1)):
        for weight in (w, np.repeat(w, 3).reshape(2, 3), w[:, None], np.repeat(w, 3).reshape(2, 3, 1)):
            np.testing.assert_allclose(make(spec(name, **arguments))(true, p.reshape(2, 3, 1), weight), long, rtol=1e-6)


def test_predictions_on_thresholds():
    """A prediction is above a threshold only where it is larger; 0 is above AUC's lowest, 1 not above its highest."""
    p = np.float32([0, 0.25, 0.5, 0.75, 1])
    for thresholds in ([0.0, 0.25, 0.5, 0.75, 1.0], [0.5, 0.25]):
        count = metrics.TruePositives(thresholds)(np.ones(5), p)
        assert count.tolist() == [(p > t).sum() for t in thresholds]
    auc = metrics.AUC(num_thresholds=5)
    auc.update_state([1, 0, 1, 0, 1], p)
    assert auc.true_positives.tolist() == [3, 2, 1, 1, 0] and auc.false_negatives.tolist() == [0, 1, 2, 2, 3]
    assert auc.false_positives.tolist() == [2, 1, 1, 0, 0] and auc.true_negatives.tolist() == [0, 1, 1, 2, 2]
    assert metrics.TruePositives(0.0)([1, 1], [0.0, 1e-30]) == 1
    assert metrics.TruePositives()([1, 1], [np.nan, 0.6]) == 1 == metrics.FalseNegatives()([1, 1], [np.nan, 0.6])
    assert metrics.AUC()([1, 0], [2.0, -1.0]) == 1 and np.isfinite(metrics.AUC()([1, 0], [np.nan, 0.5]))
    # The default thresholds, in float64.
    limits = metrics.AUC().thresholds
    assert limits[0] == -1e-7 and limits[-1] == 1 + 1e-7 and limits[1:-1] == [i / 199 for i in range(1, 199)]
    assert metrics.RecallAtPrecision(0.5).thresholds == [i / 199 for i in range(200)]


def test_many_batches_lose_nothing():
    """Sums are in float64: in float32 a count stops at 2**24."""
    count = metrics.TruePositives()
    for _ in range(3):
        count.update_state([1], [0.9], [2.0**24])
        count.update_state([1], [0.9], [1.0])
    assert count.variables[0].name == "accumulator" and float(count._counts.sum()) == 3 * 2**24 + 3


def test_one_class_only():
    for curve in ("ROC", "PR", "PRGAIN"):
        for y in ([0, 0], [1, 1]):
            assert np.isfinite(metrics.AUC(curve=curve)(y, [0.2, 0.7]))
    assert metrics.Precision()([0, 0], [0.1, 0.2]) == 0 == metrics.Recall()([0, 0], [0.1, 0.9])
    assert metrics.SpecificityAtSensitivity(0.5)([0, 0], [0.1, 0.9]) == 0
    assert metrics.SensitivityAtSpecificity(0, 2)([1, 0, 0], [0.5, 0.5, 0.1], [0.1, 0.3, 0.7]) == 1
    assert metrics.F1Score()([[0, 0]], [[0.0, 0.0]]).tolist() == [0, 0]
    assert metrics.R2Score()([[1.0], [1.0]], [[0.0], [0.5]]) == 0  # infinite: 0


def test_top_k():
    p = np.float32([[0.1, 0.5, 0.5, 0.2], [0.4, 0.3, 0.2, 0.1]])
    for index, k, expected in [([1, 3], 1, [1, 0]), ([2, 3], 1, [1, 0]), ([3, 2], 2, [0, 0]), ([3, 2], 3, [1, 1]),
                               ([0, 3], 9, [1, 1]), ([-1, 4], 4, [0, 0])]:  # fmt: skip
        assert metrics.sparse_top_k_categorical_accuracy(index, p, k).tolist() == expected
        if min(index) >= 0 and max(index) < 4:
            assert metrics.top_k_categorical_accuracy(np.eye(4)[index], p, k=k).tolist() == expected
            assert metrics.SparseTopKCategoricalAccuracy(k)(np.reshape(index, (2, 1)), p) == np.mean(expected)
    assert metrics.sparse_top_k_categorical_accuracy([0], [[np.nan, 1.0]]).tolist() == [0]
    sorted_ids = metrics.SparseTopKCategoricalAccuracy(2, from_sorted_ids=True)
    assert sorted_ids([[5, 9], [1, 2]], [[[9, 5, 1], [5, 1, 9]], [[3, 2, 1], [2, 7, 8]]]) == 0.5
    assert metrics.Precision(top_k=1)([[1, 0], [0, 1]], [[0.5, 0.5], [0.5, 0.5]]) == 0.5  # the first of equal ones


def test_functions():
    y, p = np.float32([[0.0, 1.0], [1.0, 0.0]]), np.float32([[0.25, 2.0], [0.5, -0.5]])
    for function, name in [
        ("mean_absolute_percentage_error", "MeanAbsolutePercentageError"),
        ("mean_squared_logarithmic_error", "MeanSquaredLogarithmicError"), ("log_cosh", "LogCoshError"),
        ("kl_divergence", "KLDivergence"), ("hinge", "Hinge"), ("squared_hinge", "SquaredHinge"),
        ("categorical_hinge", "CategoricalHinge"), ("top_k_categorical_accuracy", "TopKCategoricalAccuracy"),
    ]:  # fmt: skip
        f, cls = getattr(metrics, function), getattr(metrics, name)
        assert isinstance(metrics.get(f), cls) and f(y, p).shape == (2,) and f(y, p).dtype == np.float32
        expected = [reference.of_sample(name, a, b, {}) for a, b in zip(np.float64(y), np.float64(p))]
        np.testing.assert_allclose(f(y, p), expected, rtol=1e-6)
        assert cls()(y, p) == pytest.approx(np.mean(expected), rel=1e-6)
    np.testing.assert_allclose(metrics.poisson(y, p + 1), np.mean(p + 1 - y * np.log(p + 1), -1), rtol=1e-5)
    assert np.isnan(metrics.poisson([[1.0]], [[-1.0]])).all()
    assert isinstance(metrics.get(metrics.sparse_top_k_categorical_accuracy), metrics.SparseTopKCategoricalAccuracy)
    assert metrics.log_cosh([[0.0]], [[-1000.0]]) == pytest.approx(1000 - np.log(2))
    assert metrics.hinge([[0.5, 1.0]], [[1.0, 0.0]]).tolist() == [0.75]  # not all 0 or 1: as they are
    vectors = np.random.default_rng(0).normal(size=(2, 5, 3))
    for axis in (0, 1, -1):
        unit = vectors / np.linalg.norm(vectors, axis=axis + (axis >= 0), keepdims=True)
        cosine = metrics.CosineSimilarity(axis=axis)(*vectors)
        assert cosine == pytest.approx((unit[0] * unit[1]).sum(axis).mean(), rel=1e-5)
    assert metrics.CosineSimilarity()([[0.0, 0.0]], [[1.0, 1.0]]) == 0


def test_names():
    for identifier, name, cls in [
        ("AUC", "auc", "AUC"), ("auc", "auc", "AUC"), ("Precision", "precision", "Precision"),
        ("f1_score", "f1_score", "F1Score"), ("fbeta_score", "fbeta_score", "FBetaScore"),
        ("r2_score", "r2_score", "R2Score"),
        ("mape", "mean_absolute_percentage_error", "MeanAbsolutePercentageError"),
        ("MSLE", "mean_squared_logarithmic_error", "MeanSquaredLogarithmicError"),
        ("logcosh", "logcosh", "LogCoshError"),
        ("log_cosh_error", "logcosh", "LogCoshError"), ("kl_divergence", "kl_divergence", "KLDivergence"),
        ("top_k_categorical_accuracy", "top_k_categorical_accuracy", "TopKCategoricalAccuracy"),
    ]:  # fmt: skip
        metric = metrics.get(identifier)
        assert type(metric).__name__ == cls and metric.name == name == metric.get_config()["name"]
    assert metrics.Precision(0.4, 2, 1, "mine").get_config() == {
        "thresholds": 0.4, "top_k": 2, "class_id": 1, "name": "mine", "dtype": "float32"
    }  # fmt: skip
    assert (
        metrics.SensitivityAtSpecificity(0.5, 10, 1, "mine").name
        == "mine"
        == metrics.F1Score("macro", 0.5, "mine").name
    )
    assert metrics.SensitivityAtSpecificity(0.5).name == "sensitivity_at_specificity"
    given = metrics.AUC(thresholds=[0.5, 0.2], curve="pr", summation_method="Minoring").get_config()
    assert (given["thresholds"], given["num_thresholds"], given["curve"]) == ([0.2, 0.5], 4, "PR")
    assert given["summation_method"] == "minoring" and metrics.AUC.from_config(given).get_config() == given
    assert metrics.SparseTopKCategoricalAccuracy.sparse and metrics.Precision.larger_is_better
    assert not metrics.FalsePositives.larger_is_better


def test_arguments_by_position():
    """Keras has a dtype after the name."""
    assert metrics.BinaryAccuracy("mine", None, 0.75).threshold == 0.75
    assert metrics.BinaryCrossentropy("mine", "float32", True, 0.25).get_config() == {
        "name": "mine", "from_logits": True, "label_smoothing": 0.25, "dtype": "float32"
    }  # fmt: skip
    assert metrics.SparseTopKCategoricalAccuracy(3, "mine", None, True).from_sorted_ids
    assert metrics.Mean("mine", "float32").name == "mine" and metrics.Mean(dtype="float32").dtype == "float32"
    given = metrics.AUC(9, "PR", "minoring", "mine", None, [0.5, 0.25], True, 2, [1, 3], True).get_config()
    assert given == {
        "num_thresholds": 4, "curve": "PR", "summation_method": "minoring", "name": "mine", "thresholds": [0.25, 0.5],
        "multi_label": True, "num_labels": 2, "label_weights": [1.0, 3.0], "from_logits": True, "dtype": "float32",
    }  # fmt: skip


@pytest.mark.parametrize("unheeded", [0, 1, 200, None])
def test_the_number_of_thresholds_that_are_given(unheeded):
    """As in Keras the argument does not count then."""
    auc = metrics.AUC(unheeded, thresholds=[0.5])
    assert auc.num_thresholds == 3 and auc.thresholds == [-1e-7, 0.5, 1 + 1e-7]
    assert auc([0, 1, 1], [0.25, 0.5, 0.75]) == 0.75


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        (
            "TruePositives",
            {"thresholds": 1.5},
            r"`thresholds` of TruePositives: expected a float between 0 and 1, got 1.5",
        ),
        ("Precision", {"thresholds": [0.5, -1]}, "`thresholds` of Precision: expected a float between 0 and 1, got -1"),
        ("Recall", {"thresholds": []}, r"`thresholds` of Recall: expected a number between 0 and 1 or a list"),
        ("Precision", {"top_k": 0}, "`top_k` of Precision: expected a positive integer, got 0"),
        ("Recall", {"class_id": 1.5}, "`class_id` of Recall: expected an integer, got 1.5"),
        ("AUC", {"num_thresholds": 1}, "`num_thresholds` of AUC: expected an integer >= 2, got 1"),
        ("AUC", {"curve": "RO"}, r"`curve` of AUC: expected one of \['ROC', 'PR', 'PRGAIN'\], got 'RO'"),
        ("AUC", {"summation_method": 3}, "`summation_method` of AUC: expected one of .*, got 3"),
        ("AUC", {"thresholds": 0.5}, "`thresholds` of AUC: expected a list of numbers between 0 and 1, got 0.5"),
        ("AUC", {"num_labels": 3}, "`num_labels` of AUC: expected None without `multi_label`, got 3"),
        (
            "AUC",
            {"multi_label": True, "num_labels": 3, "label_weights": [1]},
            "`label_weights` of AUC: expected 3 weights",
        ),
        ("AUC", {"label_weights": 2}, "`label_weights` of AUC: expected a list of numbers"),
        ("SensitivityAtSpecificity", {"specificity": -0.1}, "`specificity` of .*: expected a float between 0 and 1"),
        (
            "RecallAtPrecision",
            {"precision": 0.5, "num_thresholds": 0},
            "`num_thresholds` of RecallAtPrecision: expected",
        ),
        ("F1Score", {"average": "mean"}, "`average` of F1Score: expected one of"),
        ("FBetaScore", {"beta": 0.0}, "`beta` of FBetaScore: expected a number > 0, got 0.0"),
        ("F1Score", {"threshold": 0.0}, "`threshold` of F1Score: expected a number above 0 and up to 1, got 0.0"),
        ("F1Score", {"beta": 2.0}, "F1Score: unrecognized keyword arguments"),
        ("R2Score", {"class_aggregation": "mean"}, "`class_aggregation` of R2Score: expected one of"),
        ("R2Score", {"num_regressors": -1}, "`num_regressors` of R2Score: expected an integer >= 0, got -1"),
        ("TopKCategoricalAccuracy", {"k": 0}, "`k` of TopKCategoricalAccuracy: expected a positive integer, got 0"),
    ],
)
def test_bad_arguments(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(spec(name, **arguments))


@pytest.mark.parametrize(
    ("item", "shape", "message"),
    [
        (spec("Precision", class_id=3), (4, 3), r"`y_pred`: expected a last axis .* class_id=3, got shape \(4, 3\)"),
        (spec("Precision", class_id=0), (4,), r"`y_pred`: expected a last axis .* class_id=0, got shape \(4,\)"),
        (spec("Recall", top_k=4), (4, 3), r"`y_pred`: expected a last axis of at least top_k=4 classes"),
        (spec("AUC", multi_label=True), (4, 3, 2), r"`y_pred`: expected shape \(batch, labels\), got \(4, 3, 2\)"),
        (spec("AUC", multi_label=True, num_labels=2), (4, 3), r"`y_pred`: expected shape \(batch, 2\), got \(4, 3\)"),
        (
            spec("AUC", label_weights=[1.0, 2.0]),
            (4, 3),
            "`y_pred`: expected a last axis of 2, the number of label_weights",
        ),
        (spec("AUC", multi_label=True, label_weights=[1.0]), (4, 3), "`label_weights` of AUC: expected 3 weights"),
        (spec("F1Score"), (4,), r"`y_pred` of F1Score: expected shape \(batch, outputs\), got \(4,\)"),
        (spec("R2Score"), (4, 2, 3), r"`y_pred` of R2Score: expected shape \(batch, outputs\), got \(4, 2, 3\)"),
        (spec("CosineSimilarity", axis=2), (4, 3), r"`axis` of CosineSimilarity: .* shape \(4, 3\), got 2"),
        (spec("Hinge"), (), "`y_pred`: expected at least one axis, got a scalar"),
    ],
    ids=ids,
)
def test_bad_predictions(item, shape, message):
    metric = make(item)
    with pytest.raises(ValueError, match=message):
        metric.update_state(np.zeros(shape), np.zeros(shape))
    assert not np.any(metric.result())


@pytest.mark.parametrize("name", ["TruePositives", "AUC", "F1Score", "R2Score", "Poisson"])
def test_bad_batches_change_nothing(name):
    metric, y, p = (
        make(spec(name)),
        np.float32([[1, 0], [0, 1], [1, 1]]),
        np.float32([[0.9, 0.1], [0.2, 0.7], [0.6, 0.3]]),
    )
    before = metric(y, p)
    for true, pred, weight, message in [
        (y[:2], p, None, r"`y_true`: expected shape \(3, 2\)"),
        ([0, 1, 1], p, None, r"`y_true`: expected shape \(3, 2\)"),
        (y, p, [1.0, 2.0], "`sample_weight`: expected shape"),
    ]:
        with pytest.raises(ValueError, match=message):
            metric.update_state(true, pred, weight)
    with pytest.raises(TypeError, match="`y_pred`: expected real numbers"):
        metric.update_state(y, [["a", "b"]] * 3)
    if name in ("F1Score", "R2Score"):
        with pytest.raises(ValueError, match=rf"`y_pred` of {name}: expected shape \(batch, 2\), got \(3, 3\)"):
            metric.update_state(np.zeros((3, 3)), np.zeros((3, 3)))
    assert np.array_equal(metric.result(), before) and np.any(before)


def test_r2_of_few_samples_is_not_adjusted():
    y, p = [[1.0], [4.0], [3.0]], [[2.0], [4.0], [4.0]]
    plain = metrics.R2Score()(y, p)
    for regressors in (2, 5):
        metric = metrics.R2Score(num_regressors=regressors)
        metric.update_state(y, p)
        with pytest.warns(UserWarning, match=f"`num_regressors` of R2Score: .* got {regressors} with 3 samples"):
            assert metric.result() == plain
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert metrics.R2Score(num_regressors=1)(y, p) < plain


@pytest.mark.parametrize("steps", [False, True])
def test_in_compile(steps):
    """After an epoch of batches each says what it says of the predictions of all; weighted ones take the weights."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(23, 5, 3)).astype(np.float32)
    y = rng.integers(0, 2, (23, 5) if steps else 23)
    w = rng.uniform(0, 2, y.shape if steps else 23).astype(np.float32)
    named = ["auc", "precision", "recall", "true_positives", "mape", "squared_hinge"]
    made = lambda: [metrics.AUC(curve="PR", name="pr"), metrics.RecallAtPrecision(0.3, name="at")]  # noqa: E731
    more = [] if steps else ["r2_score", metrics.F1Score("macro", 0.5)]
    model = seqcore.Sequential(
        [seqcore.Input((5, 3)), layers.GRU(4, return_sequences=steps), layers.Dense(1, activation="sigmoid")]
    )
    model.compile("sgd", "binary_crossentropy", metrics=[*named, *more], weighted_metrics=made())
    model.fit(x, y, batch_size=4, epochs=1, verbose=0)
    logs = model.evaluate(x, y, batch_size=4, sample_weight=w, verbose=0, return_dict=True)
    p = model.predict(x, verbose=0)
    for name in named:
        assert logs[name] == pytest.approx(float(metrics.get(name)(y, p)), rel=1e-5)
    for metric in made():
        assert logs[metric.name] == pytest.approx(float(metric(y, p, w)), rel=1e-5)
    if not steps:
        assert logs["r2_score"] == pytest.approx(float(metrics.R2Score()(y, p)), rel=1e-5)
        assert logs["f1_score"] == pytest.approx(float(metrics.F1Score("macro", 0.5)(y, p)), rel=1e-5)


def test_in_compile_of_classes(tmp_path):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(19, 4, 3)).astype(np.float32), rng.integers(0, 6, 19)
    one_hot = np.eye(6, dtype=np.float32)[y]
    for loss, true, watched in [
        ("sparse_categorical_crossentropy", y, [metrics.SparseTopKCategoricalAccuracy(2)]),
        ("categorical_crossentropy", one_hot, [metrics.TopKCategoricalAccuracy(2), metrics.AUC(multi_label=True),
         metrics.Precision(top_k=2, class_id=1), metrics.F1Score("weighted"), "kl_divergence", "cosine_similarity"]),
    ]:  # fmt: skip
        model = seqcore.Sequential([seqcore.Input((4, 3)), layers.GRU(4), layers.Dense(6, activation="softmax")])
        model.compile("sgd", loss, metrics=watched)
        logs = model.evaluate(x, true, batch_size=7, verbose=0, return_dict=True)
        p = model.predict(x, verbose=0)
        for metric in map(metrics.get, watched):
            again = type(metric).from_config(metric.get_config())
            assert logs[metric.name] == pytest.approx(float(again(true, p)), rel=1e-5)
        model.save(tmp_path / "model.safetensors")
        loaded = seqcore.saving.load_model(tmp_path / "model.safetensors")
        assert loaded.evaluate(x, true, batch_size=7, verbose=0, return_dict=True) == logs


class Both(metrics.Metric):
    """F1 of metrics that it holds, one of them in a list."""

    def __init__(self, name="both"):
        super().__init__(name=name)
        self.parts, self.recall = [metrics.Precision()], metrics.Recall()
        self.seen = self.add_variable((), "zeros", "int32", "seen")

    def update_state(self, y_true, y_pred, sample_weight=None):
        for part in (*self.parts, self.recall):
            part.update_state(y_true, y_pred, sample_weight)
        self.seen.assign_add(len(y_true))

    def result(self):
        p, r = float(self.parts[0].result()), float(self.recall.result())
        return 2 * p * r / (p + r) if p + r else 0.0


def test_metrics_within_metrics_start_anew_with_them():
    x, y = np.float32(np.random.default_rng(0).standard_normal((40, 3))), np.arange(40) % 2
    both = Both()
    assert [v.name for v in both.variables] == [
        "seen", *(v.name for v in metrics.Precision().variables), *(v.name for v in metrics.Recall().variables)
    ]  # fmt: skip
    model = seqcore.Sequential([seqcore.Input((3,)), layers.Dense(1, activation="sigmoid")])
    model.compile("sgd", "binary_crossentropy", metrics=[both])
    for half in (slice(0, 20), slice(20, 40)):
        logs = model.evaluate(x[half], y[half], verbose=0, return_dict=True)
        alone = metrics.F1Score(threshold=0.5)(y[half, None], model.predict(x[half], verbose=0))
        assert logs["both"] == pytest.approx(float(alone[0])) and int(both.seen) == 20
