"""Conversations of noise and a shallow model, for runs that no test has to wait for."""

import pathlib

import numpy as np

from tml_jax.data.record import MODEL, USER, Conversation, Text, Word

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Of the tiny model: one dense and one sparse layer, pictures by one matrix.
SHALLOW = dict(num_layers=2, d_model=32, vision_stages=((2, 40, 40, 32),))


def conversation(name: str, seed: int) -> Conversation:
    rng = np.random.default_rng(seed)
    seconds = float(rng.choice([1.0, 1.6, 2.2]))
    noise = lambda rate: rng.integers(-3000, 3000, int(seconds * rate)).astype(np.int16)  # noqa: E731
    words = (Word(USER, "tell", 0.1, 0.4), Word(MODEL, str(rng.choice(["yes", "no", "maybe"])), 0.5, 0.9))
    return Conversation(name, seconds, noise(16_000), noise(24_000), words=words, texts=(Text(USER, "now", 0.3),))
