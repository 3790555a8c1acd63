"""Metrics: running weighted means of per-sample values."""

import numpy as np

from .losses import ignored, per_sample, weights


def values(spec, y, p):
    """Per-sample values (...,) of a metric."""
    name, config = spec["class_name"], spec.get("config", {})
    if name == "SparseCategoricalAccuracy":
        return np.asarray(y).reshape(p.shape[:-1]) == p.argmax(-1)
    if name in ("CategoricalAccuracy",):
        return y.argmax(-1) == p.argmax(-1)
    if name == "BinaryAccuracy":
        y = y if y.ndim == p.ndim else y[..., None]
        return (y == (p > config.get("threshold", 0.5))).mean(-1)
    return per_sample(spec, y, p)[0]


class Metric:
    def __init__(self, spec):
        self.spec, self.total, self.count = spec, 0.0, 0.0

    def update(self, y, p, mask=None, sample_weight=None):
        v = values(self.spec, y, p)
        w = weights(v.shape, mask, sample_weight)
        if mask is not None or sample_weight is not None:  # else ignored entries count as 0
            w = np.where(ignored(self.spec, y, p), 0.0, w)
        self.total += np.where(w != 0, v * w, 0.0).sum()
        self.count += w.sum()

    def result(self):
        return self.total / self.count if self.count else 0.0


# ---- metrics of everything seen at once: y and p whole, w of p's shape or of p's without its last axis


def counts(y, p, w, threshold):
    """True and false positives, true and false negatives: weights above `threshold` or not."""
    above, positive = p > np.float32(threshold), y != 0
    sides = [(positive, above), (~positive, above), (~positive, ~above), (positive, ~above)]
    return [sum(v for v, hit in zip(w.ravel(), (a & b).ravel()) if hit) for a, b in sides]


def share(a, b):
    return a / (a + b) if a + b else 0.0


def picked(y, p, w, config):
    """After top_k and class_id."""
    w = np.ones(p.shape) if w is None else np.broadcast_to(w if w.ndim == p.ndim else w[..., None], p.shape)
    if config.get("top_k"):
        p = np.where(p >= np.sort(p, -1)[..., -config["top_k"], None], p, -np.inf)
    if config.get("class_id") is not None:
        i = config["class_id"]
        y, p, w = y[..., i], p[..., i], w[..., i]
    return y, p, w


def best_under(name, y, p, w, config):
    bound = {"SensitivityAtSpecificity": "specificity", "SpecificityAtSensitivity": "sensitivity",
             "PrecisionAtRecall": "recall", "RecallAtPrecision": "precision"}[name]  # fmt: skip
    n, best = config.get("num_thresholds", 200), 0.0
    for t in [0.5] if n == 1 else np.arange(n) / (n - 1):
        tp, fp, tn, fn = counts(y, p, w, t)
        at = {"specificity": share(tn, fp), "recall": share(tp, fn), "precision": share(tp, fp)}
        at["sensitivity"] = at["recall"]
        wanted = name.split("At")[0].lower()
        if at[bound] >= config[bound] - 1e-9:
            best = max(best, at[wanted])
    return best


def auc(y, p, w, config):
    n = config.get("num_thresholds", 200)
    inner = sorted(config["thresholds"]) if config.get("thresholds") is not None else np.arange(1, n - 1) / (n - 1)
    table = [counts(y, p, w, t) for t in [-1.0, *inner, 2.0]]
    curve, method = config.get("curve", "ROC").upper(), config.get("summation_method", "interpolation").lower()
    area = 0.0
    if (curve, method) == ("PR", "interpolation"):
        nodes, node_weights = np.polynomial.legendre.leggauss(60)
        for i in range(len(table) - 1):
            (tp1, fp1, _, fn), (tp0, fp0, _, _) = table[i : i + 2]
            for s, v in zip((nodes + 1) / 2, node_weights / 2):
                tp, fp = tp0 + s * (tp1 - tp0), fp0 + s * (fp1 - fp0)
                area += v * share(tp, fp) * (tp1 - tp0) / (tp1 + fn if tp1 + fn else 1.0)
        return area
    points = []
    for tp, fp, tn, fn in table:
        if curve == "ROC":
            points.append((share(fp, tn), share(tp, fn)))
        elif curve == "PR":
            points.append((share(tp, fn), share(tp, fp)))
        elif tp == 0:
            points.append((0.0, 1.0))
        else:
            odds = (tp + fn) / (tn + fp) if tn + fp else 0.0
            points.append((max(1 - odds * fn / tp, 0.0), 1 - odds * fp / tp))
    height = {"interpolation": lambda a, b: (a + b) / 2, "minoring": min, "majoring": max}[method]
    for i in range(len(points) - 1):
        (x1, y1), (x0, y0) = points[i : i + 2]
        area += (x1 - x0) * height(y1, y0)
    return area


def f_beta(y, p, w, config, beta):
    """Of one class, or of all flattened."""
    tp, fp, fn = ((w * part).sum() for part in (p * y, p * (1 - y), (1 - p) * y))
    return (1 + beta**2) * tp / ((1 + beta**2) * tp + beta**2 * fn + fp) if tp else 0.0


