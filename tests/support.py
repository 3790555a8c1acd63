"""What the tests share: descriptions of layers and models, random ones, float32 beside float64, subprocesses."""

import json
import os
import subprocess
import sys

import numpy as np

from reference.activations import ACTIVATIONS
from reference.model import Model as Reference

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ELEMENTWISE = [name for name in ACTIVATIONS if name not in ("softmax", "log_softmax", "sparsemax")]
TAME = [name for name in ELEMENTWISE if name != "exponential"]  # those whose recurrences stay moderate


def spec(class_name, **config):
    """A layer, loss, metric, optimizer, regularizer … in Keras's words."""
    return {"class_name": class_name, "config": config}


def chain(shape, *layers, dtype="float32"):
    """The description of a Sequential model; shape includes the batch."""
    return {"input": {"shape": list(shape), "dtype": dtype}, "layers": list(layers)}


def compiling(loss, optimizer=None, metrics=(), weighted_metrics=(), **more):
    """What `_core.Model.compile` takes."""
    parts = {"optimizer": optimizer, "loss": loss, "metrics": list(metrics), "weighted_metrics": list(weighted_metrics)}
    return json.dumps({**parts, **more})


def instance(library, item, home="layers"):
    """The object that `item` describes, made by `library` (seqcore or keras)."""
    homes = {"regularizer": "regularizers", "constraint": "constraints", "initializer": "initializers"}

    def value(key, v):
        if isinstance(v, list):
            return [value(key, one) for one in v]
        if isinstance(v, dict) and "class_name" in v:
            home = next((h for word, h in homes.items() if key.endswith(word)), "layers")
            return make(home, v)
        return v

    def make(home, v):
        return getattr(getattr(library, home), v["class_name"])(**{k: value(k, x) for k, x in v["config"].items()})

    return make(home, item)


def sequential(library, description):
    """The public model of a description, built."""
    shape, dtype = description["input"]["shape"], description["input"]["dtype"]
    layers = [instance(library, item) for item in description["layers"]]
    return library.Sequential([library.layers.Input(batch_shape=tuple(shape), dtype=dtype), *layers])


# ------------------------------------------------------------------------------------------------------ random models


class Case:
    """A description with data for it. `kind` of target follows from the loss."""

    def __init__(self, description, loss, batch, seed, mask=None):
        self.description, self.loss, self.mask = description, loss, mask
        rng = np.random.default_rng(seed)
        reference = Reference(description)
        # Glorot-like scales keep every activation's iterates moderate.
        self.weights = [
            rng.uniform(-1, 1, s).astype(np.float32) * np.float32(0.3 if len(s) < 2 else (3 / sum(s[-2:])) ** 0.5)
            for s in reference.shapes
        ]
        variances = [i for i, (_, name) in enumerate(reference.names) if name.endswith("moving_variance")]
        for i in variances:
            self.weights[i] = np.abs(self.weights[i]) + np.float32(0.5)
        self.x = self.inputs((batch, *description["input"]["shape"][1:]), rng)
        self.y = target(loss, (batch, *reference.output_shape[1:]), rng)
        self.sample_weight = rng.uniform(0.5, 2.0, batch).astype(np.float32)

    def inputs(self, shape, rng):
        """Random data for the model, some of it masked where the model masks."""
        first = self.description["layers"][0]
        if self.description["input"]["dtype"] == "int32":
            return rng.integers(0, first["config"]["input_dim"], shape).astype(np.int32)
        x = rng.normal(size=shape).astype(np.float32)
        if first["class_name"] == "Masking":
            x[rng.random(shape[:2]) < 0.3] = first["config"]["mask_value"]
        return x

    def reference(self, weights=None):
        model = Reference(self.description)
        model.set_weights(self.weights if weights is None else weights)
        return model

    def __repr__(self):
        return f"{json.dumps(self.description)} {self.loss} x{self.x.shape}"


def target(loss, shape, rng):
    name = loss["class_name"]
    if name == "SparseCategoricalCrossentropy":
        return rng.integers(0, shape[-1], shape[:-1]).astype(np.int32)
    if name in ("CategoricalCrossentropy", "CategoricalFocalCrossentropy", "CategoricalHinge"):
        return np.eye(shape[-1], dtype=np.float32)[rng.integers(0, shape[-1], shape[:-1])]
    if name in ("BinaryCrossentropy", "BinaryFocalCrossentropy", "Hinge", "SquaredHinge"):
        return rng.integers(0, 2, shape).astype(np.float32)
    return rng.normal(size=shape).astype(np.float32)


