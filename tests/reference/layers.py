"""Every layer: `build` declares the weights, `forward` keeps what `backward` needs, `backward` fills `g`.

`noise` is None at inference; in training it holds the dropout multipliers (0 or 1/(1-rate)), given by the caller:
an array for Dropout and its like (GaussianNoise: what is added), {"input": (1 or G, B, I), "recurrent": (G, B, H)} for
recurrent layers, {"forward_layer": …, "backward_layer": …} for Bidirectional, {"cell": …} or {"cell/cells/0": …, …} for
RNN, anything but None for BatchNormalization, whose statistics move then.
"""

import numpy as np

from .activations import activate, activate_backward
from .penalties import regularize
from .recurrent import CELLS, GATES, Stack, scan, scan_backward


class Layer:
    batchwise = False  # whether rows of a batch have to do with each other

    def __init__(self, config):
        self.config = config
        self.w, self.g, self.shapes = {}, {}, {}
        self.logits = None  # (activation, pre-activation) of the last forward, where there is one

    def build(self, shape):
        """Shape of the input, batch first, to shape of the output; fills `shapes`."""
        return shape

    def forward(self, x, mask, noise):
        """(y, its mask)."""
        raise NotImplementedError

    def backward(self, dy):
        """dL/dx, or None where x is integer. Layers with `logits` also take dL/d(pre-activation)."""
        raise NotImplementedError

    def regularization(self):
        """Adds the weight penalties' gradients to `g`; returns their sum."""
        total = 0.0
        for name, value in self.w.items():
            penalty, gradient = regularize(self.config.get(REGULARIZER.get(name, "")), value)
            total += penalty
            self.g[name] = self.g[name] + gradient
        return total

    def take_gradients(self, g):
        self.g = g

    def constraint(self, name):
        return self.config.get(CONSTRAINT.get(name, ""))

    # Activity regularization: a penalty on the output, divided by the batch size; its gradient joins dy.
    def activity(self, y):
        return regularize(self.config.get("activity_regularizer"), y)[0] / len(y)

    def activity_backward(self, y, dy):
        return dy + regularize(self.config.get("activity_regularizer"), y)[1] / len(y)


STATISTICS = ("moving_mean", "moving_variance")  # weights that no gradient moves
_ROLES = ("kernel", "recurrent", "bias", "embeddings", "gamma", "beta")
REGULARIZER = {(r + "_kernel" if r == "recurrent" else r): r + "_regularizer" for r in _ROLES}
CONSTRAINT = {(r + "_kernel" if r == "recurrent" else r): r + "_constraint" for r in _ROLES}


def _readable(x, mask, dy):
    # A masked row whose gradient is zero is not read: what stands there, NaN included, reaches nothing.
    if mask is None:
        return x
    needed = (dy != 0).any(tuple(range(mask.ndim, dy.ndim)), keepdims=True)
    return np.where(mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim)) | needed, x, 0.0)


class Dense(Layer):
    def build(self, shape):
        units = self.config["units"]
        self.shapes = {"kernel": (shape[-1], units)}
        if self.config.get("use_bias", True):
            self.shapes["bias"] = (units,)
        return (*shape[:-1], units)

    def forward(self, x, mask, noise):
        z = x @ self.w["kernel"] + self.w.get("bias", 0.0)
        self.cache, self.logits = (x, mask), (self.config.get("activation"), z)
        return activate(self.config.get("activation"), z), mask

    def backward(self, dy, dz=0.0):
        x, mask = self.cache
        activation, z = self.logits
        dz = dz + activate_backward(activation, _readable(z, mask, dy), dy)
        rows = dz.reshape(-1, dz.shape[-1])
        self.g["kernel"] = _readable(x, mask, dz).reshape(-1, x.shape[-1]).T @ rows
        if "bias" in self.w:
            self.g["bias"] = rows.sum(0)
        return dz @ self.w["kernel"].T


