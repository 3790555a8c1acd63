"""The compiled engine. Only `_engine.py` imports it.

Arrays in: C-contiguous NumPy arrays of exactly the dtype named (``_engine.py`` converts); anything else is a TypeError.
Arrays out: fresh C-contiguous arrays that own their memory. Descriptions are JSON texts in Keras's own words.
Errors: ValueError (bad values, shapes, unknown keys), TypeError (dtypes), RuntimeError (wrong order of calls),
MemoryError, KeyboardInterrupt (from any call that computes; nothing is changed then). The GIL is released meanwhile.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Int = NDArray[np.int32]
Data = Float | Int  # int32 where the model's input is integer (Embedding first), labels of sparse losses

__version__: str

# ---- process-wide
def show_config() -> dict[str, Any]: ...  # isa, available_isas, threads, compiler, version, openmp, width,
    # bfloat16 and int8 (what computes such products)
def set_num_threads(n: int) -> None: ...  # n >= 1
def get_num_threads() -> int: ...
PRECISIONS: list[str]  # in which weights of products can be read: float32, bfloat16, int8

# ---- stateless computations, the same code that models use
ACTIVATIONS: list[str]
def activation(name: str, x: Float) -> Float: ...  # any shape; softmax-like ones over the last axis
def activation_gradient(name: str, x: Float, dy: Float) -> Float: ...
def loss(config: str, y_true: Data, y_pred: Float) -> Float: ...
    # {"class_name": "Huber", "config": {...}}: per-sample losses, shape y_pred.shape[:-1]
def initialize(config: str, shape: tuple[int, ...], seed: int) -> Float: ...
    # {"class_name": "GlorotUniform", "config": {...}}; a "seed" in config wins over the argument
def constrain(config: str, w: Float) -> Float: ...  # {"class_name": "MaxNorm", "config": {...}}
def regularize(config: str, w: Float) -> float: ...  # {"class_name": "L1L2", "config": {"l1":…, "l2":…}}
def permutation(n: int, seed: int, counter: int) -> NDArray[np.int64]: ...  # shuffles; the same everywhere
def random_uniform(n: int, seed: int, counter: int) -> Float: ...  # [0, 1)

# ---- files: one at a time, written atomically; safetensors
def write_file(path: bytes, content: bytes | memoryview) -> None: ...
def write_safetensors(path: bytes, tensors: dict[str, NDArray[Any]], metadata: dict[str, str]) -> None: ...
def read_safetensors(path: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, str]]: ...
    # F32, F64, I32, I64, U64, U8; OSError for the system's errors, ValueError for a bad file

class Weight:
    """What one weight is. `layer` counts the description's layers, `name` is Keras's path inside the layer
    ("kernel", "recurrent_kernel", "bias", "forward_layer/kernel", …)."""
    @property
    def layer(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def statistic(self) -> bool: ...  # no gradient moves it: its layer does, in training

class Model:
    """A built network: weights, gradients, optimizer slots, states. Immutable in shape.

    description: {"input": {"shape": [null, 10, 8], "dtype": "float32" | "int32"}, "layers": [{"class_name": …,
    "config": {…}}, …]}. shape includes the batch; null = any. Layer configs are Keras's get_config() entries, seed-less
    objects allowed, name, dtype and trainable ignored; wrappers nest {"class_name", "config"} under "layer". Other
    unknown keys are refused by name. `seed` feeds every initializer and dropout that has none of its own.
    """
    def __init__(self, description: str, seed: int) -> None: ...
    @property
    def output_shapes(self) -> list[tuple[int | None, ...]]: ...  # one per layer, batch first
    @property
    def weights(self) -> list[Weight]: ...
    def get_weight(self, index: int) -> Float: ...
    def set_weight(self, index: int, value: Float) -> None: ...  # exact shape, finite or not
    def initial_weight(self, index: int) -> Float: ...  # what the initializer gives (again)

    # -- running
    def predict(self, x: Data, batch_size: int, precision: str = "float32") -> Float: ...  # one of PRECISIONS
    def forward(self, x: Data, training: bool, mask: NDArray[np.bool_] | None,
                initial_state: list[Float] | None,
                trainable: list[bool] = []) -> tuple[list[Float], NDArray[np.bool_] | None]: ...
        # all rows as one batch. Outputs: [y] or, where the last layer has return_state, [y, *states]
        # (Bidirectional with merge_mode None: [y_forward, y_backward, *states]); and the output's mask.
        # initial_state is for the first layer, which must be recurrent. training=True takes (and advances) dropout, and
        # moves statistics, those whose weight's flag in `trainable` is True; all without flags.
    def reset_states(self, layer: int) -> None: ...  # -1: all
    def get_states(self, layer: int) -> list[Float]: ...  # stateful layers; [] before the first call
    def set_states(self, layer: int, states: list[Float]) -> None: ...

    # -- training
    def compile(self, config: str) -> None: ...
        # {"optimizer": {"class_name": "Adam", "config": {…}} | null, "loss": {"class_name", "config"} | null,
        #  "metrics": [{"class_name", "config"}…], "weighted_metrics": […], "trainable": [bool per weight]}; statistics
        #  move where theirs is true
        # resets optimizer slots, counters and metrics
    def train_on_batch(
        self, x: Data, y: Data, sample_weight: Float | None, rows: NDArray[np.int64] | None
    ) -> float: ...
    def test_on_batch(self, x: Data, y: Data, sample_weight: Float | None, rows: NDArray[np.int64] | None) -> float: ...
        # x, y, sample_weight are whole data sets; rows picks this batch (None: all of it). sample_weight is (n,) or
        # (n, steps). Returns this batch's loss, regularization included. Metrics accumulate until reset_metrics().
    def see_batch(
        self, x: Data, y: Data, sample_weight: Float | None, rows: NDArray[np.int64] | None, train: bool
    ) -> tuple[Float, NDArray[np.bool_] | None]: ...
        # train_on_batch or test_on_batch. Returns the outputs that the loss saw, and their mask (batch, steps)
    def gradients(self, x: Data, y: Data, sample_weight: Float | None) -> tuple[float, list[Float]]: ...
        # loss and its gradient for every weight (zeros where not trainable), training=False; updates nothing
    def check_data(self, x: Data, y: Data | None, sample_weight: Float | None) -> None: ...
        # validates a whole data set once (shapes, label range, NaN labels): a bad row 900 is named before epoch 1
    def metric_results(self) -> list[float]: ...  # "metrics" then "weighted_metrics", in order
    def reset_metrics(self) -> None: ...
    @property
    def loss_mean(self) -> float: ...  # sample-weighted mean of batch losses since reset_metrics()
    skipped_steps: int  # updates skipped for a non-finite gradient since compile
    iterations: int
    accumulated: int  # batches summed towards the next step (gradient_accumulation_steps)
    learning_rate: float
    def optimizer_variables(self) -> list[tuple[str, Float]]: ...
        # ("momentum/3", …): slots by weight index; and, of Nadam, ("u_product", a scalar)
    def set_optimizer_variables(self, values: list[tuple[str, Float]]) -> None: ...
    def finalize_ema(self) -> None: ...  # use_ema: the averages replace the weights
    seed: int  # with rng_counter, the whole random state of training
    rng_counter: int

class Optimizer:
    """The updates of training on arrays of the caller's: variables of these shapes, all of which have their slots."""
    def __init__(self, config: str, shapes: list[tuple[int, ...]]) -> None: ...  # {"class_name": "Adam", "config": {…}}
    def apply(
        self, which: list[int], values: list[Float], gradients: list[Float], decays: list[bool]
    ) -> list[Float] | None: ...
        # new values of the variables `which`; None, with nothing changed, where a gradient is not finite. decays:
        # whether weight_decay, if there is one, takes something off
    def optimizer_variables(self) -> list[tuple[str, Float]]: ...  # as Model's, by variable
    iterations: int
    accumulated: int
    learning_rate: float

