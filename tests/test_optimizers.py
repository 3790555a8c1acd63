"""Optimizers: ten steps loss by loss beside the reference, with every option; schedules; slots; frozen weights."""

import copy
import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import seqcore
from reference.optimizers import OPTIMIZERS
from seqcore import _core, layers, optimizers
from support import Case, assert_close, chain, compiling, nudge, random_case, spec

OPTIONS = [
    spec("Adam"),
    spec("Adam", learning_rate=0.05, beta_1=0.8, beta_2=0.9, epsilon=1e-3),
    spec("Adam", learning_rate=0.02, amsgrad=True, beta_2=0.5),
    spec("Adam", learning_rate=0.02, weight_decay=0.1),
    spec("Adam", learning_rate=0.02, clipnorm=0.05),
    spec("Adam", learning_rate=0.02, clipvalue=0.01),
    spec("Adam", learning_rate=0.02, global_clipnorm=0.05),
    spec("Adam", learning_rate=0.02, use_ema=True, ema_momentum=0.7),
    spec("Adam", learning_rate=0.02, use_ema=True, ema_momentum=0.7, ema_overwrite_frequency=3),
    spec("Adam", learning_rate=0.02, gradient_accumulation_steps=3),
    spec("RMSprop"),
    spec("RMSprop", learning_rate=0.02, rho=0.7, epsilon=1e-3),
    spec("RMSprop", learning_rate=0.01, momentum=0.8, epsilon=1e-2, weight_decay=0.1),
    spec("RMSprop", learning_rate=0.01, centered=True, epsilon=1e-2, clipvalue=0.01),
    spec("RMSprop", learning_rate=0.01, centered=True, momentum=0.5, epsilon=1e-2, gradient_accumulation_steps=2),
    spec("Nadam"),
    spec("Nadam", learning_rate=0.02, beta_1=0.8, beta_2=0.9, epsilon=1e-3, weight_decay=0.1),
    spec("Nadam", learning_rate=0.02, epsilon=1e-3, gradient_accumulation_steps=3, clipnorm=0.05),
    spec("Adamax"),
    spec("Adamax", learning_rate=0.02, beta_1=0.7, beta_2=0.6, epsilon=1e-3, weight_decay=0.1),
    spec("Adagrad"),
    spec("Adagrad", learning_rate=0.05, initial_accumulator_value=0.01, epsilon=1e-4, weight_decay=0.1),
    spec("Adagrad", learning_rate=0.05, use_ema=True, ema_momentum=0.7, gradient_accumulation_steps=2),
    spec("Adadelta"),
    spec("Adadelta", learning_rate=1.0, rho=0.7, epsilon=1e-4, weight_decay=0.01, global_clipnorm=0.05),
    spec("Ftrl"),
    spec("Ftrl", learning_rate=0.05, l1_regularization_strength=0.01, l2_regularization_strength=0.02, beta=0.1),
    spec("Ftrl", learning_rate=0.05, learning_rate_power=-0.7, l2_shrinkage_regularization_strength=0.1),
    spec("Ftrl", learning_rate=0.05, learning_rate_power=0, initial_accumulator_value=0.0, weight_decay=0.1),
    spec("Ftrl", learning_rate=0.05, use_ema=True, gradient_accumulation_steps=2, clipnorm=0.05),
    spec("Lion"),
    spec("Lion", learning_rate=0.01, beta_1=0.6, beta_2=0.7, weight_decay=0.1, clipvalue=0.01),
    spec("SGD"),
    spec("SGD", learning_rate=0.1, momentum=0.9),
    spec("SGD", learning_rate=0.1, momentum=0.9, nesterov=True),
    spec("SGD", learning_rate=0.1, weight_decay=0.1, global_clipnorm=0.1),
    spec("SGD", learning_rate=0.1, gradient_accumulation_steps=2, momentum=0.5, clipnorm=0.1),
]


def ten_steps(case, optimizer, trainable=None, steps=10):
    """Trains engine and reference side by side; checks each loss and the last weights."""
    model = _core.Model(json.dumps(case.description), 0)
    for i, w in enumerate(case.weights):
        model.set_weight(i, w)
    config = compiling(case.loss, optimizer, **({} if trainable is None else {"trainable": trainable}))
    model.compile(config)
    exact, near = case.reference(), case.reference(nudge(case.weights))
    for reference in (exact, near):
        reference.compile(json.loads(config))
    for step in range(steps):
        expected, nearby = (r.train_step(case.x, case.y, case.sample_weight) for r in (exact, near))
        value = model.train_on_batch(case.x, case.y, case.sample_weight, None)
        assert_close(value, expected, nearby, rtol=3e-5, what=f"loss of step {step}")
        assert model.iterations == exact.optimizer.iterations
    for i, (w, v) in enumerate(zip(exact.get_weights(), near.get_weights(), strict=True)):
        assert_close(model.get_weight(i), w, v, rtol=1e-4, what=f"weight {i} after {steps} steps")
    return model, exact