def f_score(y, p, w, config):
    w = np.ones(p.shape) if w is None else np.broadcast_to(w[:, None], p.shape)
    beta, threshold, average = config.get("beta", 1.0), config.get("threshold"), config.get("average")
    chosen = (p == p.max(-1, keepdims=True)) if threshold is None else p > threshold
    chosen = chosen.astype(float)
    if average == "micro":
        return f_beta(y, chosen, w, config, beta)
    scores = np.array([f_beta(y[:, i], chosen[:, i], w[:, i], config, beta) for i in range(p.shape[1])])
    often = (w * y).sum(0)
    return {None: scores, "macro": scores.mean(), "weighted": (scores * often).sum() / often.sum()}[average]


def r2(y, p, w, config):
    scores, spreads = [], []
    for i in range(p.shape[1]):
        v = np.ones(len(p)) if w is None else w
        mean = np.average(y[:, i], weights=v)
        spreads.append((v * (y[:, i] - mean) ** 2).sum())
        scores.append(1 - (v * (y[:, i] - p[:, i]) ** 2).sum() / spreads[-1])
    how = config.get("class_aggregation", "uniform_average")
    score = {None: np.array(scores), "uniform_average": np.mean(scores),
             "variance_weighted_average": np.average(scores, weights=spreads)}[how]  # fmt: skip
    n, k = y.size, config.get("num_regressors", 0)
    return 1 - (1 - score) * (n - 1) / (n - k - 1) if k else score


def of_sample(name, y, p, config):
    """The value of one sample (and step): vectors y and p."""
    n = len(p)
    if name == "MeanAbsolutePercentageError":
        return 100 * sum(abs(a - b) / max(abs(a), 1e-7) for a, b in zip(y, p)) / n
    if name == "MeanSquaredLogarithmicError":
        return sum((np.log(1 + max(a, 1e-7)) - np.log(1 + max(b, 1e-7))) ** 2 for a, b in zip(y, p)) / n
    if name == "LogCoshError":
        return sum(np.log(np.cosh(a - b)) for a, b in zip(y, p)) / n
    if name == "Poisson":
        return sum(b - a * np.log(b + 1e-7) for a, b in zip(y, p)) / n
    if name == "KLDivergence":
        y, p = ([min(max(v, 1e-7), 1.0) for v in z] for z in (y, p))
        return sum(a * np.log(a / b) for a, b in zip(y, p))
    if name in ("Hinge", "SquaredHinge"):
        return sum(max(1 - (a if a else -1) * b, 0.0) ** (1 if name == "Hinge" else 2) for a, b in zip(y, p)) / n
    if name == "CategoricalHinge":
        return max(max((1 - a) * b for a, b in zip(y, p)) - sum(a * b for a, b in zip(y, p)) + 1, 0.0)
    if name == "CosineSimilarity":
        return np.dot(y, p) / np.linalg.norm(y) / np.linalg.norm(p)
    own = p[int(y)] if name.startswith("Sparse") else p[list(y).index(max(y))]
    return float(own in sorted(p, reverse=True)[: config.get("k", 5)])


def score(spec, y, p, w=None):
    """The result of a metric after all of y and p."""
    name, config = spec["class_name"], spec["config"]
    kinds = {"TruePositives": (0,), "FalsePositives": (1,), "TrueNegatives": (2,), "FalseNegatives": (3,),
             "Precision": (0, 1), "Recall": (0, 3)}  # fmt: skip
    if name in kinds:
        given = config.get("thresholds")
        thresholds = np.atleast_1d(given if given is not None else -1e30 if config.get("top_k") else 0.5)
        y, p, w = picked(y, p, w, config)
        of_each = [[counts(y, p, w, t)[i] for i in kinds[name]] for t in thresholds]
        results = [row[0] if len(row) == 1 else share(*row) for row in of_each]
        return results[0] if len(results) == 1 else np.array(results)
    if "At" in name:
        return best_under(name, *picked(y, p, w, config), config)
    if name == "AUC":
        if config.get("from_logits"):
            p = 1 / (1 + np.exp(-p.astype(np.float64)))
        y, p, w = picked(y, p, w, {})
        weights = config.get("label_weights")
        if config.get("multi_label"):
            areas = [auc(y[:, i], p[:, i], w[:, i], config) for i in range(p.shape[1])]
            return np.average(areas, weights=weights)
        return auc(y, p, w if weights is None else w * np.array(weights), config)
    y, p = y.astype(np.float64), p.astype(np.float64)
    if name in ("FBetaScore", "F1Score"):
        return f_score(y, p, w, config)
    if name == "R2Score":
        return r2(y, p, w, config)
    rows = y.reshape(-1) if name.startswith("Sparse") else y.reshape(-1, y.shape[-1])
    values = [of_sample(name, a, b, config) for a, b in zip(rows, p.reshape(-1, p.shape[-1]))]
    return np.average(values, weights=None if w is None else w.ravel())