OVER_TIME = ("go_backwards", "zero_output_for_mask", "return_sequences", "activity_regularizer")


def random_recurrent(pick):
    kind = pick(["SimpleRNN", "LSTM", "GRU"])
    cell = {
        "units": pick([1, 2, 3, 7, 16, 17, 33]),
        "activation": pick(["tanh", "tanh", "relu", *TAME, "softmax"]),
        "use_bias": pick([True, True, False]),
        "go_backwards": pick([False, False, True]),
        "zero_output_for_mask": pick([False, False, True]),
        "return_sequences": pick([True, False]),
    }
    if kind != "SimpleRNN":
        cell["recurrent_activation"] = pick(["sigmoid", "sigmoid", "hard_sigmoid", "silu", "tanh", "softmax"])
    if kind == "GRU":
        cell["reset_after"] = pick([True, False])
    for role in ("kernel", "recurrent", "bias", "activity"):
        if pick([False] * 7 + [True]):
            cell[f"{role}_regularizer"] = pick(
                [spec("L1", l1=0.01), spec("L2", l2=0.02), spec("L1L2", l1=0.01, l2=0.02)]
            )
    if pick([False, False, True]):
        return "RNN", of_cells(kind, cell, pick)
    return kind, cell


def of_cells(kind, config, pick):
    """The config of an RNN whose first cell is of that kind."""
    cells = [spec(kind + "Cell", **{k: v for k, v in config.items() if k not in OVER_TIME})]
    for _ in range(pick([0, 1, 1, 2])):
        more = {"units": pick([1, 2, 7, 17, 21]), "activation": pick(["tanh", "relu", "softsign"])}
        cells.append(spec(pick(["SimpleRNNCell", "LSTMCell", "GRUCell"]), **more))
    cell = cells[0] if len(cells) == 1 and pick([True, False]) else spec("StackedRNNCells", cells=cells)
    return {"cell": cell, **{k: v for k, v in config.items() if k in OVER_TIME}}


def random_window_layer(pick, causal=False):
    """A Conv1D or a pooling layer whose windows fit into 7 steps or more. Its filters are 12 times some number."""
    kind = "Conv1D" if causal else pick(["Conv1D", "Conv1D", "MaxPooling1D", "AveragePooling1D"])
    if kind != "Conv1D":
        return spec(
            kind, pool_size=pick([1, 2, 3, 5]), strides=pick([None, 1, 2, 3, 4]), padding=pick(["valid", "same"])
        )
    size = pick([1, 2, 3, 4, 5, 7])
    padding = "causal" if causal else pick(["valid", "same", "causal"])
    stride = 1 if causal else pick([1, 1, 2, 3, 8])
    # Without padding what a window spans must fit; with it, it may exceed the input.
    rates = [1, 2, 3] if size <= 3 else [1]
    return spec(
        kind,
        filters=pick([12, 24, 36]),
        kernel_size=size,
        strides=stride,
        padding=padding,
        dilation_rate=1 if stride > 1 else pick(rates if padding == "valid" else [1, 2, 9]),
        groups=pick([1, 1, 1, 2, 3, 4]),
        activation=pick(["linear", "tanh", "relu", "gelu", "silu", "softmax"]),
        use_bias=pick([True, True, False]),
        **({"activity_regularizer": spec("L2", l2=0.1)} if pick([False] * 5 + [True]) else {}),
        **({"kernel_regularizer": spec("L2", l2=0.1)} if pick([False] * 5 + [True]) else {}),
    )


