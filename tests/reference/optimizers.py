"""Keras's optimizers in its order: clip, decay, step, moving average, constraint, count."""

import numpy as np


def _clip(config, grads):
    if config.get("clipvalue") is not None:
        return [np.clip(g, -config["clipvalue"], config["clipvalue"]) for g in grads]
    if config.get("clipnorm") is not None:
        limit = config["clipnorm"]
        return [g * limit / max(np.sqrt((g * g).sum()), limit) for g in grads]
    if config.get("global_clipnorm") is not None:
        limit = config["global_clipnorm"]
        norm = np.sqrt(sum((g * g).sum() for g in grads))
        return [g * limit / max(norm, limit) for g in grads]
    return grads


class Optimizer:
    """`apply(weights, gradients)` returns new weights. `learning_rate` may be a function of the number of calls.

    `iterations` counts updates: with gradient_accumulation_steps = n, every n-th call is one.
    """

    def __init__(self, config, constraints=None):
        self.config, self.calls, self.slots = config, 0, None
        self.constraints = constraints

    @property
    def iterations(self):
        return self.calls // (self.config.get("gradient_accumulation_steps") or 1)

    def make_slots(self, w):
        raise NotImplementedError

    def step(self, w, g, slot, lr):
        raise NotImplementedError

    def apply(self, weights, grads):
        config = self.config
        if self.slots is None:
            self.slots = [self.make_slots(w) for w in weights]
            self.average = [np.zeros_like(w) for w in weights]
            self.accumulated = [np.zeros_like(w) for w in weights]
        lr = config.get("learning_rate", self.LEARNING_RATE)
        lr = lr(self.calls) if callable(lr) else lr
        every = config.get("gradient_accumulation_steps") or 1
        grads = [g + a for g, a in zip(grads, self.accumulated)]
        if (self.calls + 1) % every == 0:
            self.accumulated = [np.zeros_like(g) for g in grads]
            grads = _clip(config, [g / every for g in grads])
            decay = (config.get("weight_decay") or 0.0) * lr
            weights = [w - w * decay for w in weights]
            weights = [self.step(w, g, s, lr) for w, g, s in zip(weights, grads, self.slots)]
        else:
            self.accumulated = grads
        if config.get("use_ema"):
            momentum = config.get("ema_momentum", 0.99) if self.iterations else 0.0
            self.average = [momentum * a + (1.0 - momentum) * w for a, w in zip(self.average, weights)]
            if config.get("ema_overwrite_frequency") and (self.iterations + 1) % config["ema_overwrite_frequency"] == 0:
                weights = [a.copy() for a in self.average]
        if self.constraints is not None:
            weights = [c(w) for c, w in zip(self.constraints, weights)]
        self.calls += 1
        return weights


class Adam(Optimizer):
    LEARNING_RATE = 0.001

    def make_slots(self, w):
        return {"m": np.zeros_like(w), "v": np.zeros_like(w), "vhat": np.zeros_like(w)}

    def step(self, w, g, slot, lr):
        b1, b2 = self.config.get("beta_1", 0.9), self.config.get("beta_2", 0.999)
        t = self.iterations + 1
        alpha = lr * np.sqrt(1.0 - b2**t) / (1.0 - b1**t)
        slot["m"] += (g - slot["m"]) * (1.0 - b1)
        slot["v"] += (g * g - slot["v"]) * (1.0 - b2)
        slot["vhat"] = np.maximum(slot["vhat"], slot["v"])
        v = slot["vhat"] if self.config.get("amsgrad") else slot["v"]
        return w - slot["m"] * alpha / (np.sqrt(v) + self.config.get("epsilon", 1e-7))


class SGD(Optimizer):
    LEARNING_RATE = 0.01

    def make_slots(self, w):
        return {"m": np.zeros_like(w)}

    def step(self, w, g, slot, lr):
        momentum = self.config.get("momentum", 0.0)
        if not momentum:
            return w - lr * g
        slot["m"] = momentum * slot["m"] - lr * g
        return w + (momentum * slot["m"] - lr * g if self.config.get("nesterov") else slot["m"])


class RMSprop(Optimizer):
    LEARNING_RATE = 0.001

    def make_slots(self, w):
        return {"v": np.zeros_like(w), "mean": np.zeros_like(w), "m": np.zeros_like(w)}

    def step(self, w, g, slot, lr):
        rho = self.config.get("rho", 0.9)
        slot["v"] = rho * slot["v"] + (1.0 - rho) * g**2
        slot["mean"] = rho * slot["mean"] + (1.0 - rho) * g
        variance = slot["v"] - (slot["mean"] ** 2 if self.config.get("centered") else 0.0)
        step = lr * g / np.sqrt(np.maximum(variance, 0.0) + self.config.get("epsilon", 1e-7))
        slot["m"] = self.config.get("momentum", 0.0) * slot["m"] + step
        return w - slot["m"]


