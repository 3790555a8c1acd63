"""Trains a small forecaster on a noisy sine, saves it, writes rows for the service, and what Python answers to them.

python train.py FOLDER    # model.safetensors, rows.txt, expected.txt
"""

import sys
from pathlib import Path

import numpy as np

from seqcore import Sequential, layers
from seqcore.utils import set_random_seed


def main(folder: Path) -> None:
    set_random_seed(1)
    rng = np.random.default_rng(1)
    time = np.arange(4096) / 10
    signal = np.stack([np.sin(time), np.cos(time / 3), np.sin(time) * np.cos(time / 5)], -1)
    signal = (signal + rng.normal(0, 0.05, signal.shape)).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(signal, 33, axis=0)[::8].transpose(0, 2, 1)

    model = Sequential(
        [layers.Input((None, 3)), layers.LSTM(64, return_sequences=True), layers.Dense(3, name="next_row")]
    )
    model.compile("adam", "mse")
    model.fit(windows[:, :-1], windows[:, 1:], epochs=5, batch_size=32, verbose=0)

    folder.mkdir(parents=True, exist_ok=True)
    model.save(folder / "model.safetensors")
    rows = signal[:2000]
    np.savetxt(folder / "rows.txt", rows, fmt="%.9g")
    answers = model.stream().run(rows)
    text = "\n".join(" ".join(float(v).hex() for v in row) for row in answers)
    (folder / "expected.txt").write_text(text + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
