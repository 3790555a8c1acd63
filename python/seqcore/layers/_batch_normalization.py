"""BatchNormalization: the layer of which training changes weights that no gradient does."""

from __future__ import annotations

from typing import Any

from .. import constraints, initializers, regularizers
from .._config import arg, boolean, fraction, non_negative
from ._base import Layer
from ._core_layers import ConstraintLike, InitializerLike, OverLastAxis, RegularizerLike


def _off(value: Any, where: str) -> bool:
    if boolean(value, where):
        raise ValueError(f"{where}: expected False, seqcore does without; got {value!r}")
    return False


class BatchNormalization(OverLastAxis):
    """Gives each feature mean 0 and variance 1 over all samples and steps, then scales by gamma and adds beta.

    In training the mean and the variance are the batch's, without the steps that a mask leaves out, and the moving ones
    go towards them: `moving = momentum * moving + (1 - momentum) * batch`. At inference, and where `trainable` is
    False, the moving ones are used and stay. In TimeDistributed each step is a batch of its own, as in Keras.

    Args:
        axis: -1, the last axis.
        momentum: what stays of the moving statistics, in [0, 1].
        epsilon: added to the variance.
        center, scale: whether beta and gamma exist.
        beta_initializer, gamma_initializer, moving_mean_initializer, moving_variance_initializer, beta_regularizer,
            gamma_regularizer, beta_constraint, gamma_constraint: as elsewhere.
        renorm, synchronized: False.

    Call arguments:
        training: whether the batch's statistics are taken; the moving ones are updated then, too.

    Raises:
        ValueError: another axis than the last, `renorm` or `synchronized`; or, when called, a mask of steps for input
            of more axes than (batch, steps, features).

    Example:
        >>> from seqcore import layers
        >>> norm = layers.BatchNormalization(momentum=0.5, epsilon=0.0)
        >>> norm([[1.0], [3.0]], training=True).tolist()
        [[-1.0], [1.0]]
        >>> norm.moving_mean.numpy().tolist()
        [1.0]
    """

    momentum: float = arg(fraction, default=0.99)
    epsilon: float = arg(non_negative, default=1e-3)
    center: bool = arg(boolean, default=True)
    scale: bool = arg(boolean, default=True)
    beta_initializer: InitializerLike = arg(initializers.convert, default="zeros")
    gamma_initializer: InitializerLike = arg(initializers.convert, default="ones")
    moving_mean_initializer: InitializerLike = arg(initializers.convert, default="zeros")
    moving_variance_initializer: InitializerLike = arg(initializers.convert, default="ones")
    beta_regularizer: RegularizerLike = arg(regularizers.convert, default=None)
    gamma_regularizer: RegularizerLike = arg(regularizers.convert, default=None)
    beta_constraint: ConstraintLike = arg(constraints.convert, default=None)
    gamma_constraint: ConstraintLike = arg(constraints.convert, default=None)
    renorm: bool = arg(_off, default=False, kw_only=True, in_config=False)
    synchronized: bool = arg(_off, default=False, kw_only=True, in_config=False)

    _ignored = Layer._ignored | {"renorm_clipping", "renorm_momentum"}  # without renorm they say nothing

    def as_at_inference(self, change: bool = True) -> bool:
        self.inference_only = self.inference_only or change
        return True

    @property
    def trained(self) -> list[bool]:
        return [self.trainable and not (v.statistic and self.inference_only) for v in self.variables]
