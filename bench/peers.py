"""The contenders of compare.py: what each library has to do for a row, as a call to time. A peer is one class of PEERS;
a method named as the row's kind returns (call, how many of what the row counts it does), or None if there is none.

For infer, run and step all peers have the same weights and the same data, and the calls return the output."""

import os

import numpy as np

CELLS = {"rnn": "SimpleRNN", "lstm": "LSTM", "gru": "GRU"}
GATES = {"rnn": 1, "lstm": 4, "gru": 3}
TORCH_GATES = {"rnn": [0], "lstm": [0, 1, 2, 3], "gru": [1, 0, 2]}  # which of Keras's each is
ONNX_GATES = {"rnn": [0], "lstm": [0, 3, 1, 2], "gru": [0, 1, 2]}
EPOCHS = 10  # in one timed fit, so that what fit does once is spread as in the tutorial
STEPS = 100  # in one timed call, so that the clock does not count; even


def weights(cell, i, h):
    """Kernel, recurrent kernel, bias, as Keras has them: gates i f c o, and z r h with the reset after the product."""
    rng, columns = np.random.default_rng(0), GATES[cell] * h
    shapes = [(i, columns), (h, columns), (2, columns) if cell == "gru" else (columns,)]
    return [rng.uniform(-(h**-0.5), h**-0.5, shape).astype("f4") for shape in shapes]


def reordered(cell, i, h, order):
    """The same as (rows of gates in that order, columns): W, U, the bias of either."""
    kernel, recurrent, bias = weights(cell, i, h)
    biases = bias if cell == "gru" else np.stack([bias, np.zeros_like(bias)])

    def rows(columns):
        return np.concatenate([np.split(columns, GATES[cell], -1)[gate] for gate in order[cell]], -1).T.copy()

    return rows(kernel), rows(recurrent), *rows(biases).T.copy()


def inputs(*shape):
    return np.random.default_rng(1).random(shape, "f4")


class Peer:
    """One library, or one way to use it."""

    tolerance = 1e-4  # of outputs beside seqcore's in float32
    package = ""  # what must be installed, in the words of pip
    modules: tuple[str, ...] = ()  # what must be importable
    backend = ""  # of Keras

    def __init__(self, threads):
        self.threads = threads

    @classmethod
    def offers(cls, kind):
        """Whether there may be a row of that kind."""
        return any(getattr(cls, name) is not getattr(Peer, name) for name in {kind, "infer" if kind == "run" else kind})

    def epoch(self, *shape):
        return None

    def train(self, *shape):
        return None

    def infer(self, *shape):
        return None

    def run(self, *shape):
        return self.infer(*shape)

    def step(self, *shape):
        return None


def steps(step):
    """STEPS calls as one."""

    def call():
        for _ in range(STEPS):
            y = step()
        return y

    return call, STEPS


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
        else:
            model.set_weights(weights(cell, i, h))
        return model

    def epoch(self, cell, activation, i, h, b, t, outputs):
        model = self.model(cell, activation, i, h, t, outputs)
        x, y = np.random.rand(1000, t, i), np.random.randint(0, outputs, 1000)
        return lambda: model.fit(x, y, epochs=EPOCHS, batch_size=b, verbose=0), EPOCHS


class Seqcore(KerasLike):
    package = "seqcore"
    modules = ("seqcore",)
    precision = "float32"

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
        model, x = self.model(cell, activation, i, h, t, outputs), inputs(b, t, i)
        if self.precision != "float32":
            return lambda: model.predict(x, batch_size=b, verbose=0, precision=self.precision), 1
        return lambda: model.predict_on_batch(x), 1

    def stream(self, cell, activation, i, h, t):
        return self.model(cell, activation, i, h, t, 0).stream(self.precision, self.threads or 1)

    def run(self, cell, activation, i, h, b, t, outputs):
        stream, x, out = self.stream(cell, activation, i, h, t), inputs(t, i), np.empty((t, h), "f4")
        return lambda: stream.run(x, out), 1

    def step(self, cell, activation, i, h, b, t, outputs):
        step, x, out = self.stream(cell, activation, i, h, t).step, inputs(i), np.empty(h, "f4")
        return steps(lambda: step(x, out))


class SeqcoreBfloat16(Seqcore):
    """Weights in bfloat16; trains nothing."""

    precision = "bfloat16"
    tolerance = 0.05

    def epoch(self, *shape):
        return None

    def train(self, *shape):
        return None


class SeqcoreInt8(SeqcoreBfloat16):
    precision = "int8"


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

        model, x = self.model(cell, activation, i, h, t, outputs), tf.constant(inputs(b, t, i))
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

    def network(self, cell, activation, i, h, suffix=""):
        """torch.nn's RNN, LSTM or GRU, or the cell of it."""
        import torch

        if activation != "tanh" and cell != "rnn":
            return None
        options = {"nonlinearity": activation} if cell == "rnn" else {}
        if not suffix:
            options["batch_first"] = True
        network = getattr(torch.nn, cell.upper() + suffix)(i, h, **options)
        with torch.no_grad():
            for to, array in zip(network.parameters(), reordered(cell, i, h, TORCH_GATES), strict=True):
                to.copy_(torch.from_numpy(array))
        return network

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

        network, x = self.network(cell, activation, i, h).eval(), torch.from_numpy(inputs(b, t, i))
        return torch.inference_mode()(lambda: network(x)[0]), 1

    def step(self, cell, activation, i, h, b, t, outputs):
        import torch

        network, x = self.network(cell, activation, i, h, "Cell").eval(), torch.from_numpy(inputs(1, i))
        state = None

        def step():
            nonlocal state
            state = network(x, state)
            return state

        call, count = steps(step)
        return torch.inference_mode()(lambda: call()[0] if cell == "lstm" else call()), count


