"""Activations as layers: Activation, and ReLU, LeakyReLU, ELU and Softmax with parameters of their own. Identity, which
is one, too."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from .. import _engine, activations
from .._config import arg, non_negative, number, optional
from ._base import Layer
from ._core_layers import ActivationLike, OverLastAxis


class Activation(Layer):
    """Applies a named activation.

    Args:
        activation: the name, or a function of `seqcore.activations`.
    """

    _weightless = _takes_vectors = True

    activation: ActivationLike = arg(activations.convert)

    def named_activation(self) -> str | None:
        return activations.serialize(activations.get(self.activation))


class Identity(Layer):
    """Gives its input as it is, and its mask.

    Example:
        >>> from seqcore import layers
        >>> layers.Identity()([[1.0, -2.0]]).tolist()
        [[1.0, -2.0]]
    """

    _weightless = _takes_vectors = True

    def named_activation(self) -> str | None:
        return "linear"


class ReLU(Layer):
    """`min(x, max_value)` where x is above the threshold, else `negative_slope * (x - threshold)`.

    Args:
        max_value: None, or the largest output, >= 0.
        negative_slope: the slope below the threshold, >= 0.
        threshold: >= 0.

    Example:
        >>> from seqcore import layers
        >>> layers.ReLU(max_value=2, negative_slope=0.5)([[-1.0, 1.0, 3.0]]).tolist()
        [[-0.5, 1.0, 2.0]]
    """

    _weightless = _takes_vectors = True

    max_value: float | None = arg(optional(non_negative), default=None)
    negative_slope: float = arg(non_negative, default=0.0)
    threshold: float = arg(non_negative, default=0.0)

    def named_activation(self) -> str | None:
        known = {(None, 0.0, 0.0): "relu", (6.0, 0.0, 0.0): "relu6", (None, 0.2, 0.0): "leaky_relu"}
        return known.get((self.max_value, self.negative_slope, self.threshold))


class LeakyReLU(Layer):
    """`x` where it is positive, else `negative_slope * x`.

    Args:
        negative_slope: the slope of the negative part, >= 0.
        alpha: Keras 2's word for it.
    """

    _weightless = _takes_vectors = True

    negative_slope: float = arg(non_negative, default=0.3)
    alpha: float | None = arg(optional(non_negative), default=None, kw_only=True, in_config=False)

    def _setup(self) -> None:
        super()._setup()
        if self.alpha is not None:
            warnings.warn("`alpha` of LeakyReLU is called `negative_slope` now", stacklevel=3)
            self.negative_slope = self.alpha

    def named_activation(self) -> str | None:
        return {0.0: "relu", 0.2: "leaky_relu"}.get(self.negative_slope)


class ELU(Layer):
    """`x` where it is positive, else `alpha * (exp(x) - 1)`.

    Args:
        alpha: the scale of the negative part.
    """

    _weightless = _takes_vectors = True

    alpha: float = arg(number, default=1.0)

    def named_activation(self) -> str | None:
        return "elu" if self.alpha == 1 else None


class Softmax(OverLastAxis):
    """Positive numbers along an axis that add up to 1, in proportion to `exp(x)`.

    Args:
        axis: -1, the last axis; or 1, the steps of an input of shape (batch, steps, …, features): masked steps are 0
            then, and the others add up to 1.

    Call arguments:
        mask: as elsewhere; or booleans in the shape of `x`, which take the numbers one by one: those that are False are
            0, and the others add up to 1.

    Example:
        >>> from seqcore import layers
        >>> layers.Softmax(axis=1)([[[0.0, 1.0], [0.0, 1.0]]]).tolist()
        [[[0.5, 0.5], [0.5, 0.5]]]
    """

    _weightless = _takes_vectors = True

    _expected = "-1 (the last axis) or 1 (the steps)"

    def _other_axes(self, rank: int) -> tuple[int, ...]:
        return (1, 1 - rank) if rank > 2 else ()

    def _forward(self, x: Any, mask: Any, training: bool, initial_state: Any) -> tuple[list[Any], Any]:
        array = _engine.to_float(x, "x")
        if mask is None or array.ndim < 2 or self.axis not in (-1, array.ndim - 1) or np.shape(mask) != array.shape:
            return super()._forward(array, mask, training, initial_state)
        steps = array.reshape(-1, array.shape[-1], 1)  # of one feature each
        known = _engine.to_mask(mask, array.shape)
        (y,), _ = Softmax(1, name=self.name)._forward(steps, known.reshape(steps.shape[:2]), training, initial_state)
        return [y.reshape(array.shape)], known

    def named_activation(self) -> str | None:
        return "softmax" if self.axis == -1 else None


activations._with_parameters.update(relu=ReLU, leaky_relu=LeakyReLU, elu=ELU)
