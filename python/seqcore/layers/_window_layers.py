"""The layers that look at a few steps at a time: Conv1D, MaxPooling1D, AveragePooling1D."""

from __future__ import annotations

from typing import Any

from .._config import Convert, arg, one_of, optional, positive_int
from .._network import Shape
from ._base import Layer
from ._core_layers import Projection


def _one_size(value: Any, where: str) -> tuple[int]:
    """Keras's tuple of one: an integer, or a list of one."""
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    return (positive_int(value, where),)


def _padding(*choices: str) -> Convert:
    known = one_of(*choices)
    return lambda value, where: known(value.lower() if isinstance(value, str) else value, where)


class _Windows(Layer):
    """Layers whose output steps see windows of the input's."""

    supports_masking = False
    _input_rank = 3

    def _output_steps(self, input_shape: Shape, size: int, stride: int, padding: str) -> int | None:
        self._check_rank(input_shape, 3, "(batch, steps, features)")
        steps = input_shape[1]
        if steps is None:
            return None
        if padding != "valid":
            return -(-steps // stride)
        if steps < size:
            raise ValueError(
                f'input 0 of layer "{self.name}": expected at least {size} steps, which a window without padding '
                f"takes, got shape {input_shape}"
            )
        return (steps - size) // stride + 1


class _OfFilters(_Windows):
    filters: int = arg(positive_int)
    kernel_size: tuple[int] = arg(_one_size)
    strides: tuple[int] = arg(_one_size, default=1)
    padding: str = arg(_padding("valid", "same", "causal"), default="valid")
    data_format: str | None = arg(optional(one_of("channels_last")), default=None, in_config=False)
    dilation_rate: tuple[int] = arg(_one_size, default=1)
    groups: int = arg(positive_int, default=1)


class Conv1D(Projection, _OfFilters):
    """`activation(bias + sum over j of x[t + j] · kernel[j])`: a product of each window of steps. (batch, steps,
    features) to (batch, new steps, filters). As Keras's it looks at masked steps too. A mask ends here. Its weights are
    float32 in every precision. Streams run it where it is causal and has strides of 1.

    Args:
        filters: size of the output's last axis.
        kernel_size: steps of a window.
        strides: steps from one window to the next.
        padding: "valid": windows lie in the input, which gets shorter; "same": they reach over both ends, over which
            they see zeros; "causal": over the beginning alone, so that no output step sees a later input step.
        data_format: None or "channels_last".
        dilation_rate: steps from one of a window's to its next; more than 1 only with strides of 1.
        groups: into how many equal parts features and filters are divided, each with weights of its own.
        activation: a named activation; None is linear.
        use_bias: whether a bias is added.
        kernel_initializer, bias_initializer: how the weights begin: a name, one of `seqcore.initializers`, a function
            `(shape, dtype=None) -> array`, or an array.
        kernel_regularizer, bias_regularizer, activity_regularizer: penalties added to the loss.
        kernel_constraint, bias_constraint: projections after each update.

    Raises:
        ValueError: `groups` divides features or filters not evenly, or without padding the input is shorter than a
            window.

    Example:
        >>> import numpy as np
        >>> from seqcore import layers
        >>> layers.Conv1D(32, 3, activation="relu")(np.zeros((4, 10, 8))).shape
        (4, 8, 32)
    """

    def _setup(self) -> None:
        super()._setup()
        if self.filters % self.groups:
            raise ValueError(
                f"`groups` of Conv1D: expected a number that divides filters={self.filters}, got {self.groups}"
            )
        if self.strides[0] > 1 and self.dilation_rate[0] > 1:
            raise ValueError(
                f"`dilation_rate` of Conv1D: expected 1 beside strides={self.strides[0]}, got {self.dilation_rate[0]}"
            )

    def output_shape_for(self, input_shape: Shape) -> Shape:
        reach = (self.kernel_size[0] - 1) * self.dilation_rate[0] + 1
        steps = self._output_steps(input_shape, reach, self.strides[0], self.padding)
        if self._features(input_shape) % self.groups:
            raise ValueError(
                f'input 0 of layer "{self.name}": expected a number of features that groups={self.groups} divides, got '
                f"shape {input_shape}"
            )
        return input_shape[0], steps, self.filters


class _Pooling(_Windows):
    _weightless = True
    pool_size: tuple[int] = arg(_one_size, default=2)
    strides: tuple[int] | None = arg(optional(_one_size), default=None)
    padding: str = arg(_padding("valid", "same"), default="valid")
    data_format: str | None = arg(optional(one_of("channels_last")), default=None, in_config=False)

    def _setup(self) -> None:
        super()._setup()
        self.strides = self.strides or self.pool_size

    def output_shape_for(self, input_shape: Shape) -> Shape:
        stride, *_ = self.strides or self.pool_size
        steps = self._output_steps(input_shape, self.pool_size[0], stride, self.padding)
        return input_shape[0], steps, self._features(input_shape)


class MaxPooling1D(_Pooling):
    """The largest of each window of steps: (batch, steps, features) to (batch, new steps, features). As Keras's it
    looks at masked steps too. A mask ends here.

    Args:
        pool_size: steps of a window.
        strides: steps from one window to the next; None: `pool_size`.
        padding: "valid": windows lie in the input; "same": they may reach over its ends, where nothing counts.
        data_format: None or "channels_last".

    Raises:
        ValueError: without padding the input is shorter than a window.

    Example:
        >>> from seqcore import layers
        >>> layers.MaxPooling1D(2)([[[1.0], [3.0], [2.0], [0.0]]]).tolist()
        [[[3.0], [2.0]]]
    """


class AveragePooling1D(_Pooling):
    """The mean of each window of steps: (batch, steps, features) to (batch, new steps, features). As Keras's it
    looks at masked steps too. A mask ends here.

    Args:
        pool_size: steps of a window.
        strides: steps from one window to the next; None: `pool_size`.
        padding: "valid": windows lie in the input; "same": they may reach over its ends, where nothing counts.
        data_format: None or "channels_last".

    Raises:
        ValueError: without padding the input is shorter than a window.

    Example:
        >>> from seqcore import layers
        >>> layers.AveragePooling1D(2)([[[1.0], [3.0], [2.0], [0.0]]]).tolist()
        [[[2.0], [1.0]]]
    """


MaxPool1D, AvgPool1D = MaxPooling1D, AveragePooling1D
