"""Makes model.safetensors for the service: from eight sensors' readings so far, their next ones. Takes seconds. A file
that is there already is not trained, only tried. Run: `python examples/http_service/train.py [FILE]`."""

import argparse
import os
import time

import numpy as np

from seqcore import layers, models, utils

SENSORS, STEPS = 8, 64


def readings(count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, STEPS + 1, SENSORS): four oscillations, of which each sensor sees its own mixture, with noise."""
    t = np.arange(STEPS + 1)[None, :, None]
    period = rng.uniform(8, 40, (count, 1, 4))
    sources = np.sin(2 * np.pi * (t / period + rng.random((count, 1, 4))))
    mixture = np.random.default_rng(1).normal(size=(4, SENSORS)) / 2
    return (sources @ mixture + 0.05 * rng.normal(size=(count, STEPS + 1, SENSORS))).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", default="model.safetensors")
    parser.add_argument("--epochs", type=int, default=10)
    args = parser.parse_args()

    utils.set_random_seed(1)
    rng = np.random.default_rng(0)
    train, held_out = readings(1000, rng), readings(200, rng)
    if os.path.exists(args.file):
        model = models.load_model(args.file)
    else:
        model = models.Sequential([
            layers.Input((None, SENSORS)),
            layers.LSTM(64, return_sequences=True),
            layers.Dense(SENSORS),
        ])
        model.compile("adam", "mse")
        start = time.perf_counter()
        model.fit(train[:, :-1], train[:, 1:], batch_size=32, epochs=args.epochs, verbose=2)
        model.save(args.file)
        print(f"trained for {time.perf_counter() - start:.1f} s, saved to {args.file}")
    if model.input_shape[2:] == (SENSORS,) and model.output_shape[2:] == (SENSORS,):
        error = np.square(model.predict(held_out[:, :-1], verbose=0) - held_out[:, 1:]).mean()
        same = np.square(held_out[:, 1:] - held_out[:, :-1]).mean()
        print(f"held-out mean squared error {error:.4f}; of the guess that nothing changes: {same:.4f}")


if __name__ == "__main__":
    main()