def plain_case():
    items = [
        spec(
            "LSTM", units=6, kernel_constraint=spec("MaxNorm", max_value=0.8), recurrent_regularizer=spec("L2", l2=0.01)
        ),
        spec(
            "Dense", units=3, activation="softmax", kernel_constraint=spec("NonNeg"), bias_constraint=spec("UnitNorm")
        ),
    ]
    return Case(chain((None, 4, 5), *items), spec("SparseCategoricalCrossentropy"), 8, seed=3)


@pytest.mark.parametrize("optimizer", OPTIONS, ids=json.dumps)
def test_ten_steps(optimizer):
    model, reference = ten_steps(plain_case(), optimizer)
    if optimizer["config"].get("use_ema"):
        model.finalize_ema()
        for i, average in enumerate(reference.optimizer.average):
            assert_close(model.get_weight(i), average, rtol=1e-4)


@given(st.data())
def test_ten_steps_of_random_models(data):
    pick = lambda options: data.draw(st.sampled_from(options))  # noqa: E731
    options = [
        spec("Adam", epsilon=1e-2), spec("SGD", momentum=0.9), spec("RMSprop", epsilon=1e-2, centered=True),
        spec("Nadam", epsilon=1e-2), spec("Adamax", epsilon=1e-2), spec("Adagrad"), spec("Adadelta", epsilon=1e-3),
    ]  # fmt: skip
    ten_steps(random_case(pick), pick(options))


def test_frozen_weights_stay():
    case = plain_case()
    model, _ = ten_steps(case, spec("Adam", learning_rate=0.1), trainable=[False, True, True, False, True])
    still = [np.array_equal(model.get_weight(i), w) for i, w in enumerate(case.weights)]
    assert still == [True, False, False, True, False]


def test_non_finite_gradient_skips_the_update():
    case = plain_case()
    model, _ = ten_steps(case, spec("Adam"), steps=2)
    before = [model.get_weight(i) for i in range(5)]
    bad = case.x.copy()
    bad[0, 0, 0] = np.inf
    loss = model.train_on_batch(bad * np.float32(1e30), case.y, None, None)
    after = [model.get_weight(i) for i in range(5)]
    if not np.isfinite(loss):
        assert model.skipped_steps == 1
        assert all(np.array_equal(a, b) for a, b in zip(before, after))
    bad[:] = np.nan
    loss = model.train_on_batch(bad, case.y, None, None)
    assert np.isnan(loss) and model.skipped_steps >= 1
    assert all(np.array_equal(a, model.get_weight(i)) for i, a in enumerate(after if np.isfinite(loss) else before))


@pytest.mark.parametrize(
    "optimizer",
    [
        spec("Adam", amsgrad=True, use_ema=True, gradient_accumulation_steps=2),
        *(spec(name) for name in ("Nadam", "Adamax", "Adagrad", "Adadelta", "Ftrl")),
    ],
    ids=json.dumps,
)
def test_slots_round_trip_and_resume(optimizer):
    case = plain_case()
    model, _ = ten_steps(case, optimizer, steps=3)
    other = _core.Model(json.dumps(case.description), 0)
    other.compile(compiling(case.loss, optimizer))
    for i in range(5):
        other.set_weight(i, model.get_weight(i))
    other.set_optimizer_variables(model.optimizer_variables())
    other.iterations, other.accumulated = model.iterations, model.accumulated
    for _ in range(4):
        assert model.train_on_batch(case.x, case.y, None, None) == other.train_on_batch(case.x, case.y, None, None)
    assert all(np.array_equal(model.get_weight(i), other.get_weight(i)) for i in range(5))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (lambda s: s.ExponentialDecay(0.1, 10, 0.5), lambda t: 0.1 * 0.5 ** (t / 10)),
        (lambda s: s.ExponentialDecay(0.1, 10, 0.5, staircase=True), lambda t: 0.1 * 0.5 ** (t // 10)),
        (
            lambda s: s.PiecewiseConstantDecay([5, 20], [1.0, 0.5, 0.1]),
            lambda t: 1.0 if t <= 5 else 0.5 if t <= 20 else 0.1,
        ),
        (
            lambda s: s.CosineDecay(0.1, 20, alpha=0.1),
            lambda t: 0.1 * (0.9 * 0.5 * (1 + np.cos(np.pi * min(t, 20) / 20)) + 0.1),
        ),
    ],
)
def test_schedules(schedule, expected):
    s = schedule(optimizers.schedules)
    for t in (0, 1, 5, 6, 10, 19, 20, 21, 100):
        assert float(s(t)) == pytest.approx(expected(t), rel=1e-5)
    again = type(s).from_config(s.get_config())
    assert float(again(7)) == float(s(7))
    # In training: SGD steps of a loss with constant gradient have the schedule's lengths.
    model = seqcore.Sequential([layers.Input((1,)), layers.Dense(1, use_bias=False)])
    model.compile(optimizers.SGD(schedule(optimizers.schedules)), "mae")
    x, y = np.ones((1, 1), np.float32), np.full((1, 1), 1e6, np.float32)
    w = [float(model.get_weights()[0][0, 0])]
    for _ in range(12):
        model.train_on_batch(x, y)
        w.append(float(model.get_weights()[0][0, 0]))
    assert np.diff(w) == pytest.approx([expected(t) for t in range(12)], rel=1e-3)


