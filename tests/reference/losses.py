"""Losses: per-sample values with gradients, and Keras's weighting and reduction."""

import numpy as np

from .activations import activate

EPSILON = 1e-7


def per_sample(spec, y, p):
    """(loss (...,), dloss/dp (..., n)) of targets y against predictions p (..., n)."""
    name, config = spec["class_name"], spec.get("config", {})
    n = p.shape[-1]
    smoothing, logits = config.get("label_smoothing", 0.0), config.get("from_logits", False)
    if name == "SparseCategoricalCrossentropy":
        y = np.asarray(y, np.int64).reshape(p.shape[:-1])
        y = np.where(ignored(spec, y, p)[..., None], 0.0, np.eye(n)[y % n])
    elif y.ndim < p.ndim:
        y = y[..., None]
    if name == "MeanSquaredError":
        return ((p - y) ** 2).mean(-1), 2.0 * (p - y) / n
    if name == "MeanAbsoluteError":
        return np.abs(p - y).mean(-1), np.sign(p - y) / n
    if name == "Huber":
        e, delta = p - y, config.get("delta", 1.0)
        value = np.where(np.abs(e) <= delta, 0.5 * e * e, delta * np.abs(e) - 0.5 * delta * delta)
        return value.mean(-1), np.clip(e, -delta, delta) / n
    if name == "MeanAbsolutePercentageError":
        scale = 100.0 / np.maximum(np.abs(y), EPSILON)
        return (np.abs(p - y) * scale).mean(-1), np.sign(p - y) * scale / n
    if name == "MeanSquaredLogarithmicError":
        e = np.log1p(np.maximum(p, EPSILON)) - np.log1p(np.maximum(y, EPSILON))
        return (e * e).mean(-1), np.where(p < EPSILON, 0.0, 2.0 * e / (1.0 + np.maximum(p, EPSILON))) / n
    if name == "LogCosh":
        e = p - y
        return (np.abs(e) + np.log1p(np.exp(-2.0 * np.abs(e))) - np.log(2.0)).mean(-1), np.tanh(e) / n
    if name == "Poisson":
        return (p - y * np.log(p + EPSILON)).mean(-1), (1.0 - y / (p + EPSILON)) / n
    if name == "KLDivergence":
        t, q = np.clip(y, EPSILON, 1.0), np.clip(p, EPSILON, 1.0)
        return (t * np.log(t / q)).sum(-1), np.where(p == q, -t / q, 0.0)
    if name in ("Hinge", "SquaredHinge"):
        y = 2.0 * y - 1.0 if np.isin(y, (0, 1)).all() else y
        miss = np.maximum(1.0 - y * p, 0.0)
        if name == "Hinge":
            return miss.mean(-1), np.where(miss > 0, -y, 0.0) / n
        return (miss**2).mean(-1), -2.0 * y * miss / n
    if name == "CategoricalHinge":
        others = (1.0 - y) * p
        top = others == others.max(-1, keepdims=True)
        margin = np.maximum(others.max(-1) - (y * p).sum(-1) + 1.0, 0.0)
        slope = np.where(top, 1.0 - y, 0.0) / top.sum(-1, keepdims=True) - y
        return margin, np.where(margin[..., None] > 0, slope, 0.0)
    if name == "CosineSimilarity":
        norm = np.sqrt((p * p).sum(-1, keepdims=True))
        y = y / np.maximum(np.sqrt((y * y).sum(-1, keepdims=True)), EPSILON)
        unit = p / np.maximum(norm, EPSILON)
        cosine = (y * unit).sum(-1, keepdims=True)
        turned = np.where(norm > EPSILON, cosine * unit, 0.0)
        return -cosine[..., 0], (turned - y) / np.maximum(norm, EPSILON)
    gamma = config.get("gamma", 2.0)
    if name == "BinaryFocalCrossentropy":
        y = y * (1.0 - smoothing) + 0.5 * smoothing
        p = activate("sigmoid", p) if logits else p
        q = np.clip(p, EPSILON, 1.0 - EPSILON)
        bce = -(y * np.log(q) + (1.0 - y) * np.log(1.0 - q))
        missed = y * (1.0 - p) + (1.0 - y) * p
        balance = np.ones_like(p)
        if config.get("apply_class_balancing"):
            balance = y * config.get("alpha", 0.25) + (1.0 - y) * (1.0 - config.get("alpha", 0.25))
        slope = missed**gamma * np.where(p == q, (q - y) / (q * (1.0 - q)), 0.0)
        slope = slope + gamma * _steep(missed, gamma) * (1.0 - 2.0 * y) * bce
        return (balance * missed**gamma * bce).mean(-1), balance * slope * (p * (1.0 - p) if logits else 1.0) / n
    if name == "CategoricalFocalCrossentropy":
        y = np.asarray(config.get("alpha", 0.25)) * (y * (1.0 - smoothing) + smoothing / n)
        e = np.exp(p - p.max(-1, keepdims=True)) if logits else p
        total = e.sum(-1, keepdims=True)
        q = e / total
        clipped = np.clip(q, EPSILON, 1.0 - EPSILON)
        value = -(y * (1.0 - clipped) ** gamma * np.log(clipped)).sum(-1)
        dq = y * (gamma * _steep(1.0 - clipped, gamma) * np.log(clipped) - (1.0 - clipped) ** gamma / clipped)
        dq = np.where(q == clipped, dq, 0.0)
        away = dq - (dq * q).sum(-1, keepdims=True)
        return value, away * q if logits else away / total
    if name == "BinaryCrossentropy":
        y = y * (1.0 - smoothing) + 0.5 * smoothing
        if logits:
            value = np.maximum(p, 0.0) - p * y + np.log1p(np.exp(-np.abs(p)))
            return value.mean(-1), (activate("sigmoid", p) - y) / n
        q = np.clip(p, EPSILON, 1.0 - EPSILON)
        value = -(y * np.log(q) + (1.0 - y) * np.log(1.0 - q))
        return value.mean(-1), np.where(p == q, (q - y) / (q * (1.0 - q)), 0.0) / n
    if name == "CategoricalCrossentropy":
        y = y * (1.0 - smoothing) + smoothing / n
    if logits:
        log_p = activate("log_softmax", p)
        return -(y * log_p).sum(-1), np.exp(log_p) * y.sum(-1, keepdims=True) - y
    total = p.sum(-1, keepdims=True)
    q = p / total
    clipped = np.clip(q, EPSILON, 1.0 - EPSILON)
    dq = np.where(q == clipped, -y / clipped, 0.0)
    return -(y * np.log(clipped)).sum(-1), (dq - (dq * q).sum(-1, keepdims=True)) / total


