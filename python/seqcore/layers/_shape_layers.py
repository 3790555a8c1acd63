"""The layers that join or move what is there: Flatten, Reshape, Permute, RepeatVector, pooling over all steps."""

from __future__ import annotations

import math
from typing import Any

from .._config import arg, boolean, integer, one_of, optional, positive_int
from .._network import Shape
from ._base import Layer


def _target(value: Any, where: str) -> tuple[int, ...]:
    given = value if isinstance(value, (list, tuple)) else (value,)
    target = tuple(integer(n, where) for n in given)
    if not target or any(n < 1 and n != -1 for n in target) or target.count(-1) > 1:
        raise ValueError(f"{where}: expected positive integers and at most one -1, got {value!r}")
    return target


def _order(value: Any, where: str) -> tuple[int, ...]:
    given = value if isinstance(value, (list, tuple)) else (value,)
    order = tuple(integer(n, where) for n in given)
    if not order or sorted(order) != list(range(1, len(order) + 1)):
        raise ValueError(f"{where}: expected the numbers from 1 to the number of axes, each once, got {value!r}")
    return order


class Flatten(Layer):
    """Joins all axes but the batch into one. A mask ends here.

    Args:
        data_format: accepted as Keras's. "channels_first" would move an axis and is refused where there are three.
    """

    _weightless = True

    data_format: str | None = arg(optional(one_of("channels_last", "channels_first")), default=None, in_config=False)

    supports_masking = False

    def output_shape_for(self, input_shape: Shape) -> Shape:
        if not input_shape:
            raise ValueError(f'input 0 of layer "{self.name}": expected at least a batch axis, got shape {input_shape}')
        if self.data_format == "channels_first" and len(input_shape) > 2:
            raise ValueError(f'`data_format` of Flatten: expected "channels_last" for an input of shape {input_shape}')
        rest = [n for n in input_shape[1:] if n is not None]
        return input_shape[0], math.prod(rest) if len(rest) == len(input_shape) - 1 else None


class Reshape(Layer):
    """Gives each sample another shape; its numbers keep their order. A mask ends here.

    Args:
        target_shape: without the batch. One -1 stands for what is left; it comes first where the number of
            steps is unknown, as is the number of those that are made of them then.

    Example:
        >>> import numpy as np
        >>> from seqcore import layers
        >>> layers.Reshape((3, -1))(np.ones((4, 12))).shape
        (4, 3, 4)
    """

    _weightless = True

    target_shape: tuple[int, ...] = arg(_target)

    supports_masking = False

    def output_shape_for(self, input_shape: Shape) -> Shape:
        self._features(input_shape)
        sizes, known = input_shape[1:], math.prod(n for n in self.target_shape if n != -1)
        if None in sizes:  # whether the numbers come out even is seen with the data
            if -1 in self.target_shape[len(self.target_shape) > 1 :]:
                raise ValueError(
                    f'input 0 of layer "{self.name}": expected known sizes (steps may be unknown where target_shape '
                    f"has no -1, or begins with it and goes on), got shape {input_shape}"
                )
            return (input_shape[0], *(None if n == -1 else n for n in self.target_shape))
        size = math.prod(n for n in sizes if n is not None)
        if size % known or (-1 not in self.target_shape and size != known):
            raise ValueError(
                f'input 0 of layer "{self.name}": the total size must stay: {input_shape[1:]} cannot be reshaped to '
                f"{self.target_shape}"
            )
        return (input_shape[0], *(size // known if n == -1 else n for n in self.target_shape))


class Permute(Layer):
    """Puts the axes of each sample in another order. A mask ends here.

    Args:
        dims: which of the input's axes stands at each place, counted from 1, the batch apart.

    Example:
        >>> import numpy as np
        >>> from seqcore import layers
        >>> layers.Permute((2, 1))(np.ones((4, 10, 3))).shape
        (4, 3, 10)
    """

    _weightless = True

    dims: tuple[int, ...] = arg(_order)

    supports_masking = False

    def output_shape_for(self, input_shape: Shape) -> Shape:
        if len(input_shape) != len(self.dims) + 1:
            raise ValueError(
                f'input 0 of layer "{self.name}": expected {len(self.dims) + 1} axes, got shape {input_shape}'
            )
        return (input_shape[0], *(input_shape[axis] for axis in self.dims))


class RepeatVector(Layer):
    """Makes a sequence of `n` equal steps of each vector: (batch, features) to (batch, n, features).

    Args:
        n: the steps.

    Example:
        >>> import numpy as np
        >>> from seqcore import layers
        >>> layers.RepeatVector(5)(np.ones((4, 3))).shape
        (4, 5, 3)
    """

    _weightless = True

    n: int = arg(positive_int)

    supports_masking = False

    def output_shape_for(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 2:
            raise ValueError(f'input 0 of layer "{self.name}": expected shape (batch, features), got {input_shape}')
        return (input_shape[0], self.n, input_shape[1])


class _GlobalPooling(Layer):
    _weightless = True
    data_format: str | None = arg(optional(one_of("channels_last")), default=None, in_config=False)
    keepdims: bool = arg(boolean, default=False)

    supports_masking = False

    def output_shape_for(self, input_shape: Shape) -> Shape:
        self._check_rank(input_shape, 3, "(batch, steps, features)")
        self._features(input_shape)
        return (input_shape[0], 1, input_shape[2]) if self.keepdims else (input_shape[0], input_shape[2])


class GlobalAveragePooling1D(_GlobalPooling):
    """The mean over the steps: (batch, steps, features) to (batch, features). Masked steps do not count; where all are
    masked it is 0. A mask ends here.

    Args:
        data_format: None or "channels_last".
        keepdims: whether the axis of steps stays, of length 1.
    """

    supports_masking = True


class GlobalMaxPooling1D(_GlobalPooling):
    """The largest over the steps: (batch, steps, features) to (batch, features). As Keras's it looks at masked
    steps too. A mask ends here.

    Args:
        data_format: None or "channels_last".
        keepdims: whether the axis of steps stays, of length 1.
    """


GlobalAvgPool1D, GlobalMaxPool1D = GlobalAveragePooling1D, GlobalMaxPooling1D