@pytest.mark.parametrize(
    "schedule",
    [
        lambda s: s.ExponentialDecay(0.1, 3, 0.5),
        lambda s: s.InverseTimeDecay(0.1, 3, 0.5, staircase=True),
        lambda s: s.PiecewiseConstantDecay([1, 3], [1.0, 0.5, 0.1]),
        lambda s: s.PolynomialDecay(0.1, 3, 0.01, power=2.0, cycle=True),
        lambda s: s.CosineDecay(0.1, 3, warmup_target=0.3, warmup_steps=2),
        lambda s: s.CosineDecayRestarts(0.1, 3),
    ],
)
def test_schedules_of_arrays_of_steps(schedule):
    s, steps = schedule(optimizers.schedules), np.arange(8.0).reshape(2, 4)
    curve = s(steps)
    assert curve.shape == (2, 4) and curve.ravel().tolist() == [s(t) for t in range(8)]
    assert type(s(3)) is type(s(np.float32(3))) is type(s(np.array(3))) is float
    with pytest.raises(TypeError, match="`step`"):
        s("soon")


def test_learning_rate_can_be_read_and_set():
    model = seqcore.Sequential([layers.Input((2,)), layers.Dense(1)])
    model.compile(optimizers.Adam(0.25), "mse")
    assert float(model.optimizer.learning_rate) == 0.25
    model.optimizer.learning_rate = 0.0
    before = model.get_weights()
    model.train_on_batch(np.ones((3, 2)), np.ones((3, 1)))
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights()))
    model.optimizer.learning_rate = 0.5
    model.train_on_batch(np.ones((3, 2)), np.ones((3, 1)))
    assert not np.array_equal(before[0], model.get_weights()[0])


@pytest.mark.parametrize("arguments", [{"clipnorm": 1.0, "clipvalue": 1.0}, {"learning_rate": "fast"}, {"beta_1": 2.0}])
def test_bad_arguments(arguments):
    with pytest.raises((ValueError, TypeError), match="|".join(arguments)):
        optimizers.Adam(**arguments)


def test_learning_rate_is_a_variable():
    optimizer = optimizers.Adam(0.1)
    optimizer.learning_rate.assign(0.25)
    assert float(optimizer.learning_rate) == 0.25


