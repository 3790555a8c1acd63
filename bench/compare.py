"""seqcore beside its peers, both sides in one run: a Markdown table of medians and ratios.

    python bench/compare.py [--threads N] [--rows TEXT …] [--peers NAME …] [--turns N] [--seconds S] [--json FILE]

Every peer that is installed takes part. A turn is one process per peer, one after the other; turns are repeated, so
that all meet the same machine. Within a turn the median of the calls counts, over the turns the median of those.
A row is one line of ROWS; a peer is one class of PEERS, whose method named as the row's kind returns a call to time.
"""

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from statistics import median

import numpy as np

CELLS = {"rnn": "SimpleRNN", "lstm": "LSTM", "gru": "GRU"}
# kind, cell, activation, I, H, batch, T, outputs
ROWS = [
    ("epoch", "rnn", "relu", 8, 64, 64, 10, 2),  # the tutorial: fit on 1000 x 10 x 8
    ("epoch", "lstm", "relu", 8, 64, 64, 10, 2),
    ("train", "rnn", "relu", 8, 64, 64, 10, 2),
    ("train", "lstm", "relu", 8, 64, 64, 10, 2),
    ("train", "lstm", "tanh", 8, 64, 64, 10, 2),
    ("train", "gru", "tanh", 64, 128, 64, 50, 10),
    ("train", "lstm", "tanh", 64, 256, 32, 100, 10),
    ("train", "lstm", "tanh", 128, 512, 64, 50, 64),
    ("infer", "lstm", "tanh", 8, 64, 1, 10, 0),
    ("infer", "lstm", "tanh", 64, 256, 1, 100, 0),
    ("infer", "lstm", "tanh", 8, 64, 64, 10, 0),
    ("infer", "lstm", "tanh", 64, 256, 32, 100, 0),
]
EPOCHS = 10  # in one timed fit, so that what fit does once is spread as in the tutorial


def label(row):
    kind, cell, activation, i, h, b, t, _ = row
    return f"{kind} {CELLS[cell]} {activation} {i}→{h} B{b} T{t}"


class Peer:
    """One library. epoch, train and infer return (call, divisor) or None where the library does not offer it."""

    package = ""  # what must be installed, in the words of pip
    modules: tuple[str, ...] = ()  # what must be importable
    backend = ""  # of Keras

    def __init__(self, threads):
        self.threads = threads

    def epoch(self, *shape):
        return None

    def train(self, *shape):
        return None

    def infer(self, *shape):
        return None


class KerasLike(Peer):
    """The same script for everything that speaks Keras."""

    def api(self):
        import keras

        return keras

    def model(self, cell, activation, i, h, t, outputs):
        api = self.api()
        layer = getattr(api.layers, CELLS[cell])
        model = api.models.Sequential()
        model.add(api.layers.Input((t, i)))
        model.add(layer(h, activation=activation, return_sequences=not outputs))
        if outputs:
            model.add(api.layers.Dense(outputs, activation="softmax"))
            model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    def epoch(self, cell, activation, i, h, b, t, outputs):
        model = self.model(cell, activation, i, h, t, outputs)
        x, y = np.random.rand(1000, t, i), np.random.randint(0, outputs, 1000)
        return lambda: model.fit(x, y, epochs=EPOCHS, batch_size=b, verbose=0), EPOCHS


class Seqcore(KerasLike):
    package = "seqcore"
    modules = ("seqcore",)

    def __init__(self, threads):
        super().__init__(threads)
        if threads:
            self.api().set_num_threads(threads)

    def api(self):
        import seqcore

        return seqcore

    def train(self, cell, activation, i, h, b, t, outputs):
        model = self.model(cell, activation, i, h, t, outputs)
        x, y = np.random.rand(b, t, i).astype("f4"), np.random.randint(0, outputs, b)
        return lambda: model.train_on_batch(x, y), 1

    def infer(self, cell, activation, i, h, b, t, outputs):
        model = self.model(cell, activation, i, h, t, outputs)
        x = np.random.rand(b, t, i).astype("f4")
        return lambda: model.predict_on_batch(x), 1


class KerasTensorFlow(KerasLike):
    package = "tensorflow"
    modules = ("keras", "tensorflow")
    backend = "tensorflow"

    def __init__(self, threads):
        super().__init__(threads)
        import tensorflow as tf

        if threads:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(1)


class TensorFlow(KerasTensorFlow):
    """Keras's layers in a tf.function: TensorFlow without the cost of fit and predict."""

    def epoch(self, *shape):
        return None

    def train(self, cell, activation, i, h, b, t, outputs):
        import tensorflow as tf

        model = self.model(cell, activation, i, h, t, outputs)
        x, y = tf.random.uniform((b, t, i)), tf.constant(np.random.randint(0, outputs, b))
        loss = self.api().losses.SparseCategoricalCrossentropy()

        @tf.function
        def step():
            with tf.GradientTape() as tape:
                value = loss(y, model(x, training=True))
            gradients = tape.gradient(value, model.trainable_variables)
            model.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            return value

        return lambda: float(step()), 1

    def infer(self, cell, activation, i, h, b, t, outputs):
        import tensorflow as tf

        model, x = self.model(cell, activation, i, h, t, outputs), tf.random.normal((b, t, i))
        call = tf.function(lambda x: model(x, training=False))
        return lambda: call(x), 1