def random_window_case(pick, causal=False):
    """A random model in which some layer sees windows: of a sequence, or of what a recurrent layer makes of it."""
    steps, batch = pick([7, 8, 13, 31]), pick([1, 2, 3, 5, 17])
    dtype, layers = "float32", []
    begins = pick(["plain", "plain", "Masking", "Embedding", "LSTM"])
    features = pick([1, 2, 5, 13, 17])
    shape = (None, steps, features)
    if begins == "Embedding":
        dtype, shape = "int32", (None, steps)
        layers.append(spec("Embedding", input_dim=7, output_dim=12, mask_zero=pick([True, False])))
        features = 12
    elif begins == "Masking":
        layers.append(spec("Masking", mask_value=0.0))
    elif begins == "LSTM":
        layers.append(spec("LSTM", units=24, return_sequences=True))
        features = 24
    first = random_window_layer(pick, causal)
    if "groups" in first["config"] and features % 12:
        first["config"]["groups"] = features if 12 % features == 0 else 1
    layers.append(first)
    if pick([True, False]):
        then = random_window_layer(pick, causal)
        if "groups" in then["config"] and first["class_name"] != "Conv1D":
            then["config"]["groups"] = 1
        then["config"].update({"padding": "causal" if causal else "same"})
        layers.append(then)
    ends = pick(
        ["LSTM", "sequence"] if causal else ["LSTM", "Bidirectional", "Flatten", "GlobalMaxPooling1D", "sequence"]
    )
    layers += {
        "LSTM": [spec("LSTM", units=pick([3, 17]))],
        "Bidirectional": [spec("Bidirectional", layer=spec("GRU", units=5), merge_mode="concat")],
        "Flatten": [spec("Flatten")],
        "GlobalMaxPooling1D": [spec("GlobalMaxPooling1D")],
        "sequence": [],
    }[ends]
    loss, activation = pick([(spec("MeanSquaredError"), "linear"), (spec("SparseCategoricalCrossentropy"), "softmax")])
    if ends == "sequence" and not causal and pick([True, False]):
        layers.append(spec("Conv1D", filters=3, kernel_size=2, padding="same", activation=activation))
    else:
        layers.append(spec("Dense", units=3, activation=activation))
    return Case(chain(shape, *layers, dtype=dtype), loss, batch, seed=pick(list(range(1000))))


def random_case(pick, causal=False):
    """A random model, loss and data. `pick(options)` chooses one of a list. `causal`: only models that can run step by
    step, of sequences of any length."""
    steps, features, batch = pick([1, 2, 3, 5, 7, 11]), pick([1, 2, 3, 5, 8, 13, 17]), pick([1, 2, 3, 5, 17])
    masked = pick([True, False])
    dtype, layers = "float32", []
    if pick([True, False]):
        dtype, shape = "int32", (None, steps)
        layers.append(spec("Embedding", input_dim=pick([2, 7]), output_dim=features, mask_zero=masked))
    else:
        shape = (None, steps, features)
        if masked:
            layers.append(spec("Masking", mask_value=pick([0.0, -1.5])))
    sequences = True
    for _ in range(pick([1, 1, 2])):
        kind, cell = random_recurrent(pick)
        if causal:
            layers.append(spec(kind, **{**cell, "go_backwards": False}))
        elif pick([False, False, True]):
            cell["go_backwards"] = False  # its copy is the one that goes backwards
            layers.append(
                spec("Bidirectional", layer=spec(kind, **cell), merge_mode=pick(["concat", "sum", "mul", "ave"]))
            )
        else:
            layers.append(spec(kind, **cell))
        if not cell["return_sequences"]:
            sequences = False
            break
        between = pick(["none", "none", "Dense", "TimeDistributed", "LayerNormalization", "Activation", "Dropout"])
        dense = {"units": pick([1, 4, 19]), "activation": pick(ELEMENTWISE), "use_bias": pick([True, False])}
        layers += {
            "none": [],
            "Dense": [spec("Dense", **dense)],
            "TimeDistributed": [spec("TimeDistributed", layer=spec("Dense", **dense))],
            "LayerNormalization": [spec("LayerNormalization", center=pick([True, False]), scale=pick([True, False]))],
            "Activation": [spec("Activation", activation=pick(ELEMENTWISE))],
            "Dropout": [spec("Dropout", rate=0.0)],
        }[between]
    if sequences and not causal and pick([False, False, True]):
        layers.append(spec("Flatten"))
    loss, activation = pick(
        [
            (spec("MeanSquaredError"), "linear"),
            (spec("MeanAbsoluteError"), "tanh"),
            (spec("Huber", delta=0.7), "linear"),
            (spec("BinaryCrossentropy"), "sigmoid"),
            (spec("BinaryCrossentropy", from_logits=True, label_smoothing=0.1), "linear"),
            (spec("CategoricalCrossentropy", label_smoothing=0.2), "softmax"),
            (spec("CategoricalCrossentropy", from_logits=True), "linear"),
            (spec("SparseCategoricalCrossentropy"), "softmax"),
            (spec("SparseCategoricalCrossentropy", from_logits=True), "linear"),
        ]
    )
    if not causal or pick([True, False]):
        layers.append(spec("Dense", units=pick([2, 3, 5, 18]), activation=activation))
    return Case(chain(shape, *layers, dtype=dtype), loss, batch, seed=pick(list(range(1000))))