def constant_gradient(optimizer, steps):
    """How far each of `steps` batches moves a weight whose gradient is -1."""
    model = seqcore.Sequential([layers.Input((1,)), layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(optimizer, "mae")
    w = [0.0]
    for _ in range(steps):
        model.train_on_batch(np.ones((1, 1)), np.full((1, 1), 1e6))
        w.append(float(model.get_weights()[0][0, 0]))
    return np.diff(w), model


def test_a_schedule_counts_batches_also_where_gradients_accumulate():
    schedule = optimizers.schedules.ExponentialDecay(1.0, 1, 0.5)
    moves, model = constant_gradient(optimizers.SGD(schedule, gradient_accumulation_steps=2), 5)
    assert moves == pytest.approx([0, 0.5**1, 0, 0.5**3, 0])
    assert float(model.optimizer.learning_rate) == 0.5**5 and int(model.optimizer.iterations) == 2


def test_a_function_gives_the_learning_rate_once_a_batch():
    rates = iter([0.5, 0.25, np.float32(0.125), -1.0])
    optimizer = optimizers.SGD(lambda: next(rates))
    moves, model = constant_gradient(optimizer, 3)
    assert moves == pytest.approx([0.5, 0.25, 0.125])
    before = model.get_weights()[0]
    with pytest.raises(ValueError, match=r"learning_rate.*>= 0.*-1"):
        model.train_on_batch(np.ones((1, 1)), np.zeros((1, 1)))
    assert model.get_weights()[0] == before
    with pytest.raises(TypeError, match="a function"):
        optimizer.learning_rate = 0.1
    optimizer.learning_rate = lambda: 0.75
    assert float(optimizer.learning_rate) == 0.75
    assert optimizers.SGD.from_config(optimizer.get_config()).get_config()["learning_rate"] == 0.75


def test_a_schedule_may_take_a_number_s_place():
    _, model = constant_gradient(optimizers.SGD(1.0), 2)
    model.optimizer.learning_rate = optimizers.schedules.ExponentialDecay(1.0, 1, 0.5)
    before = float(model.get_weights()[0][0, 0])
    model.train_on_batch(np.ones((1, 1)), np.full((1, 1), 1e6))
    assert float(model.get_weights()[0][0, 0]) - before == pytest.approx(0.25)
    with pytest.raises(TypeError, match="ExponentialDecay"):
        model.optimizer.learning_rate = 0.5


def test_a_learning_rate_may_be_an_array_of_no_axes():
    optimizer = optimizers.SGD(np.array(0.25))
    optimizer.learning_rate = np.array(0.5)
    assert float(optimizer.learning_rate) == 0.5
    with pytest.raises(ValueError, match="learning_rate"):
        optimizer.learning_rate = np.array([0.5])


def test_schedules_take_steps_that_are_no_integers():
    s = optimizers.schedules
    assert s.ExponentialDecay(1.0, 2.5, 0.5)(5) == 0.25
    assert s.InverseTimeDecay(1.0, 0.5, 1.0)(1) == pytest.approx(1 / 3)
    assert s.PolynomialDecay(1.0, 2.5, 0.0)(1) == pytest.approx(0.6)
    assert s.CosineDecay(0.0, 7.5, warmup_target=1.0, warmup_steps=2.5)(2) == pytest.approx(0.8)
    assert s.CosineDecay(1.0, 12.5)(12.5) == pytest.approx(0)
    assert s.CosineDecayRestarts(1.0, 2.5)(2.5) == pytest.approx(1)
    for steps in (0, -1.5, "2", np.inf):
        with pytest.raises(ValueError, match="decay_steps"):
            s.ExponentialDecay(1.0, steps, 0.5)


def test_adamw_needs_a_weight_decay():
    with pytest.raises(ValueError, match="`weight_decay` of AdamW"):
        optimizers.AdamW(weight_decay=None)


def test_copies_of_an_optimizer_have_its_arguments():
    _, model = constant_gradient(optimizers.Adam(0.5, beta_1=0.5, clipnorm=2.0), 3)
    model.optimizer.learning_rate = 0.25
    for copied in (copy.deepcopy(model.optimizer), pickle.loads(pickle.dumps(model.optimizer))):
        assert copied.get_config() == model.optimizer.get_config() and float(copied.learning_rate) == 0.25
        assert int(copied.iterations) == 0 and int(model.optimizer.iterations) == 3
        copied.learning_rate = 1.0
        constant_gradient(copied, 1)
        assert float(model.optimizer.learning_rate) == 0.25
    rate = lambda: 0.5  # noqa: E731
    assert float(copy.deepcopy(optimizers.SGD(rate)).learning_rate) == 0.5
    assert float(copy.deepcopy(optimizers.SGD(lr=0.125)).learning_rate) == 0.125


def test_the_order_of_variables():
    """Keras's: the averages, then group after group, in a group weight by weight."""
    for optimizer, expected in [
        (optimizers.Adam(amsgrad=True, use_ema=True),
         "average/0 average/1 momentum/0 velocity/0 momentum/1 velocity/1 velocity_hat/0 velocity_hat/1"),
        (optimizers.RMSprop(momentum=0.1, centered=True),
         "velocity/0 velocity/1 momentum/0 momentum/1 average_gradient/0 average_gradient/1"),
        (optimizers.SGD(momentum=0.1, gradient_accumulation_steps=2),
         "gradient_accumulator/0 gradient_accumulator/1 momentum/0 momentum/1"),
        (optimizers.AdamW(), "momentum/0 velocity/0 momentum/1 velocity/1"),
        (optimizers.Nadam(), "momentum/0 velocity/0 momentum/1 velocity/1 u_product"),
        (optimizers.Adamax(), "momentum/0 norm/0 momentum/1 norm/1"),
        (optimizers.Adagrad(), "accumulator/0 accumulator/1"),
        (optimizers.Adadelta(),
         "accumulated_grad/0 accumulated_delta_var/0 accumulated_grad/1 accumulated_delta_var/1"),
        (optimizers.Ftrl(), "accumulator/0 linear/0 accumulator/1 linear/1"),
        (optimizers.Lion(), "momentum/0 momentum/1"),
    ]:  # fmt: skip
        variables = small(optimizer).optimizer.variables
        assert [v.path for v in variables] == ["iteration", "learning_rate", *expected.split()]
        shapes = [v.shape for v in variables if v.path.endswith(("/0", "/1"))]
        assert shapes == [(2, 1) if n.endswith("0") else (1,) for n in expected.split() if n != "u_product"]
        if type(optimizer) is optimizers.Adagrad:
            assert np.all(np.asarray(variables[2]) == np.float32(0.1))


def test_lion_steps_by_the_sign():
    moves, _ = constant_gradient(optimizers.Lion(0.25), 3)
    assert moves.tolist() == [0.25, 0.25, 0.25]
    model = small(optimizers.Lion(0.25, weight_decay=0.5))
    before = model.get_weights()
    model.train_on_batch(np.zeros((4, 2)), np.zeros(4))  # no gradient: the decay alone
    np.testing.assert_allclose(model.get_weights()[0], before[0] * (1 - 0.125), rtol=1e-6)


def test_ftrl():
    """A penalty leaves weights at 0; a rate of 0 leaves them as they are."""
    model = small(optimizers.Ftrl(0.5, l1_regularization_strength=1e3))
    model.train_on_batch(np.ones((4, 2)), np.ones(4))
    assert all((w == 0).all() for w in model.get_weights())
    model = small(optimizers.Ftrl(0.0))
    before = model.get_weights()
    model.train_on_batch(np.ones((4, 2)), np.ones(4))
    assert all(map(np.array_equal, before, model.get_weights()))


@pytest.mark.parametrize("name", ["Nadam", "Adamax", "Adagrad", "Adadelta", "Ftrl", "Lion"])
def test_files_hold_all_of_an_optimizer(name, tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.random((8, 2)), rng.random(8)
    model = small(getattr(optimizers, name)(0.01))
    model.fit(x, y, batch_size=2, shuffle=False, verbose=0)
    model.save(tmp_path / "m.safetensors")
    again = seqcore.models.load_model(tmp_path / "m.safetensors")
    copied = copy.deepcopy(model)
    assert type(again.optimizer) is type(model.optimizer)
    for _ in range(4):
        losses = [m.train_on_batch(x, y) for m in (model, again, copied)]
        assert losses[0] == losses[1] == losses[2]
    for a, b in zip(model.optimizer.variables, again.optimizer.variables, strict=True):
        assert a.path == b.path and np.array_equal(a, b)
    fresh = getattr(optimizers, name)
    assert fresh.from_config(fresh(0.5).get_config()).get_config() == fresh(0.5).get_config()
    assert type(optimizers.get(name.lower())) is type(optimizers.get(name)) is fresh


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("Nadam", {"beta_1": -0.1}), ("Adamax", {"epsilon": -1}), ("Adagrad", {"initial_accumulator_value": -0.1}),
        ("Adadelta", {"rho": 1.5}), ("Lion", {"beta_2": "x"}), ("Lion", {"epsilon": 1e-7}),
        ("Adagrad", {"momentum": 0.9}), ("Ftrl", {"learning_rate_power": 0.5}), ("Ftrl", {"beta": -1}),
        ("Ftrl", {"l1_regularization_strength": -1}), ("Ftrl", {"epsilon": 1e-7}),
    ],
)  # fmt: skip
def test_bad_arguments_of_the_others(name, arguments):
    with pytest.raises(ValueError, match=f"{name}.*{next(iter(arguments))}|{next(iter(arguments))}.*{name}"):
        getattr(optimizers, name)(**arguments)


def test_a_schedule_leaves_no_learning_rate_among_the_variables():
    counts = []
    for rate in (0.1, optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)):
        model = seqcore.Sequential([seqcore.Input((2,)), layers.Dense(3)])
        model.compile(optimizers.Adam(rate), "mse")
        model.fit(np.ones((8, 2)), np.ones((8, 3)), batch_size=2, verbose=0)
        names = [v.name for v in model.optimizer.variables]
        counts.append(model.count_optimizer_params())
        assert names[0] == "iteration" and model.optimizer.variables[0] == 4
        assert ("learning_rate" in names) == (rate == 0.1)
    assert counts == [2 + 2 * 9, 1 + 2 * 9]


