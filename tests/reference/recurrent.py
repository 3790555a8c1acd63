"""SimpleRNN, LSTM, GRU: one step forward and backward, and the scan over time with Keras's masks.

Gate order in memory is Keras's: i f c o, and z r h. `mx` (1 or G, B, I) and `mh` (G, B, H) are dropout multipliers for
the inputs and for the previous state inside the products only; 1.0 where there are none.
"""

import numpy as np

from .activations import activate, activate_backward

GATES = {"SimpleRNN": 1, "LSTM": 4, "GRU": 3}
STATES = {"SimpleRNN": 1, "LSTM": 2, "GRU": 1}


class Cell:
    """step: (x, [h, c]) -> new states and a cache. step_backward: gradients of states and x; weights add up in g."""

    output = 0  # which of the states is the output

    def __init__(self, config, w):
        self.config, self.w = config, w
        self.g = {name: np.zeros_like(value) for name, value in w.items()}
        self.units = config["units"]
        self.phi = config.get("activation", "tanh")
        self.sigma = config.get("recurrent_activation", "sigmoid")

    def zero_states(self, batch):
        return [np.zeros((batch, self.units)) for _ in range(STATES[self.config["class_name"]])]

    def multipliers(self, noise):
        gates = GATES[self.config["class_name"]]
        noise = noise or {}
        mx = noise.get("input", np.ones((1, 1, 1)))
        return np.broadcast_to(mx, (gates, *mx.shape[1:])), noise.get("recurrent", np.ones((gates, 1, 1)))

    def cols(self, gate):
        return slice(gate * self.units, (gate + 1) * self.units)

    def product(self, name, a, gate):
        return a @ self.w[name][:, self.cols(gate)]

    def bias(self, gate, row=None):
        if "bias" not in self.w:
            return 0.0
        bias = self.w["bias"] if row is None else self.w["bias"][row]
        return bias[self.cols(gate)]

    def product_backward(self, name, a, gate, dz):
        """Adds to the weight's gradient and returns dL/da."""
        self.g[name][:, self.cols(gate)] += a.T @ dz
        return dz @ self.w[name][:, self.cols(gate)].T

    def bias_backward(self, gate, dz, row=None):
        if "bias" in self.g:
            bias = self.g["bias"] if row is None else self.g["bias"][row]
            bias[self.cols(gate)] += dz.sum(0)


class SimpleRNNCell(Cell):
    def step(self, x, states, mx, mh):
        (h,) = states
        z = self.product("kernel", x * mx[0], 0) + self.bias(0) + self.product("recurrent_kernel", h * mh[0], 0)
        return [activate(self.phi, z)], (x, h, z, mx, mh)

    def step_backward(self, d_states, cache):
        x, h, z, mx, mh = cache
        dz = activate_backward(self.phi, z, d_states[0])
        self.bias_backward(0, dz)
        dx = self.product_backward("kernel", x * mx[0], 0, dz) * mx[0]
        return dx, [self.product_backward("recurrent_kernel", h * mh[0], 0, dz) * mh[0]]


class LSTMCell(Cell):
    def step(self, x, states, mx, mh):
        h, c = states
        z = [
            self.product("kernel", x * mx[g], g) + self.bias(g) + self.product("recurrent_kernel", h * mh[g], g)
            for g in range(4)
        ]
        names = (self.sigma, self.sigma, self.phi, self.sigma)
        i, f, g, o = (activate(name, value) for name, value in zip(names, z))
        c_new = f * c + i * g
        return [o * activate(self.phi, c_new), c_new], (x, h, c, z, (i, f, g, o), c_new, mx, mh)

    def step_backward(self, d_states, cache):
        x, h, c, z, (i, f, g, o), c_new, mx, mh = cache
        dh, dc = d_states
        dc = dc + activate_backward(self.phi, c_new, dh * o)
        names = (self.sigma, self.sigma, self.phi, self.sigma)
        upstream = (dc * g, dc * c, dc * i, dh * activate(self.phi, c_new))
        dx, dh_prev = 0.0, 0.0
        for gate in range(4):
            dz = activate_backward(names[gate], z[gate], upstream[gate])
            self.bias_backward(gate, dz)
            dx = dx + self.product_backward("kernel", x * mx[gate], gate, dz) * mx[gate]
            dh_prev = dh_prev + self.product_backward("recurrent_kernel", h * mh[gate], gate, dz) * mh[gate]
        return dx, [dh_prev, dc * f]