def rng_pick(seed):
    """A `pick` from a seed, for use without hypothesis."""
    rng = np.random.default_rng(seed)
    return lambda options: options[rng.integers(len(options))]


# -------------------------------------------------------------------------------------------------- models as streams


def model_of(case):
    """The public model of a causal case, for sequences of any length."""
    import seqcore

    shape = case.description["input"]["shape"]
    opened = {**case.description["input"], "shape": [None, None, *shape[2:]]}
    model = sequential(seqcore, {**case.description, "input": opened})
    model.set_weights(case.weights)
    return model


def prefixes(model, x, **arguments):
    """What `predict` gives at the end of each prefix of one sequence: (steps, outputs)."""
    if len(model.output_shape) == 3:
        return model.predict(x[None], verbose=0, **arguments)[0]
    return np.stack([model.predict(x[None, : t + 1], verbose=0, **arguments)[0] for t in range(len(x))])


def same_bits(actual, expected):
    """Whether two arrays, or two lists of them, have the same shapes and, to the sign of a zero, values."""
    if isinstance(actual, list):
        return len(actual) == len(expected) and all(map(same_bits, actual, expected))
    return actual.shape == expected.shape and actual.dtype == expected.dtype and actual.tobytes() == expected.tobytes()


# --------------------------------------------------------------------------------------------- float32 beside float64


def assert_close(actual, expected, nearby=None, rtol=1e-5, what=""):
    """|actual - expected| <= rtol * max|expected| + 4 |nearby - expected|, NaN never.

    `nearby` is the same reference value for weights moved by a few float32 roundings: where the problem itself is
    sensitive (kinks, growing recurrences) float32 cannot do better than that.
    """
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    allowed = rtol * max(np.abs(expected).max(initial=0.0), 1e-3)
    if nearby is not None:
        allowed += 4.0 * np.abs(np.asarray(nearby) - expected).max(initial=0.0)
    error = np.abs(actual - expected).max(initial=0.0)
    assert error <= allowed, f"{what}: error {error:.3g} > {allowed:.3g}"


def nudge(weights, seed=1):
    """The weights moved by about four float32 roundings each."""
    rng = np.random.default_rng(seed)
    return [np.asarray(w, np.float64) * (1.0 + 2.4e-7 * rng.choice([-1.0, 1.0], np.shape(w))) for w in weights]


# ---------------------------------------------------------------------------------- metrics that the core does not know

_COUNTED = ("TruePositives", "TrueNegatives", "FalsePositives", "FalseNegatives", "Precision", "Recall")
_THRESHOLDS = [{}, {"thresholds": 0.3}, {"thresholds": [0.7, 0.2, 0.9]}, {"thresholds": [0.0, 0.25, 0.5, 0.75, 1.0]}]
_OF_CLASSES = [
    {"top_k": 2},
    {"class_id": 1},
    {"top_k": 1, "class_id": 0},
    {"top_k": 2, "thresholds": [0.4, 0.1]},
    {"top_k": 3, "thresholds": [0.0, 0.5, 1.0], "class_id": -1},
]
_AREAS = [
    *({"curve": c, "summation_method": m, "num_thresholds": 23}
      for c in ("ROC", "PR", "PRGAIN") for m in ("interpolation", "minoring", "majoring")),
    {},
    {"curve": "pr"},
    {"num_thresholds": 2},
    {"thresholds": [0.8, 0.1, 0.35], "summation_method": "Majoring"},
    {"thresholds": [0.5, 0.25, 0.75], "curve": "PR"},
    {"thresholds": []},
    {"from_logits": True},
]  # fmt: skip
_LABELED = [
    {"multi_label": True},
    {"multi_label": True, "num_labels": 3, "label_weights": [1.0, 0.0, 2.5]},
    {"multi_label": True, "curve": "PR", "label_weights": [1.0, 0.5, 2.5]},
    {"multi_label": True, "thresholds": [0.4, 0.6, 0.1], "curve": "PR", "summation_method": "minoring"},
    {"label_weights": [1.0, 0.5, 2.5], "num_thresholds": 7},
    {"label_weights": [1.0, 0.5, 2.5], "thresholds": [0.2, 0.3]},
]
_UNDER = [("SensitivityAtSpecificity", "specificity"), ("SpecificityAtSensitivity", "sensitivity"),
          ("PrecisionAtRecall", "recall"), ("RecallAtPrecision", "precision")]  # fmt: skip