def test_what_get_and_schedules_take():
    assert optimizers.get(None) is None
    for name, kind in [("sgd", optimizers.SGD), ("adamw", optimizers.AdamW), ("Adam", optimizers.Adam)]:
        got = optimizers.get({"class_name": name, "config": {"weight_decay": 0.05}})
        assert type(got) is kind and got.weight_decay == 0.05
    with pytest.raises(ValueError, match="`optimizer`: expected a name or an optimizer, got None"):
        seqcore.Sequential([layers.Dense(1)]).compile(None, "mse")
    optimizer = optimizers.SGD(0.5)
    optimizer.learning_rate = optimizers.schedules.PolynomialDecay(optimizer.learning_rate, 4, 0.1)
    assert float(optimizer.learning_rate) == 0.5 and optimizer.schedule(4) == pytest.approx(0.1)
    assert optimizers.schedules.CosineDecay(np.array(0.25), 2).get_config()["initial_learning_rate"] == 0.25


def small(optimizer):
    model = seqcore.Sequential([layers.Input((2,)), layers.Dense(1)])
    model.compile(optimizer, "mse")
    return model


@pytest.mark.parametrize(
    "optimizer", [optimizers.Adam(0.05), optimizers.SGD(0.1, momentum=0.9), optimizers.RMSprop(0.05)], ids=repr
)
def test_compiling_again_with_the_same_optimizer_goes_on(optimizer):
    x, y = np.random.default_rng(0).random((8, 2)), np.ones(8)
    again, straight = small(optimizer), small(copy.deepcopy(optimizer))
    straight.set_weights(again.get_weights())
    for model in (again, straight):
        model.fit(x, y, epochs=2, batch_size=4, shuffle=False, verbose=0)
    again.compile(again.optimizer, "mse", metrics=["mae"])
    assert int(again.optimizer.iterations) == 4
    for model in (again, straight):
        model.fit(x, y, epochs=2, batch_size=4, shuffle=False, verbose=0)
    for a, b in zip(again.get_weights(), straight.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    again.compile(copy.deepcopy(again.optimizer), "mse")
    assert int(again.optimizer.iterations) == 0


def test_one_optimizer_in_two_models():
    x, y = np.ones((4, 2)), np.ones(4)
    shared = optimizers.SGD(0.1)
    first, second = small(shared), small(shared)
    first.fit(x, y, verbose=0)
    before = first.get_weights()
    first.optimizer.learning_rate = 0.0
    first.fit(x, y, verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(before, first.get_weights(), strict=True))
    assert float(second.optimizer.learning_rate) == 0


class Halved(optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.5 / (1 + step)


def test_a_schedule_of_ones_own_in_files(tmp_path):
    """It trains; files hold the rate that it gives when they are written."""
    model = small(optimizers.Adam(Halved()))
    model.fit(np.ones((4, 2)), np.ones(4), batch_size=1, verbose=0)
    model.save(tmp_path / "model.safetensors")
    for again in (seqcore.models.load_model(tmp_path / "model.safetensors"), copy.deepcopy(model)):
        assert float(again.optimizer.learning_rate) == pytest.approx(0.1)
        assert int(again.optimizer.iterations) == 4


DECAYING = [("AdamW", {}), *((name, {"weight_decay": 0.1}) for name in (
    "SGD", "Adam", "RMSprop", "Nadam", "Adamax", "Adagrad", "Adadelta", "Lion"))]  # fmt: skip


def decaying(name="AdamW", arguments=None, how=None, **more):
    """A model and its optimizer, whose biases and gammas weight decay leaves alone unless `how` says otherwise."""
    model = seqcore.Sequential([layers.Input((4, 3)), layers.GRU(5), layers.LayerNormalization(), layers.Dense(2)])
    model.set_weights([np.full(w.shape, 0.5) for w in model.weights])
    optimizer = getattr(optimizers, name)(0.25, **(arguments or {}), **more)
    optimizer.exclude_from_weight_decay(**(how or {"var_names": ["bias", "^gamma$"]}))
    model.compile(optimizer, "mse")
    return model


@pytest.mark.parametrize(("name", "arguments"), DECAYING)
def test_weights_that_do_not_decay(name, arguments):
    """Each weight moves as with the decay or as without, as its name says."""
    x, y = np.random.default_rng(0).random((8, 4, 3)), np.random.default_rng(1).random((8, 2))
    made = []
    for how in ({"var_names": ["bias", "^gamma$"]}, {"var_names": []}, {"var_names": [""]}):
        model = decaying(name, arguments, how)
        model.train_on_batch(x, y)
        made.append(model.get_weights())
    names = [w.name for w in model.weights]
    assert names == ["kernel", "recurrent_kernel", "bias", "gamma", "beta", "kernel", "bias"]
    for weight, got, with_decay, without in zip(names, *made, strict=True):
        assert not np.array_equal(with_decay, without)
        np.testing.assert_array_equal(got, without if weight in ("bias", "gamma") else with_decay)
    if name == "Adam":
        without = decaying(name, {}, {})
        without.train_on_batch(x, y)
        assert all(np.array_equal(a, b) for a, b in zip(made[2], without.get_weights(), strict=True))


def test_weights_that_do_not_decay_one_by_one():
    model = seqcore.Sequential([layers.Input((2,)), layers.Dense(3), layers.Dense(1)])
    model.set_weights([np.ones(w.shape) for w in model.weights])
    optimizer = optimizers.SGD(0.5, weight_decay=0.5)
    model.compile(optimizer, "mse")
    optimizer.exclude_from_weight_decay(var_list=[model.layers[0].kernel], var_names=["b.as"])  # not too late yet
    before = model.get_weights()
    model.train_on_batch(np.zeros((4, 2)), np.full(4, 4.0))  # predicts as much: the decay alone
    assert [float(w.ravel()[0]) for w in model.get_weights()] == [1, 1, 0.75, 1]
    with pytest.raises(ValueError, match="before the first update, the optimizer has seen 1 batches"):
        optimizer.exclude_from_weight_decay(var_names=["kernel"])
    assert [w.shape for w in before] == [w.shape for w in model.get_weights()]
    clone = seqcore.models.clone_model(model)
    assert clone.optimizer.decays(clone.weights) == [True, False, True, False]  # names, no weights of another model


@pytest.mark.parametrize("how", [None, {"var_list": "kernels"}])
def test_files_know_which_weights_do_not_decay(how, tmp_path):
    x, y = np.random.default_rng(0).random((8, 4, 3)), np.ones((8, 2))
    model = decaying()
    if how:
        model.optimizer.exclude_from_weight_decay([layer.kernel for layer in model.layers if hasattr(layer, "kernel")])
    model.fit(x, y, epochs=2, batch_size=4, verbose=0)
    model.save(tmp_path / "m.safetensors")
    for again in (seqcore.models.load_model(tmp_path / "m.safetensors"), copy.deepcopy(model)):
        assert again.optimizer.decays(again.weights) == model.optimizer.decays(model.weights)
        assert not all(again.optimizer.decays(again.weights))
    again.fit(x, y, epochs=2, batch_size=4, verbose=0)
    model.fit(x, y, epochs=2, batch_size=4, verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), again.get_weights(), strict=True))
    with pytest.raises(ValueError, match=r"excluded from the optimizer's weight decay, .* no words"):
        model.save(tmp_path / "m.keras")
    model.save(tmp_path / "m.keras", include_optimizer=False)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"var_names": "bias"}, TypeError, "`var_names`: expected a list of strings, got 'bias'"),
        ({"var_names": [3]}, TypeError, "`var_names`: expected a list of strings, got 3"),
        ({"var_names": ["("]}, ValueError, r"`var_names`: '\(' is no regular expression"),
        ({"var_list": ["bias"]}, TypeError, "`var_list`: expected a list of weights, got 'bias'"),
    ],
)
def test_what_cannot_be_excluded(arguments, error, message):
    with pytest.raises(error, match=message):
        optimizers.AdamW().exclude_from_weight_decay(**arguments)