def measure_read(bytes: int) -> float: ...  # seconds to read an array of that size, on one thread

class Stream:
    """A model's weights as they are now, run step by step: `streams` independent states.

    Threads > 1: a single stream has helpers of its own. RuntimeError where another thread is in a call.
    """
    def __init__(self, model: Model, precision: str, streams: int, threads: int) -> None: ...
    @property
    def features(self) -> int: ...  # of a row of input
    @property
    def outputs(self) -> int: ...
    @property
    def takes_ids(self) -> bool: ...
    @property
    def weight_bytes(self) -> int: ...  # that a step reads
    def copy(self) -> Stream: ...
    def make_step(self, convert: Callable[[Any], Float | int]) -> Callable[..., Float]: ...
        # step(x, out=None) of a single stream: x is a vector of `features`, or an id; `convert` makes one of anything
        # else. out is returned, or a fresh vector of `outputs`.
    def run(self, x: Data, which: NDArray[np.int64] | None, out: Float | None) -> Float: ...
        # x (steps, count, features), or ids (steps, count), of the streams listed, all of them if None; steps and count
        # may be one axis. If it raises nothing has changed. out, or a fresh array: as x, with outputs last.
    def reset(self, which: NDArray[np.int64] | None) -> None: ...
    def get_state(self) -> list[Float]: ...  # (streams, units) each: h, then c where there is one, layer by layer
    def set_state(self, arrays: list[Float]) -> None: ...
