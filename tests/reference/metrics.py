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