@pytest.mark.parametrize("optimizer", OPTIONS, ids=json.dumps)
def test_apply(optimizer):
    rng = np.random.default_rng(5)
    begin = [rng.standard_normal(shape) for shape in ((3, 4), (5,), ())]
    ours = optimizers.deserialize(json.loads(json.dumps(optimizer)))
    exact = OPTIMIZERS[optimizer["class_name"]](optimizer["config"])
    variables, weights = [seqcore.Variable(w) for w in begin], [np.float64(np.float32(w)) for w in begin]
    for _ in range(10):
        grads = [np.float32(rng.standard_normal(w.shape)) for w in weights]
        iterations = ours.apply_gradients(zip(grads, variables, strict=True))
        weights = exact.apply(weights, [np.float64(g) for g in grads])
    assert int(iterations) == int(ours.iterations) == exact.iterations
    for variable, weight in zip(variables, weights, strict=True):
        assert_close(variable.numpy(), weight, rtol=3e-5)


def test_apply_has_the_bits_of_training():
    _, model = constant_gradient(optimizers.Adam(0.1), 5)
    variable, optimizer = seqcore.Variable(np.zeros((1, 1))), optimizers.Adam(0.1)
    for _ in range(5):
        optimizer.apply([[[-1.0]]], [variable])
    assert np.array_equal(variable.numpy(), model.get_weights()[0])
    assert [v.name for v in optimizer.variables] == ["iteration", "learning_rate", "momentum/0", "velocity/0"]