class Embedding(Layer):
    def build(self, shape):
        self.shapes = {"embeddings": (self.config["input_dim"], self.config["output_dim"])}
        return (*shape, self.config["output_dim"])

    def forward(self, x, mask, noise):
        self.cache = x.astype(np.int64)
        return self.w["embeddings"][self.cache], x != 0 if self.config.get("mask_zero") else None

    def backward(self, dy):
        self.g["embeddings"] = np.zeros_like(self.w["embeddings"])
        np.add.at(self.g["embeddings"], self.cache, dy)
        return None


class Masking(Layer):
    def forward(self, x, mask, noise):
        self.cache = (x != self.config.get("mask_value", 0.0)).any(-1)
        return np.where(self.cache[..., None], x, 0.0), self.cache

    def backward(self, dy):
        return np.where(self.cache[..., None], dy, 0.0)


class Dropout(Layer):
    def forward(self, x, mask, noise):
        self.cache = 1.0 if noise is None else noise
        return x * self.cache, mask

    def backward(self, dy):
        return dy * self.cache


class SpatialDropout1D(Dropout):
    pass


class GaussianDropout(Dropout):
    pass


class GaussianNoise(Layer):
    def forward(self, x, mask, noise):
        return x + (0.0 if noise is None else noise), mask

    def backward(self, dy):
        return dy


class AlphaDropout(Layer):
    def forward(self, x, mask, noise):
        if noise is None:
            self.cache = 1.0
            return x, mask
        rate, low = self.config["rate"], -1.6732632423543772 * 1.0507009873554805
        slope = ((1.0 - rate) * (1.0 + rate * low**2)) ** -0.5
        self.cache = slope * (noise != 0)
        return slope * np.where(noise != 0, x, low) - slope * low * rate, mask

    def backward(self, dy):
        return dy * self.cache


class Identity(Layer):
    def forward(self, x, mask, noise):
        return x, mask

    def backward(self, dy):
        return dy


class ActivityRegularization(Identity):
    def __init__(self, config):
        super().__init__({"activity_regularizer": {"class_name": "L1L2", "config": config}})


class Activation(Layer):
    def forward(self, x, mask, noise):
        self.cache, self.logits = mask, (self.config["activation"], x)
        return activate(self.config["activation"], x), mask

    def backward(self, dy, dz=0.0):
        activation, x = self.logits
        return dz + activate_backward(activation, _readable(x, self.cache, dy), dy)


class Softmax(Activation):
    def __init__(self, config):
        super().__init__({**config, "activation": "softmax"})

    def forward(self, x, mask, noise):
        self.over_steps = x.ndim > 2 and self.config.get("axis", -1) in (1, 1 - x.ndim)
        if not self.over_steps:
            return super().forward(x, mask, noise)
        kept = True if mask is None else mask.reshape(mask.shape + (1,) * (x.ndim - 2))
        e = np.where(kept, np.exp(x - np.where(kept, x, -np.inf).max(1, keepdims=True)), 0.0)
        self.y = e / np.maximum(e.sum(1, keepdims=True), np.finfo(float).tiny)
        return self.y, mask

    def backward(self, dy, dz=0.0):
        if not self.over_steps:
            return super().backward(dy, dz)
        return self.y * (dy - (dy * self.y).sum(1, keepdims=True))


class ReLU(Layer):
    def forward(self, x, mask, noise):
        slope, threshold = self.config.get("negative_slope", 0.0), self.config.get("threshold", 0.0)
        largest = np.inf if self.config.get("max_value") is None else self.config["max_value"]
        self.cache = np.where(x > threshold, x < largest, slope)
        return np.where(x > threshold, np.minimum(x, largest), slope * (x - threshold)), mask

    def backward(self, dy):
        return dy * self.cache


class LeakyReLU(ReLU):
    def __init__(self, config):
        super().__init__({"negative_slope": 0.3, **config})