def _steep(missed, gamma):
    """missed^(gamma - 1), finite where nothing is missed."""
    return (np.maximum(missed, EPSILON) if gamma < 1 else missed) ** (gamma - 1.0)


def ignored(spec, y, p):
    """Which entries have the label that counts for nothing."""
    ignore_class = spec.get("config", {}).get("ignore_class")
    shape = p.shape[:-1]
    return np.zeros(shape, bool) if ignore_class is None else np.asarray(y).reshape(shape) == ignore_class


def weights(shape, mask, sample_weight):
    """Mask and sample weights merged, of the per-sample losses' shape."""
    w = np.ones(shape) if mask is None else np.broadcast_to(mask, shape).astype(np.float64)
    if sample_weight is not None:
        sample_weight = np.asarray(sample_weight, np.float64)
        w = w * sample_weight.reshape(sample_weight.shape + (1,) * (w.ndim - sample_weight.ndim))
    return w


def divisor(spec, shape, mask, w):
    """What the weighted sum is divided by. With a mask it is the number of valid entries."""
    reduction = spec.get("config", {}).get("reduction", "sum_over_batch_size")
    if reduction == "sum":
        return 1.0
    if reduction == "mean_with_sample_weight":
        return w.sum()
    return float(np.prod(shape)) if mask is None else float(mask.sum())


def loss(spec, y, p, mask=None, sample_weight=None):
    """(scalar, dL/dp). A masked or weightless sample is not read; nothing valid at all gives 0 and zero gradients."""
    if ignored(spec, y, p).any():
        mask = ~ignored(spec, y, p) if mask is None else mask & ~ignored(spec, y, p)
    w = weights(p.shape[:-1], mask, sample_weight)
    keep = np.ones(p.shape[:-1], bool) if mask is None else mask
    uniform = np.full(p.shape[-1], 1.0 / p.shape[-1])
    values, dp = per_sample(spec, y, np.where(keep[..., None], p, uniform))
    d = divisor(spec, p.shape[:-1], mask, w)
    scale = np.where(keep, w, 0.0) / d if d else np.zeros_like(w)
    return (np.where(keep, values, 0.0) * scale).sum(), dp * scale[..., None]