class Jax(Peer):
    package = "jax"
    modules = ("jax",)

    def __init__(self, threads):
        super().__init__(threads)
        if threads:  # XLA has no option for it: a thread for each core that the process may use
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])

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

    def onnx(self, cell, activation, i, h, b, t, states=False):
        """The model's bytes: one LSTM, GRU or RNN node that returns the sequence, or takes and returns its states."""
        from onnx import TensorProto, helper, numpy_helper

        w, u, *biases = reordered(cell, i, h, ONNX_GATES)
        arrays = {"W": w, "R": u, "B": np.concatenate(biases)}
        initializers = [numpy_helper.from_array(array[np.newaxis], name) for name, array in arrays.items()]
        names = ["h", "c"][: 2 if cell == "lstm" else 1] if states else []
        before, after = [f"initial_{n}" for n in names], [f"Y_{n}" for n in names]
        options = {"linear_before_reset": 1} if cell == "gru" else {}
        options["activations"] = ["Sigmoid"] * (cell != "rnn") + [activation.title()] * (2 if cell == "lstm" else 1)
        node = helper.make_node(
            cell.upper(), ["X", *arrays, *([""] if states else []), *before], ["" if states else "Y", *after],
            hidden_size=h, **options,
        )  # fmt: skip

        def floats(name, *shape):
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

        given = [floats("X", t, b, i), *(floats(n, 1, b, h) for n in before)]
        results = [floats(n, 1, b, h) for n in after] or [floats("Y", t, 1, b, h)]
        graph = helper.make_graph([node], "graph", given, results, initializers)
        opset = [helper.make_opsetid("", 17)]
        return helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()

    def session(self, model):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def infer(self, cell, activation, i, h, b, t, outputs):
        session = self.session(self.onnx(cell, activation, i, h, b, t))
        feed = {"X": inputs(b, t, i).swapaxes(0, 1).copy()}
        return lambda: session.run(None, feed)[0], 1

    def step(self, cell, activation, i, h, b, t, outputs):
        """Two bindings take turns, what one reads being what the other has written: half of the time of plain runs."""
        from onnxruntime import OrtValue

        session = self.session(self.onnx(cell, activation, i, h, 1, 1, states=True))
        x, sides = OrtValue.ortvalue_from_numpy(inputs(1, 1, i)), []
        for _ in range(2):
            sides.append([OrtValue.ortvalue_from_numpy(np.zeros((1, 1, h), "f4")) for _ in session.get_outputs()])
        bindings = [session.io_binding() for _ in range(2)]
        for binding, before, after in zip(bindings, sides, reversed(sides), strict=True):
            for given, value in zip(session.get_inputs(), [x, *before], strict=True):
                binding.bind_ortvalue_input(given.name, value)
            for result, value in zip(session.get_outputs(), after, strict=True):
                binding.bind_ortvalue_output(result.name, value)

        def call():  # an even number of steps
            for _ in range(STEPS // 2):
                session.run_with_iobinding(bindings[0])
                session.run_with_iobinding(bindings[1])
            return sides[0][0].numpy()

        return call, STEPS


class OpenVino(OnnxRuntime):
    package = "openvino"
    modules = ("onnx", "openvino")

    def model(self, onnx):
        import openvino

        core = openvino.Core()
        options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        if self.threads:
            options["INFERENCE_NUM_THREADS"] = self.threads
        return core.compile_model(core.read_model(onnx), "CPU", options)

    def infer(self, cell, activation, i, h, b, t, outputs):
        request = self.model(self.onnx(cell, activation, i, h, b, t)).create_infer_request()
        feed = [inputs(b, t, i).swapaxes(0, 1).copy()]
        return lambda: request.infer(feed, share_inputs=True, share_outputs=True)[0], 1

    def step(self, cell, activation, i, h, b, t, outputs):
        """Two requests take turns, as ONNX Runtime's bindings."""
        import openvino

        model = self.model(self.onnx(cell, activation, i, h, 1, 1, states=True))
        x, sides = openvino.Tensor(inputs(1, 1, i)), []
        for _ in range(2):
            sides.append([openvino.Tensor(np.zeros((1, 1, h), "f4")) for _ in model.outputs])
        requests = [model.create_infer_request() for _ in range(2)]
        for request, before, after in zip(requests, sides, reversed(sides), strict=True):
            for k, tensor in enumerate([x, *before]):
                request.set_input_tensor(k, tensor)
            for k, tensor in enumerate(after):
                request.set_output_tensor(k, tensor)

        def call():
            for _ in range(STEPS // 2):
                requests[0].infer(share_outputs=True)
                requests[1].infer(share_outputs=True)
            return sides[0][0].data

        return call, STEPS


PEERS = {
    "seqcore": Seqcore,
    "seqcore bfloat16": SeqcoreBfloat16,
    "seqcore int8": SeqcoreInt8,
    "Keras/TF": KerasTensorFlow,
    "Keras/torch": KerasTorch,
    "TensorFlow": TensorFlow,
    "torch": Torch,
    "JAX": Jax,
    "ONNX Runtime": OnnxRuntime,
    "OpenVINO": OpenVino,
}