class ELU(Layer):
    def forward(self, x, mask, noise):
        alpha, e = self.config.get("alpha", 1.0), np.exp(np.minimum(x, 0.0))
        self.cache = np.where(x > 0, 1.0, alpha * e)
        return np.where(x > 0, x, alpha * (e - 1.0)), mask

    def backward(self, dy):
        return dy * self.cache


class Flatten(Layer):
    def build(self, shape):
        return (shape[0], int(np.prod(shape[1:])))

    def forward(self, x, mask, noise):
        self.cache = x.shape
        return x.reshape(len(x), -1), None

    def backward(self, dy):
        return dy.reshape(self.cache)


class Reshape(Layer):
    def build(self, shape):
        target = self.config["target_shape"]
        if None in shape[1:]:
            return (shape[0], *(None if n == -1 else n for n in target))
        return np.empty((shape[0] or 1, *shape[1:])).reshape(shape[0] or 1, *target).shape

    def forward(self, x, mask, noise):
        self.cache = x.shape
        return x.reshape(len(x), *self.config["target_shape"]), None

    def backward(self, dy):
        return dy.reshape(self.cache)


class Permute(Layer):
    def build(self, shape):
        return (shape[0], *(shape[d] for d in self.config["dims"]))

    def forward(self, x, mask, noise):
        return x.transpose(0, *self.config["dims"]), None

    def backward(self, dy):
        return dy.transpose(np.argsort([0, *self.config["dims"]]))


class RepeatVector(Layer):
    def build(self, shape):
        return (shape[0], self.config["n"], shape[1])

    def forward(self, x, mask, noise):
        return np.repeat(x[:, None], self.config["n"], 1), None

    def backward(self, dy):
        return dy.sum(1)


class GlobalPooling(Layer):
    def build(self, shape):
        return (shape[0], 1, shape[2]) if self.config.get("keepdims") else (shape[0], shape[2])

    def backward(self, dy):
        return self.cache * (dy if dy.ndim == 3 else dy[:, None])


class GlobalAveragePooling1D(GlobalPooling):
    def forward(self, x, mask, noise):
        w = np.ones(x.shape[:2]) if mask is None else mask.astype(float)
        self.cache = (w / np.maximum(w.sum(1, keepdims=True), 1))[..., None]
        return (x * self.cache).sum(1, keepdims=self.config.get("keepdims", False)), None


class GlobalMaxPooling1D(GlobalPooling):
    def forward(self, x, mask, noise):
        largest = x == x.max(1, keepdims=True)
        self.cache = largest / largest.sum(1, keepdims=True)
        return x.max(1, keepdims=self.config.get("keepdims", False)), None