# (shapes without the batch, descriptions)
HOST_METRICS = [
    ([(1,), (3,), (5, 1), (2, 3)], [
        *(spec(n, **c) for n in _COUNTED for c in _THRESHOLDS),
        *(spec(n, **{bound: v}, num_thresholds=t)
          for n, bound in _UNDER for v, t in [(0.6, 200), (0.3, 7), (0.5, 1), (0.01, 2)]),
        *(spec("AUC", **c) for c in _AREAS),
    ]),
    ([(3,), (2, 3)], [
        *(spec(n, **c) for n in ("Precision", "Recall") for c in _OF_CLASSES),
        *(spec(n, **{bound: 0.4}, num_thresholds=31, class_id=2) for n, bound in _UNDER),
    ]),
    ([(3,)], [spec("AUC", **c) for c in _LABELED]),
    ([(1,), (3,), (7,)], [
        *(spec("F1Score", average=a, threshold=t) for a in (None, "micro", "macro", "weighted") for t in (None, 0.4)),
        *(spec("FBetaScore", average=a, beta=b) for a in (None, "micro", "macro", "weighted") for b in (0.5, 2.0)),
        *(spec("R2Score", class_aggregation=a, num_regressors=n)
          for a in (None, "uniform_average", "variance_weighted_average") for n in (0, 3)),
    ]),
    ([(7,), (3, 11)], [
        *(spec(n, k=k) for n in ("TopKCategoricalAccuracy", "SparseTopKCategoricalAccuracy") for k in (1, 2, 5)),
        spec("CategoricalHinge"), spec("CosineSimilarity"), spec("KLDivergence"),
    ]),
    ([(1,), (3,), (5, 1), (2, 7)], [
        *map(spec, ("MeanAbsolutePercentageError", "MeanSquaredLogarithmicError", "LogCoshError", "Poisson", "Hinge")),
        spec("SquaredHinge"),
    ]),
]  # fmt: skip
HOST_CASES = [
    (item, shape, weights)
    for shapes, items in HOST_METRICS
    for item in items
    for shape in shapes
    for weights in ("none", "rows", "steps")[: 1 + len(shape)]
]


def host_batches(item, shape, weights, seed):
    """Three batches (y, p, sample_weight) for a metric. `weights`: "none", "rows", "steps"."""
    rng, out = np.random.default_rng(seed), []
    name, config = item["class_name"], item["config"]
    for batch in (7, 1, 13):
        full = (batch, *shape)
        p = rng.uniform(0.01, 0.99, full)
        y = rng.integers(0, 2, full)
        if name in ("R2Score", "LogCoshError", "MeanSquaredLogarithmicError", "MeanAbsolutePercentageError"):
            y, p = rng.normal(1, 1, full).astype(np.float32), rng.normal(1, 1, full)
        elif name == "Hinge":
            y = 2 * y - 1
        elif name in ("CosineSimilarity", "CategoricalHinge") or config.get("from_logits"):
            p = rng.normal(size=full)
        if name in ("TopKCategoricalAccuracy", "CategoricalHinge"):
            y = np.eye(shape[-1])[rng.integers(0, shape[-1], full[:-1])]
        elif name == "KLDivergence":
            y, p = (np.exp(v) / np.exp(v).sum(-1, keepdims=True) for v in (rng.normal(size=full), p))
        elif name == "CosineSimilarity":
            y = rng.normal(size=full)
        elif name == "SparseTopKCategoricalAccuracy":
            y = rng.integers(0, shape[-1], full[:-1])
        w = {"none": None, "rows": rng.uniform(0, 2, batch), "steps": rng.uniform(0, 2, full[:-1])}[weights]
        out.append((np.asarray(y, np.int32 if y.dtype.kind == "i" else np.float32), p.astype(np.float32), w))
    return out


# --------------------------------------------------------------------------------------------------------- subprocess


def run_python(code, timeout=120, **environment):
    """Runs `code` in a fresh interpreter with tests/ importable; returns its stdout. A failure shows its stderr."""
    env = {**os.environ, **{k: str(v) for k, v in environment.items()}}
    env["PYTHONPATH"] = os.pathsep.join([os.path.join(ROOT, "tests"), env.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stderr}"
    return done.stdout