class KerasTorch(KerasLike):
    package = "keras"
    modules = ("keras", "torch")
    backend = "torch"

    def __init__(self, threads):
        super().__init__(threads)
        import torch

        if threads:
            torch.set_num_threads(threads)


class Torch(Peer):
    package = "torch"
    modules = ("torch",)

    def __init__(self, threads):
        super().__init__(threads)
        import torch

        if threads:
            torch.set_num_threads(threads)

    def network(self, cell, activation, i, h):
        import torch

        if activation != "tanh" and cell != "rnn":
            return None
        if cell == "rnn":
            return torch.nn.RNN(i, h, nonlinearity=activation, batch_first=True)
        return getattr(torch.nn, cell.upper())(i, h, batch_first=True)

    def train(self, cell, activation, i, h, b, t, outputs):
        import torch

        network = self.network(cell, activation, i, h)
        if network is None:
            return None
        head = torch.nn.Linear(h, outputs)
        optimizer = torch.optim.Adam([*network.parameters(), *head.parameters()], fused=True)
        x, y = torch.rand(b, t, i), torch.randint(0, outputs, (b,))

        def step():
            optimizer.zero_grad(set_to_none=True)
            loss = torch.nn.functional.cross_entropy(head(network(x)[0][:, -1]), y)
            loss.backward()
            optimizer.step()
            return loss.item()

        return step, 1

    def infer(self, cell, activation, i, h, b, t, outputs):
        import torch

        network, x = self.network(cell, activation, i, h).eval(), torch.randn(b, t, i)

        def call():
            with torch.inference_mode():
                network(x)

        return call, 1


class Jax(Peer):
    package = "jax"
    modules = ("jax",)

    def __init__(self, threads):
        super().__init__(threads)
        if threads == 1:
            os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

    def train(self, cell, activation, i, h, b, t, outputs):
        if cell == "gru":
            return None
        import jax
        import jax.numpy as jnp

        gates, rng = 4 if cell == "lstm" else 1, np.random.default_rng(0)
        act = jnp.tanh if activation == "tanh" else jax.nn.relu
        shapes = [(i, gates * h), (h, gates * h), (gates * h,), (h, outputs), (outputs,)]
        parameters = [jnp.asarray(rng.normal(size=shape, scale=0.05).astype("f4")) for shape in shapes]

        def loss(parameters, x, y):
            w, u, b_, dense, bias = parameters

            def step(state, z):
                hidden, carry = state
                z = z + hidden @ u
                if cell == "rnn":
                    return (act(z), carry), None
                gate, forget, candidate, out = jnp.split(z, 4, -1)
                carry = jax.nn.sigmoid(forget) * carry + jax.nn.sigmoid(gate) * act(candidate)
                return (jax.nn.sigmoid(out) * act(carry), carry), None

            zero = jnp.zeros((b, h))
            (hidden, _), _ = jax.lax.scan(step, (zero, zero), jnp.einsum("bti,ig->tbg", x, w) + b_)
            logits = jax.nn.log_softmax(hidden @ dense + bias)
            return -jnp.mean(jnp.take_along_axis(logits, y[:, None], 1))

        @jax.jit
        def step(parameters, m, v, n, x, y):
            value, gradients = jax.value_and_grad(loss)(parameters, x, y)
            m = [0.9 * a + 0.1 * g for a, g in zip(m, gradients, strict=True)]
            v = [0.999 * a + 0.001 * g * g for a, g in zip(v, gradients, strict=True)]
            rate = 1e-3 * jnp.sqrt(1 - 0.999**n) / (1 - 0.9**n)
            updated = [p - rate * a / (jnp.sqrt(c) + 1e-7) for p, a, c in zip(parameters, m, v, strict=True)]
            return updated, m, v, n + 1, value

        x, y = rng.random((b, t, i)).astype("f4"), rng.integers(0, outputs, b)
        zeros = [jnp.zeros_like(p) for p in parameters]
        state = [parameters, zeros, zeros, jnp.float32(1)]

        def call():
            *state[:], value = step(*state, x, y)
            return float(value)

        return call, 1