def windows(config, size, steps, dilation=1):
    """The first step of each output's window, which may lie before step 0. Padding is Keras's on TensorFlow."""
    stride, padding = config.get("strides", 1), config.get("padding", "valid")
    reach = (size - 1) * dilation + 1
    count = (steps - reach) // stride + 1 if padding == "valid" else -(-steps // stride)
    left = {"valid": 0, "causal": reach - 1, "same": max((count - 1) * stride + reach - steps, 0) // 2}[padding]
    return np.arange(count) * stride - left


class Conv1D(Layer):
    """What lies in the padding is zero."""

    def build(self, shape):
        c = self.config
        self.groups, size = c.get("groups", 1), c["kernel_size"]
        self.shapes = {"kernel": (size, shape[-1] // self.groups, c["filters"])}
        if c.get("use_bias", True):
            self.shapes["bias"] = (c["filters"],)
        steps = None if shape[1] is None else len(self.starts(shape[1]))
        return (shape[0], steps, c["filters"])

    def starts(self, steps):
        return windows(self.config, self.config["kernel_size"], steps, self.config.get("dilation_rate", 1))

    def taps(self, steps):
        """Of each tap: which outputs it has a part in, and the input steps that it takes for them."""
        for j in range(self.config["kernel_size"]):
            at = self.starts(steps) + j * self.config.get("dilation_rate", 1)
            (t,) = np.nonzero((at >= 0) & (at < steps))
            yield j, t, at[t]

    def parts(self, features):
        """Of each group: its features and its filters."""
        n, filters = features // self.groups, self.config["filters"] // self.groups
        return [(slice(g * n, (g + 1) * n), slice(g * filters, (g + 1) * filters)) for g in range(self.groups)]

    def forward(self, x, mask, noise):
        z = np.zeros((len(x), len(self.starts(x.shape[1])), self.config["filters"])) + self.w.get("bias", 0.0)
        for j, t, at in self.taps(x.shape[1]):
            for i, o in self.parts(x.shape[2]):
                z[:, t, o] += x[:, at, i] @ self.w["kernel"][j][:, o]
        self.cache, self.logits = x, (self.config.get("activation"), z)
        return activate(self.config.get("activation"), z), None

    def backward(self, dy, dz=0.0):
        x = self.cache
        dz = dz + activate_backward(*self.logits, dy)
        dx, dw = np.zeros_like(x), np.zeros_like(self.w["kernel"])
        for j, t, at in self.taps(x.shape[1]):
            for i, o in self.parts(x.shape[2]):
                dw[j][:, o] = np.einsum("bti,bto->io", x[:, at, i], dz[:, t, o])
                dx[:, at, i] += dz[:, t, o] @ self.w["kernel"][j][:, o].T
        self.g["kernel"] = dw
        if "bias" in self.w:
            self.g["bias"] = dz.sum((0, 1))
        return dx


class Pooling(Layer):
    """What lies in the padding does not count."""

    def build(self, shape):
        return (shape[0], None if shape[1] is None else len(self.windows(shape[1])), shape[2])

    def windows(self, steps):
        size = self.config.get("pool_size", 2)
        config = {**self.config, "strides": self.config.get("strides") or size}
        return [slice(max(at, 0), min(at + size, steps)) for at in windows(config, size, steps)]

    def forward(self, x, mask, noise):
        self.cache = x
        return np.stack([self.pool(x[:, at]) for at in self.windows(x.shape[1])], 1), None

    def backward(self, dy):
        dx = np.zeros_like(self.cache)
        for t, at in enumerate(self.windows(dx.shape[1])):
            dx[:, at] += self.share(self.cache[:, at]) * dy[:, t, None]
        return dx


class MaxPooling1D(Pooling):
    """Of steps that share the maximum the first has the gradient."""

    def pool(self, x):
        return x.max(1)

    def share(self, x):
        return np.arange(x.shape[1])[None, :, None] == x.argmax(1)[:, None]


class AveragePooling1D(Pooling):
    def pool(self, x):
        return x.mean(1)

    def share(self, x):
        return 1.0 / x.shape[1]


class LayerNormalization(Layer):
    def build(self, shape):
        names = [n for n, flag in (("gamma", "scale"), ("beta", "center")) if self.config.get(flag, True)]
        self.shapes = {name: (shape[-1],) for name in names}
        return shape

    def forward(self, x, mask, noise):
        y, _ = self.normalize(x)
        self.cache = x, mask
        return y * self.w.get("gamma", 1.0) + self.w.get("beta", 0.0), mask

    def normalize(self, x):
        centred = x - x.mean(-1, keepdims=True)
        inv_std = 1.0 / np.sqrt((centred * centred).mean(-1, keepdims=True) + self.config.get("epsilon", 1e-3))
        return centred * inv_std, inv_std

    def backward(self, dy):
        x, mask = self.cache
        xhat, inv_std = self.normalize(_readable(x, mask, dy))
        axes = tuple(range(dy.ndim - 1))
        if "gamma" in self.w:
            self.g["gamma"] = (dy * xhat).sum(axes)
        if "beta" in self.w:
            self.g["beta"] = dy.sum(axes)
        d = dy * self.w.get("gamma", 1.0)
        return inv_std * (d - d.mean(-1, keepdims=True) - xhat * (d * xhat).mean(-1, keepdims=True))


class BatchNormalization(Layer):
    batchwise = True

    def build(self, shape):
        names = [n for n, flag in (("gamma", "scale"), ("beta", "center")) if self.config.get(flag, True)]
        self.shapes = {name: (shape[-1],) for name in (*names, *STATISTICS)}
        return shape

    def forward(self, x, mask, noise):
        valid = np.ones(x.shape[:-1]) if mask is None else mask.astype(float)
        self.cache, self.count = (x, mask, valid[..., None]), None
        self.statistics = [self.w[name] for name in STATISTICS]
        if noise is not None:
            axes, momentum = tuple(range(x.ndim - 1)), self.config.get("momentum", 0.99)
            self.count = valid.sum() + (0.0 if mask is None else 1e-7)
            readable = np.where(valid[..., None] != 0, x, 0.0)
            mean = readable.sum(axes) / self.count
            self.statistics = [mean, (valid[..., None] * (readable - mean) ** 2).sum(axes) / self.count]
            for name, value in zip(STATISTICS, self.statistics):
                self.w[name] = self.w[name] * momentum + value * (1.0 - momentum)
        xhat, _ = self.normalize(x)
        return xhat * self.w.get("gamma", 1.0) + self.w.get("beta", 0.0), mask

    def normalize(self, x):
        mean, variance = self.statistics
        inv_std = 1.0 / np.sqrt(variance + self.config.get("epsilon", 1e-3))
        return (x - mean) * inv_std, inv_std

    def backward(self, dy):
        x, mask, valid = self.cache
        xhat, inv_std = self.normalize(_readable(x, mask, dy))
        axes = tuple(range(dy.ndim - 1))
        self.g = {name: np.zeros(shape) for name, shape in self.shapes.items()}
        if "gamma" in self.w:
            self.g["gamma"] = (dy * xhat).sum(axes)
        if "beta" in self.w:
            self.g["beta"] = dy.sum(axes)
        d = dy * self.w.get("gamma", 1.0)
        if self.count is None:
            return inv_std * d
        # Masked rows are normalised like others, but it is the valid ones that the statistics are made of.
        return inv_std * (d - valid * (d.sum(axes) + xhat * (d * xhat).sum(axes)) / self.count)


class Recurrent(Layer):
    """SimpleRNN, LSTM and GRU by config["class_name"]."""

    state = None  # initial states of the next call: given by the caller, or carried when stateful

    def build(self, shape):
        kind, units = self.config["class_name"], self.config["units"]
        columns = GATES[kind] * units
        self.shapes = {"kernel": (shape[-1], columns), "recurrent_kernel": (units, columns)}
        if self.config.get("use_bias", True):
            two_rows = kind == "GRU" and self.config.get("reset_after", True)
            self.shapes["bias"] = (2, columns) if two_rows else (columns,)
        return (*shape[:-1], units) if self.config.get("return_sequences") else (shape[0], units)

    def forward(self, x, mask, noise):
        config = self.config
        self.cell = CELLS[config["class_name"]](config, self.w)
        states = self.state
        if states is None:
            states = self.cell.zero_states(len(x))
        zero = config.get("zero_output_for_mask", False)
        y, self.states, self.cache = scan(self.cell, x, states, mask, noise, config.get("go_backwards", False), zero)
        if config.get("stateful"):
            self.state = self.states
        self.steps = y.shape
        return (y, mask) if config.get("return_sequences") else (y[:, -1], None)

    def backward(self, dy):
        if not self.config.get("return_sequences"):
            dy, last = np.zeros(self.steps), dy
            dy[:, -1] = last
        dx = scan_backward(self.cell, dy, self.cache)
        self.g = self.cell.g
        return dx


class Wrapper(Layer):
    """Holds inner layers by name; their weights appear as "name/weight"."""

    def inner(self):
        raise NotImplementedError

    def gather(self):
        self.shapes = {f"{n}/{k}": s for n, layer in self.inner().items() for k, s in layer.shapes.items()}

    def scatter(self):
        for name, layer in self.inner().items():
            layer.w = {key: self.w[f"{name}/{key}"] for key in layer.shapes}

    def collect(self):
        self.g = {f"{n}/{k}": g for n, layer in self.inner().items() for k, g in layer.g.items()}

    def take_gradients(self, g):
        self.g = g
        for name, layer in self.inner().items():
            layer.take_gradients({key: g[f"{name}/{key}"] for key in layer.shapes})

    def regularization(self):
        total = sum(layer.regularization() for layer in self.inner().values())
        self.collect()
        return total

    def constraint(self, name):
        (found,) = [
            layer.constraint(name[len(prefix) + 1 :])
            for prefix, layer in self.inner().items()
            if name.startswith(prefix + "/")
        ]
        return found


class RNN(Wrapper):
    """A cell or a stack of cells; the layers of the cells' kinds hold their weights. Noise: a dict by their names."""

    state = None

    def __init__(self, config):
        super().__init__(config)
        self.layers = dict(self.found(config["cell"], "cell"))

    def found(self, cell, name):
        kind, config = cell["class_name"], cell["config"]
        if kind == "StackedRNNCells":
            for i, inner in enumerate(config["cells"]):
                yield from self.found(inner, f"{name}/cells/{i}")
        else:
            yield name, Recurrent({**config, "class_name": kind.removesuffix("Cell")})

    def inner(self):
        return self.layers

    def build(self, shape):
        out = shape
        for layer in self.layers.values():
            out = (*shape[:2], layer.build(out)[-1])
        self.gather()
        return out if self.config.get("return_sequences") else (out[0], out[2])

    def forward(self, x, mask, noise):
        self.scatter()
        config = self.config
        self.cell = Stack([CELLS[r.config["class_name"]](r.config, r.w) for r in self.layers.values()])
        noise = None if noise is None else [noise.get(name) for name in self.layers]
        states = self.cell.zero_states(len(x)) if self.state is None else self.state
        zero = config.get("zero_output_for_mask", False)
        y, self.states, self.cache = scan(self.cell, x, states, mask, noise, config.get("go_backwards", False), zero)
        if config.get("stateful"):
            self.state = self.states
        self.steps = y.shape
        return (y, mask) if config.get("return_sequences") else (y[:, -1], None)

    def backward(self, dy):
        if not self.config.get("return_sequences"):
            dy, last = np.zeros(self.steps), dy
            dy[:, -1] = last
        dx = scan_backward(self.cell, dy, self.cache)
        for layer, cell in zip(self.layers.values(), self.cell.cells):
            layer.g = cell.g
        self.collect()
        return dx


class Bidirectional(Wrapper):
    def __init__(self, config):
        super().__init__(config)
        forward = config["layer"]
        backward = config.get("backward_layer") or {**forward, "config": {**forward["config"], "go_backwards": True}}
        # Keras's rule: in sequences, outputs of masked steps are zeros, whatever the inner layers say.
        zero = {"zero_output_for_mask": forward["config"].get("return_sequences", False)}
        self.forward_layer, self.backward_layer = (
            make({**s, "config": {**s["config"], **zero}}) for s in (forward, backward)
        )

    def inner(self):
        return {"forward_layer": self.forward_layer, "backward_layer": self.backward_layer}

    def build(self, shape):
        out = self.forward_layer.build(shape)
        other = self.backward_layer.build(shape)
        self.gather()
        return (*out[:-1], out[-1] + (other[-1] if self.config.get("merge_mode", "concat") == "concat" else 0))

    def forward(self, x, mask, noise):
        self.scatter()
        noise = noise or {}
        yf, mask_out = self.forward_layer.forward(x, mask, noise.get("forward_layer"))
        self.raw_b, _ = self.backward_layer.forward(x, mask, noise.get("backward_layer"))
        self.yf, self.yb = yf, self.flip(self.raw_b)
        mode = self.config.get("merge_mode", "concat")
        if mode == "concat":
            y = np.concatenate([self.yf, self.yb], -1)
        else:
            y = {"sum": self.yf + self.yb, "mul": self.yf * self.yb, "ave": (self.yf + self.yb) / 2.0}[mode]
        return y, mask_out

    def flip(self, y):
        return y[:, ::-1] if self.forward_layer.config.get("return_sequences") else y

    def activity(self, y):
        inner = self.forward_layer.activity(self.yf) + self.backward_layer.activity(self.raw_b)
        return inner + super().activity(y)

    def backward(self, dy):
        mode = self.config.get("merge_mode", "concat")
        if mode == "concat":
            df, db = dy[..., : self.yf.shape[-1]], dy[..., self.yf.shape[-1] :]
        else:
            df, db = {"sum": (dy, dy), "mul": (dy * self.yb, dy * self.yf), "ave": (dy / 2.0, dy / 2.0)}[mode]
        df = self.forward_layer.activity_backward(self.yf, df)
        db = self.backward_layer.activity_backward(self.raw_b, self.flip(db))
        dx = self.forward_layer.backward(df) + self.backward_layer.backward(db)
        self.collect()
        return dx


class TimeDistributed(Wrapper):
    def __init__(self, config):
        super().__init__(config)
        self.layer = make(config["layer"])
        self.batchwise = self.layer.batchwise

    def inner(self):
        return {"layer": self.layer}

    def build(self, shape):
        out = self.layer.build((shape[0], *shape[2:]))
        self.gather()
        return (shape[0], shape[1], *out[1:])

    def forward(self, x, mask, noise):
        self.scatter()
        if self.batchwise:  # as in Keras, each step is a call
            self.calls = [make(self.config["layer"]) for _ in range(x.shape[1])]
            for call in self.calls:
                call.build((len(x), *x.shape[2:]))
                call.w = self.layer.w
            masks = [None] * x.shape[1] if mask is None else mask.swapaxes(0, 1)
            y = [c.forward(x[:, t], masks[t], noise)[0] for t, c in enumerate(self.calls)]
            self.w.update({f"layer/{name}": value for name, value in self.layer.w.items()})
            return np.stack(y, 1), mask

        def fold(a):
            return None if a is None else a.reshape(-1, *a.shape[2:])

        self.y, _ = self.layer.forward(fold(x), fold(mask), fold(noise))
        self.shape, self.batch = x.shape, len(x)
        return self.y.reshape(*x.shape[:2], *self.y.shape[1:]), mask

    def activity(self, y):
        if self.batchwise:
            return 0.0  # nothing that may be batchwise has any
        steps = self.shape[1]  # the inner layer divides by B*T rows; Keras adds up T calls of B rows
        return self.layer.activity(self.y) * steps + super().activity(y)

    def backward(self, dy):
        if self.batchwise:
            dx = np.stack([c.backward(dy[:, t]) for t, c in enumerate(self.calls)], 1)
            self.layer.take_gradients({name: sum(c.g[name] for c in self.calls) for name in self.layer.shapes})
            self.collect()
            return dx
        dy = dy.reshape(self.y.shape)
        dy = dy + (self.layer.activity_backward(self.y, dy) - dy) * self.shape[1]
        dx = self.layer.backward(dy)
        self.collect()
        return None if dx is None else dx.reshape(self.shape)


LAYERS = {
    cls.__name__: cls
    for cls in (
        Dense, Embedding, Masking, Dropout, SpatialDropout1D, GaussianDropout, GaussianNoise, AlphaDropout,
        ActivityRegularization, Activation, Identity, ReLU, LeakyReLU, ELU, Softmax, Flatten,
        Reshape, Permute, RepeatVector, GlobalAveragePooling1D, GlobalMaxPooling1D, Conv1D, MaxPooling1D,
        AveragePooling1D, LayerNormalization, BatchNormalization, RNN, Bidirectional, TimeDistributed,
    )
}  # fmt: skip


def make(spec):
    name = spec["class_name"]
    if name in CELLS:
        return Recurrent({**spec["config"], "class_name": name})
    return LAYERS[name](spec["config"])
