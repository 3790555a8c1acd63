"""Regularizers (value, gradient) and constraints, from their {"class_name", "config"} descriptions."""

import numpy as np

EPSILON = 1e-7
_L_DEFAULTS = {"L1": (0.01, 0.0), "L2": (0.0, 0.01), "L1L2": (0.0, 0.0)}


def regularize(spec, w):
    """(penalty, its gradient); sums, not means."""
    if spec is None:
        return 0.0, np.zeros_like(w)
    if spec["class_name"] == "OrthogonalRegularizer":
        return _orthogonal(spec["config"].get("factor", 0.01), spec["config"].get("mode", "rows"), w)
    l1, l2 = _L_DEFAULTS[spec["class_name"]]
    l1, l2 = spec["config"].get("l1", l1), spec["config"].get("l2", l2)
    return l1 * np.abs(w).sum() + l2 * (w * w).sum(), l1 * np.sign(w) + 2.0 * l2 * w


def _orthogonal(factor, mode, w):
    """The mean of |u_i · u_j| over pairs of rows i < j, u = w / |w|."""
    rows = w if mode == "rows" else w.T
    norms = np.maximum(np.sqrt((rows * rows).sum(1, keepdims=True)), EPSILON)
    unit = rows / norms
    products = unit @ unit.T
    np.fill_diagonal(products, 0.0)
    pairs = len(rows) * (len(rows) - 1) / 2
    if not pairs:
        return 0.0, np.zeros_like(w)
    moved = np.sign(products) @ unit
    moved -= np.where(norms > EPSILON, (moved * unit).sum(1, keepdims=True), 0.0) * unit
    gradient = factor / pairs * moved / norms
    return factor * 0.5 * np.abs(products).sum() / pairs, gradient if mode == "rows" else gradient.T


def constrain(spec, w):
    if spec is None:
        return w
    name, config = spec["class_name"], spec["config"]
    if name == "NonNeg":
        return np.maximum(w, 0.0)
    axis = config.get("axis", 0)
    axis = tuple({a % w.ndim for a in axis}) if isinstance(axis, list) else axis
    norms = np.sqrt((w * w).sum(axis, keepdims=True))
    if name == "UnitNorm":
        return w / (EPSILON + norms)
    if name == "MaxNorm":
        desired = np.clip(norms, 0.0, config.get("max_value", 2))
    elif name == "MinMaxNorm":
        rate = config.get("rate", 1.0)
        clipped = np.clip(norms, config.get("min_value", 0.0), config.get("max_value", 1.0))
        desired = rate * clipped + (1.0 - rate) * norms
    else:
        raise ValueError(name)
    return w * (desired / (EPSILON + norms))