class Nadam(Optimizer):
    LEARNING_RATE = 0.001

    def make_slots(self, w):
        return {"m": np.zeros_like(w), "v": np.zeros_like(w)}

    def momentum(self, t):
        return self.config.get("beta_1", 0.9) * (1.0 - 0.5 * 0.96**t)

    def step(self, w, g, slot, lr):
        b1, b2 = self.config.get("beta_1", 0.9), self.config.get("beta_2", 0.999)
        t = self.iterations + 1
        slot["m"] = b1 * slot["m"] + (1.0 - b1) * g
        slot["v"] = b2 * slot["v"] + (1.0 - b2) * g**2
        now, following = self.momentum(t), self.momentum(t + 1)
        product = np.prod([self.momentum(s) for s in range(1, t + 1)])
        m = following * slot["m"] / (1.0 - product * following) + (1.0 - now) * g / (1.0 - product)
        return w - lr * m / (np.sqrt(slot["v"] / (1.0 - b2**t)) + self.config.get("epsilon", 1e-7))


class Adamax(Optimizer):
    LEARNING_RATE = 0.001

    def make_slots(self, w):
        return {"m": np.zeros_like(w), "norm": np.zeros_like(w)}

    def step(self, w, g, slot, lr):
        b1, b2 = self.config.get("beta_1", 0.9), self.config.get("beta_2", 0.999)
        slot["m"] = b1 * slot["m"] + (1.0 - b1) * g
        slot["norm"] = np.maximum(b2 * slot["norm"], np.abs(g))
        alpha = lr / (1.0 - b1 ** (self.iterations + 1))
        return w - alpha * slot["m"] / (slot["norm"] + self.config.get("epsilon", 1e-7))


class Adagrad(Optimizer):
    LEARNING_RATE = 0.001

    def make_slots(self, w):
        return {"v": np.full_like(w, self.config.get("initial_accumulator_value", 0.1))}

    def step(self, w, g, slot, lr):
        slot["v"] = slot["v"] + g**2
        return w - lr * g / np.sqrt(slot["v"] + self.config.get("epsilon", 1e-7))


class Adadelta(Optimizer):
    LEARNING_RATE = 0.001

    def make_slots(self, w):
        return {"v": np.zeros_like(w), "d": np.zeros_like(w)}

    def step(self, w, g, slot, lr):
        rho, epsilon = self.config.get("rho", 0.95), self.config.get("epsilon", 1e-7)
        slot["v"] = rho * slot["v"] + (1.0 - rho) * g**2
        step = np.sqrt(slot["d"] + epsilon) / np.sqrt(slot["v"] + epsilon) * g
        slot["d"] = rho * slot["d"] + (1.0 - rho) * step**2
        return w - lr * step


class Lion(Optimizer):
    LEARNING_RATE = 0.001

    def make_slots(self, w):
        return {"m": np.zeros_like(w)}

    def step(self, w, g, slot, lr):
        b1, b2 = self.config.get("beta_1", 0.9), self.config.get("beta_2", 0.99)
        to = b1 * slot["m"] + (1.0 - b1) * g
        slot["m"] = b2 * slot["m"] + (1.0 - b2) * g
        return w - lr * np.sign(to)


class Ftrl(Optimizer):
    LEARNING_RATE = 0.001

    def make_slots(self, w):
        initial = self.config.get("initial_accumulator_value", 0.1)
        return {"v": np.full_like(w, initial), "linear": np.zeros_like(w)}

    def step(self, w, g, slot, lr):
        power, beta = -self.config.get("learning_rate_power", -0.5), self.config.get("beta", 0.0)
        l1, l2, shrinkage = (
            self.config.get(f"{name}_regularization_strength", 0.0) for name in ("l1", "l2", "l2_shrinkage")
        )
        before, slot["v"] = slot["v"], slot["v"] + g**2
        sigma = (slot["v"] ** power - before**power) / lr
        linear = slot["linear"] = slot["linear"] + g + 2.0 * shrinkage * w - sigma * w
        return (np.clip(linear, -l1, l1) - linear) / (slot["v"] ** power / lr + 2.0 * (l2 + beta / (2.0 * lr)))


OPTIMIZERS = {c.__name__: c for c in (SGD, Adam, RMSprop, Nadam, Adamax, Adagrad, Adadelta, Ftrl, Lion)}
