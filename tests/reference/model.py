"""A chain of layers from the description that `_core.Model` takes: forward, loss, gradients, training step.

Cross-entropies directly after a softmax (binary: sigmoid) output are computed from the logits.
"""

import numpy as np

from .layers import STATISTICS, make
from .losses import loss as compute_loss
from .metrics import Metric
from .optimizers import OPTIMIZERS
from .penalties import constrain

_FROM_LOGITS = {
    "CategoricalCrossentropy": "softmax",
    "SparseCategoricalCrossentropy": "softmax",
    "BinaryCrossentropy": "sigmoid",
}


class Model:
    def __init__(self, description):
        self.layers = [make(spec) for spec in description["layers"]]
        shape = tuple(description["input"]["shape"])
        for layer in self.layers:
            shape = layer.build(shape)
        self.output_shape = shape
        self.optimizer = None

    @property
    def names(self):
        return [(i, name) for i, layer in enumerate(self.layers) for name in layer.shapes]

    @property
    def shapes(self):
        return [shape for layer in self.layers for shape in layer.shapes.values()]

    def get_weights(self):
        return [self.layers[i].w[name] for i, name in self.names]

    def set_weights(self, weights):
        for (i, name), value in zip(self.names, weights, strict=True):
            self.layers[i].w[name] = np.array(value, np.float64)

    def forward(self, x, mask=None, noise=None):
        """Output; `self.mask` is its mask, `self.activity` the activity penalties, `self.values` every output."""
        x = np.asarray(x, np.float64)
        self.activity, self.values, self.masks = 0.0, [x], [mask]
        for i, layer in enumerate(self.layers):
            x, mask = layer.forward(x, mask, (noise or {}).get(i))
            self.activity += layer.activity(x)
            self.values.append(x)
            self.masks.append(mask)
        self.mask = mask
        return x

    def loss_and_gradients(self, spec, x, y, sample_weight=None, mask=None, noise=None):
        """(loss with regularization, gradient of every weight)."""
        p = self.forward(x, mask, noise)
        last = self.layers[-1]
        stable = last.logits is not None and last.logits[0] == _FROM_LOGITS.get(spec["class_name"], "")
        if stable:
            spec = {**spec, "config": {**spec.get("config", {}), "from_logits": True}}
        total, gradient = compute_loss(spec, y, last.logits[1] if stable else p, self.mask, sample_weight)
        dy = last.activity_backward(p, np.zeros_like(p) if stable else gradient)
        dy = last.backward(dy, gradient) if stable else last.backward(dy)
        for layer, value in zip(self.layers[-2::-1], self.values[-2:0:-1]):
            if dy is not None:
                dy = layer.backward(layer.activity_backward(value, dy))
        total += self.activity + sum(layer.regularization() for layer in self.layers)
        return total, [self.layers[i].g[name] for i, name in self.names]

    def compile(self, config):
        self.loss = config["loss"]
        flags = config.get("trainable") or [True] * len(self.names)
        statistics = [name.rpartition("/")[2] in STATISTICS for _, name in self.names]
        self.moving = {i: True for (i, _), t, s in zip(self.names, flags, statistics) if t and s}
        self.trainable = [t and not s for t, s in zip(flags, statistics)]
        spec = config["optimizer"]
        constraints = [self.layers[i].constraint(name) for i, name in self.names]
        chosen = [(lambda w, c=c: constrain(c, w)) for c, t in zip(constraints, self.trainable) if t]
        self.optimizer = OPTIMIZERS[spec["class_name"]](spec["config"], chosen)
        self.metrics = [Metric(m) for m in config.get("metrics", [])]
        self.weighted_metrics = [Metric(m) for m in config.get("weighted_metrics", [])]

    def train_step(self, x, y, sample_weight=None, mask=None, noise=None):
        total, grads = self.loss_and_gradients(self.loss, x, y, sample_weight, mask, {**self.moving, **(noise or {})})
        for metric in self.metrics:
            metric.update(np.asarray(y), self.values[-1], self.mask)
        for metric in self.weighted_metrics:
            metric.update(np.asarray(y), self.values[-1], self.mask, sample_weight)
        weights = self.get_weights()
        chosen = [i for i, t in enumerate(self.trainable) if t]
        new = self.optimizer.apply([weights[i] for i in chosen], [grads[i] for i in chosen])
        for i, w in zip(chosen, new):
            weights[i] = w
        self.set_weights(weights)
        return total