def test_apply_constrains_and_leaves_what_has_no_gradient():
    one, two = seqcore.Variable([1.0, -1.0]), seqcore.Variable([3.0])
    one.constraint = seqcore.constraints.NonNeg()
    optimizer = optimizers.SGD(optimizers.schedules.PiecewiseConstantDecay([0], [1.0, 0.5]))
    optimizer.build([one, two])
    with pytest.warns(UserWarning, match="there is none for the variables"):
        optimizer.apply([[0.5, 0.5], None])
    assert one.numpy().tolist() == [0.5, 0.0] and two.numpy().tolist() == [3.0]
    with pytest.warns(RuntimeWarning, match="not finite"):
        optimizer.apply([[np.nan, 0.5], [1.0]])
    optimizer.apply([[0.5, 0.5], [1.0]])
    assert one.numpy().tolist() == [0.25, 0.0] and two.numpy().tolist() == [2.5]
    layer = layers.Dense(2)
    layer.build((None, 3))
    kernel = layer.kernel.numpy()
    optimizers.SGD(1.0).apply([np.ones((3, 2)), np.ones(2)], layer.trainable_weights)
    assert np.array_equal(layer.kernel.numpy(), kernel - 1) and layer.bias.numpy().tolist() == [-1, -1]


def test_what_cannot_be_applied():
    one, two = seqcore.Variable([1.0, 2.0]), seqcore.Variable([3.0])
    optimizer = optimizers.SGD(1.0)
    for grads, variables, error, message in [
        ([[1.0, 1.0]], [one, two], ValueError, "expected one for each of 2 variables, got 1"),
        ([None], [one], ValueError, "No gradients provided"),
        ([[1.0, 1.0]], [np.ones(2)], TypeError, "expected variables of float32"),
        ([[1]], [seqcore.Variable([1], dtype="int32")], TypeError, "expected variables of float32"),
        ([[1.0, 1.0]] * 2, [one, one], ValueError, "each once"),
    ]:
        with pytest.raises(error, match=message):
            optimizer.apply(grads, variables)
    optimizer.apply([[1.0, 1.0]], [one])
    with pytest.raises(ValueError, match="those of the first call"):
        optimizer.apply([[1.0]], [two])
    with pytest.raises(ValueError, match=r"expected shape \(2,\) for `variable`, got \(1,\)"):
        optimizer.apply([[1.0]], [one])
    assert one.numpy().tolist() == [0, 1] and two.numpy().tolist() == [3]
    model = small(optimizers.SGD())
    with pytest.raises(ValueError, match="belongs to a compiled model"):
        model.optimizer.apply([np.zeros(v.shape) for v in model.weights], model.weights)


