"""A character-level language model of the Python documentation that every Python carries.

Trains an LSTM for about a minute on two cores writing some text after each epoch; saves the model, loads it, continues
the same text, and then goes on training from the file. Run: ``python examples/char_lm.py --help``.
"""

import argparse
import math
import time
from pydoc_data.topics import topics

import numpy as np

from seqcore import callbacks, layers, models, optimizers, utils

STEPS = 64  # characters in a training window


def network(vocabulary, stateful=False):
    """The model; a stateful one reads a text piece by piece, one text at a time."""
    return models.Sequential([
        layers.Input((None,), batch_size=1 if stateful else None, dtype="int32"),
        layers.Embedding(vocabulary, 32),
        layers.LSTM(256, return_sequences=True, stateful=stateful),
        layers.Dense(vocabulary, activation="softmax"),
    ])


def windows(ids):
    """Cuts a text into inputs and targets, each (windows, STEPS): the target is the next character."""
    n = (len(ids) - 1) // STEPS * STEPS
    return ids[:n].reshape(-1, STEPS), ids[1 : n + 1].reshape(-1, STEPS)


class Writer(callbacks.Callback):
    """Writes text with a model; as a callback, a sample and the held-out perplexity after each epoch."""

    def __init__(self, alphabet, prompt, temperature, length=240):
        super().__init__()
        self.alphabet = alphabet
        self.prompt = prompt
        self.temperature = temperature
        self.length = length
        self.reader = network(len(alphabet), stateful=True)

    def write(self, model, seed):
        """Text after the prompt, drawn from the model's predictions sharpened or flattened by the temperature."""
        self.reader.set_weights(model.get_weights())
        self.reader.reset_states()
        rng = np.random.default_rng(seed)
        ids = [self.alphabet.index(character) for character in self.prompt]
        piece = ids
        for _ in range(self.length):
            probabilities = self.reader.predict_on_batch(np.array([piece], np.int32))[0, -1].astype(float)
            scores = np.log(probabilities + 1e-30) / self.temperature
            piece = [int(np.argmax(scores + rng.gumbel(size=scores.size)))]
            ids = ids + piece
        return "".join(self.alphabet[i] for i in ids)

    def on_epoch_end(self, epoch, logs=None):
        perplexity = math.exp(logs["val_loss"])
        print(f"\nheld-out perplexity {perplexity:.2f} after epoch {epoch + 1}\n{self.write(self.model, epoch)}\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--temperature", type=float, default=0.6)
    parser.add_argument("--characters", type=int, default=None, help="train on the first so many only")
    parser.add_argument("--file", default="char_lm.safetensors", help="where the model is saved")
    args = parser.parse_args()

    text = "\n".join(topics[name] for name in sorted(topics))[: args.characters]
    alphabet = "".join(sorted(set(text)))
    ids = np.array([alphabet.index(character) for character in text], np.int32)
    tail = len(ids) // 20
    x, y = windows(ids[:-tail])
    held_out = windows(ids[-tail:])

    counts = np.bincount(ids[:-tail], minlength=len(alphabet)) + 1.0
    unigram = math.exp(-np.mean(np.log((counts / counts.sum())[held_out[1]])))
    print(f"{len(ids):,} characters, {len(alphabet)} different; perplexity from their frequencies alone: {unigram:.2f}")

    utils.set_random_seed(1)
    model = network(len(alphabet))
    model.compile(optimizer=optimizers.Adam(0.003), loss="sparse_categorical_crossentropy")
    model.summary()
    writer = Writer(alphabet, "The following ", args.temperature)
    start = time.perf_counter()
    model.fit(x, y, batch_size=32, epochs=args.epochs, validation_data=held_out, callbacks=[writer])
    print(f"trained for {time.perf_counter() - start:.1f} s")

    model.save(args.file)
    loaded = models.load_model(args.file)
    before, after = (writer.write(m, seed=1) for m in (model, loaded))
    if before != after:
        raise SystemExit("the loaded model goes on differently")
    print(f"saved to {args.file} and loaded again, it continues the same text:\n{after}\n")

    print("one more epoch from the file:")
    loaded.fit(x, y, batch_size=32, initial_epoch=args.epochs, epochs=args.epochs + 1, validation_data=held_out,
               callbacks=[writer])


if __name__ == "__main__":
    main()