class GRUCell(Cell):
    def step(self, x, states, mx, mh):
        (h,) = states
        after = self.config.get("reset_after", True)
        rows = (0, 1) if after else (None, None)
        zx = [self.product("kernel", x * mx[g], g) + self.bias(g, rows[0]) for g in range(3)]
        zr = [self.product("recurrent_kernel", h * mh[g], g) + (self.bias(g, 1) if after else 0.0) for g in range(2)]
        pre_z, pre_r = zx[0] + zr[0], zx[1] + zr[1]
        z, r = activate(self.sigma, pre_z), activate(self.sigma, pre_r)
        if after:
            rec = self.product("recurrent_kernel", h * mh[2], 2) + self.bias(2, 1)
            pre_h = zx[2] + r * rec
        else:
            rec = r * (h * mh[2])
            pre_h = zx[2] + self.product("recurrent_kernel", rec, 2)
        hh = activate(self.phi, pre_h)
        return [z * h + (1.0 - z) * hh], (x, h, pre_z, pre_r, pre_h, z, r, hh, rec, mx, mh)

    def step_backward(self, d_states, cache):
        x, h, pre_z, pre_r, pre_h, z, r, hh, rec, mx, mh = cache
        (dh,) = d_states
        after = self.config.get("reset_after", True)
        d_pre_h = activate_backward(self.phi, pre_h, dh * (1.0 - z))
        if after:
            d_rec = d_pre_h * r
            dr = d_pre_h * rec
            self.bias_backward(2, d_rec, 1)
            dh_prev = self.product_backward("recurrent_kernel", h * mh[2], 2, d_rec) * mh[2]
        else:
            d_rh = self.product_backward("recurrent_kernel", rec, 2, d_pre_h)
            dr = d_rh * h * mh[2]
            dh_prev = d_rh * r * mh[2]
        d_pre = (
            activate_backward(self.sigma, pre_z, dh * (h - hh)),
            activate_backward(self.sigma, pre_r, dr),
            d_pre_h,
        )
        dh_prev = dh_prev + dh * z
        dx = 0.0
        for gate in range(3):
            self.bias_backward(gate, d_pre[gate], 0 if after else None)
            dx = dx + self.product_backward("kernel", x * mx[gate], gate, d_pre[gate]) * mx[gate]
            if gate < 2:
                if after:
                    self.bias_backward(gate, d_pre[gate], 1)
                h_gate = self.product_backward("recurrent_kernel", h * mh[gate], gate, d_pre[gate])
                dh_prev = dh_prev + h_gate * mh[gate]
        return dx, [dh_prev]


CELLS = {"SimpleRNN": SimpleRNNCell, "LSTM": LSTMCell, "GRU": GRUCell}


class Stack:
    """Cells as one: within a step each reads the output of the one below. `noise` is a list, an entry for each cell."""

    def __init__(self, cells):
        self.cells = cells
        counts = [STATES[cell.config["class_name"]] for cell in cells]
        self.ends = np.cumsum(counts).tolist()
        self.output = self.ends[-1] - counts[-1]

    def parts(self, states):
        return [states[begin:end] for begin, end in zip([0, *self.ends], self.ends)]

    def zero_states(self, batch):
        return [state for cell in self.cells for state in cell.zero_states(batch)]

    def multipliers(self, noise):
        noise = noise or [None] * len(self.cells)
        return ([cell.multipliers(n) for cell, n in zip(self.cells, noise, strict=True)],)

    def step(self, x, states, multipliers):
        new, caches = [], []
        for cell, own, m in zip(self.cells, self.parts(states), multipliers):
            own, cache = cell.step(x, own, *m)
            x = own[0]
            new += own
            caches.append(cache)
        return new, caches

    def step_backward(self, d_states, caches):
        previous, dx = [], 0.0
        for cell, own, cache in zip(self.cells[::-1], self.parts(d_states)[::-1], caches[::-1]):
            dx, d_prev = cell.step_backward([own[0] + dx, *own[1:]], cache)
            previous = d_prev + previous
        return dx, previous


def scan(cell, x, states, mask, noise, go_backwards, zero_output_for_mask):
    """Outputs (B, T, H) in processing order, final states, and a cache. `cell`: a Cell or a Stack.

    A masked step keeps the states, a Stack's all, and repeats the last output, which is h (before any valid step: the
    initial h); what stands in x there is not read.
    """
    multipliers = cell.multipliers(noise)
    steps = range(x.shape[1])[:: -1 if go_backwards else 1]
    outputs, caches = [], []
    for t in steps:
        valid = np.ones((len(x), 1), bool) if mask is None else mask[:, t, None]
        new, cache = cell.step(np.where(valid, x[:, t], 0.0), states, *multipliers)
        states = [np.where(valid, n, s) for n, s in zip(new, states)]
        output = states[cell.output]
        outputs.append(np.where(valid, output, 0.0) if zero_output_for_mask else output)
        caches.append((t, valid, cache))
    return np.stack(outputs, 1), states, (caches, zero_output_for_mask, x.shape)


def scan_backward(cell, dy, cache):
    """dL/dx from dy (B, T, H) in processing order."""
    caches, zero_output_for_mask, shape = cache
    dx = np.zeros(shape)
    d_states = cell.zero_states(len(dy))
    for k in reversed(range(len(caches))):
        t, valid, step = caches[k]
        upstream = np.where(valid, dy[:, k], 0.0) if zero_output_for_mask else dy[:, k]
        d_states[cell.output] = d_states[cell.output] + upstream
        dxt, d_prev = cell.step_backward([np.where(valid, d, 0.0) for d in d_states], step)
        dx[:, t] = dxt
        d_states = [np.where(valid, p, d) for p, d in zip(d_prev, d_states)]
    return dx