@pytest.mark.parametrize(
    ("arguments", "value", "dtype"),
    [
        (([1.0, 2.0],), [1, 2], "float32"),
        ((3,), 3, "int32"),
        ((np.arange(2),), [0, 1], "int64"),
        (([True],), [True], "bool"),
        (("ones", (2,)), [1, 1], "float32"),
        ((lambda shape, dtype=None: np.full(shape, 2.5), (1, 1)), [[2.5]], "float32"),
        ((seqcore.initializers.Zeros(), (), "int32"), 0, "int32"),
    ],
)
def test_variables(arguments, value, dtype):
    variable = seqcore.Variable(*arguments, name="v", trainable=False)
    assert variable.numpy().tolist() == value and variable.dtype == dtype == str(variable.numpy().dtype)
    assert variable.name == "v" and not variable.trainable and variable.shape == np.shape(value)
    again = copy.deepcopy(variable)
    variable.assign(variable.numpy())
    if dtype != "bool":
        variable.assign_add(np.ones(variable.shape))
        assert np.array_equal(variable, np.add(value, 1)) and str(variable.numpy().dtype) == dtype
    assert again.numpy().tolist() == value and again.dtype == dtype


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("ones",), "`shape`"), (([1.0], (2,)), "`shape`"), (([1.0], None, "text"), "`dtype`"), (("x", (2,)), "unknown")],
)
def test_no_variables(arguments, message):
    with pytest.raises(ValueError, match=message):
        seqcore.Variable(*arguments)