class OnnxRuntime(Peer):
    package = "onnxruntime"
    modules = ("onnx", "onnxruntime")

    def onnx(self, cell, i, h, b, t):
        """The model's bytes: one LSTM, GRU or RNN node that returns the sequence."""
        from onnx import TensorProto, helper, numpy_helper

        gates, rng = {"lstm": 4, "gru": 3, "rnn": 1}[cell], np.random.default_rng(0)
        shapes = {"W": (1, gates * h, i), "R": (1, gates * h, h), "B": (1, 2 * gates * h)}
        weights = [numpy_helper.from_array(rng.normal(size=s, scale=0.05).astype("f4"), n) for n, s in shapes.items()]
        node = helper.make_node(cell.upper(), ["X", *shapes], ["Y"], hidden_size=h)
        x = helper.make_tensor_value_info("X", TensorProto.FLOAT, (t, b, i))
        y = helper.make_tensor_value_info("Y", TensorProto.FLOAT, (t, 1, b, h))
        graph = helper.make_graph([node], "graph", [x], [y], weights)
        opset = [helper.make_opsetid("", 17)]
        return helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()

    def infer(self, cell, activation, i, h, b, t, outputs):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        model = self.onnx(cell, i, h, b, t)
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        feed = {"X": np.random.rand(t, b, i).astype("f4")}
        return lambda: session.run(None, feed), 1


class OpenVino(OnnxRuntime):
    package = "openvino"
    modules = ("onnx", "openvino")

    def infer(self, cell, activation, i, h, b, t, outputs):
        import openvino

        core = openvino.Core()
        options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        if self.threads:
            options["INFERENCE_NUM_THREADS"] = self.threads
        model = core.compile_model(core.read_model(self.onnx(cell, i, h, b, t)), "CPU", options)
        request = model.create_infer_request()
        feed = [np.random.rand(t, b, i).astype("f4")]
        return lambda: request.infer(feed, share_inputs=True, share_outputs=True), 1


PEERS = {
    "seqcore": Seqcore,
    "Keras/TF": KerasTensorFlow,
    "Keras/torch": KerasTorch,
    "TensorFlow": TensorFlow,
    "torch": Torch,
    "JAX": Jax,
    "ONNX Runtime": OnnxRuntime,
    "OpenVINO": OpenVino,
}


def work(peer, rows, threads, seconds):
    """One turn of one peer, in its own process: prints {row label: median microseconds} as the last line."""
    runner, result = PEERS[peer](threads), {}
    for row in rows:
        timed = getattr(runner, row[0])(*row[1:])
        if timed is None:
            continue
        call, divisor = timed
        call()
        call()
        times, end = [], time.perf_counter() + seconds
        while len(times) < 3 or (time.perf_counter() < end and len(times) < 20000):
            start = time.perf_counter_ns()
            call()
            times.append((time.perf_counter_ns() - start) / 1e3 / divisor)
        result[label(row)] = median(times)
    print(json.dumps(result))


def processor():
    with open("/proc/cpuinfo") as info:
        return next((line.split(":")[1].strip() for line in info if line.startswith("model name")), platform.machine())


def compare(args, rows):
    peers = [name for name in PEERS if not args.peers or name in args.peers or name == "seqcore"]
    peers = [name for name in peers if all(importlib.util.find_spec(module) for module in PEERS[name].modules)]
    times = {name: {label(row): [] for row in rows} for name in peers}
    for _ in range(args.turns):
        for name in peers:
            environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": PEERS[name].backend}
            if args.threads:
                environment["OMP_NUM_THREADS"] = str(args.threads)
            command = [sys.executable, __file__, "--worker", name, *sys.argv[1:]]
            run = subprocess.run(command, env=environment, capture_output=True, text=True)
            if run.returncode:
                raise SystemExit(f"{name} failed:\n{run.stderr}")
            for row, value in json.loads(run.stdout.splitlines()[-1]).items():
                times[name][row].append(value)
    medians = {name: {row: median(values) for row, values in each.items() if values} for name, each in times.items()}
    peers = [name for name in peers if medians[name]]

    versions = {name: metadata.version(PEERS[name].package) for name in peers}
    threads = args.threads or "default"
    print(f"{processor()}, {len(os.sched_getaffinity(0))} cores, threads: {threads}; µs, and how many times seqcore's")
    print(", ".join(f"{name} {version}" for name, version in versions.items()), end="\n\n")
    print("| case | " + " | ".join(peers) + " |")
    print("|---" * (len(peers) + 1) + "|")
    for row in map(label, rows):
        own = medians["seqcore"][row]
        cells = [f"{us:,.1f} ({us / own:.1f}x)" if us else "" for us in (medians[name].get(row) for name in peers[1:])]
        print(f"| {row} | {own:,.1f} | " + " | ".join(cells) + " |")
    if args.json:
        with open(args.json, "w") as file:
            result = {"processor": processor(), "threads": threads, "versions": versions, "us": medians}
            json.dump(result, file, indent=1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=0, help="of every peer; default: what each takes by itself")
    parser.add_argument("--rows", nargs="*", default=[], help="only rows whose label contains all these words")
    parser.add_argument("--peers", nargs="*", default=[], help=f"beside seqcore, of {', '.join(PEERS)}; default: all")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="per row and turn")
    parser.add_argument("--json", help="also write the numbers here")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    rows = [row for row in ROWS if all(word in label(row) for word in args.rows)]
    if args.worker:
        work(args.worker, rows, args.threads, args.seconds)
    else:
        compare(args, rows)


if __name__ == "__main__":
    main()
