"""Small conversations made from a seed, for the tests of this folder."""

import functools

import numpy as np

from configs import replica
from tml_jax import config as config_lib
from tml_jax.data.packet_loss import lose_packets
from tml_jax.data.record import BACKGROUND, MODEL, USER, Conversation, Text, Word
from tml_jax.data.tokenizer import Tokenizer, train_tokenizer

VOCABULARY = "the red one is here and what do you see now please tell me more about a blue box".split()


@functools.lru_cache
def tokenizer() -> Tokenizer:
    return train_tokenizer([" ".join(VOCABULARY[i:] + VOCABULARY[:i]) for i in range(len(VOCABULARY))], 300)


def make_config(workers: int = 0, sources=None, **packing) -> config_lib.Config:
    mapping = replica.get_config().to_dict()
    mapping["data"]["workers"] = workers
    mapping["data"]["sources"] = sources or {"a": {"path": "a"}}
    # Rows and ways in of the tests' own size, so that tuning the replica changes no test.
    mapping["serve"]["max_text_in"] = 8
    row = {"elements": 1024, "audio_in": 640, "video": 64, "audio_out": 320, "outputs": 320, "segments": 8}
    mapping["data"]["packing"] = {**row, **packing}
    return config_lib.from_mapping(mapping)


def _words(rng, speaker, duration):
    words, time = [], float(rng.uniform(0, 1))
    while time < duration:
        end = time + float(rng.uniform(0.05, 0.4))
        words.append(Word(speaker, str(rng.choice(VOCABULARY)), round(time, 3), round(end, 3)))
        time = end + float(rng.choice([0.01, 0.1, 0.29, 0.5, 1.5]))
    return words


def make_conversation(seed: int, duration: float | None = None) -> Conversation:
    """Random in everything: length, which streams there are, words, text, frames."""
    rng = np.random.default_rng(seed)
    duration = round(float(rng.uniform(0.1, 6.0)), 3) if duration is None else duration
    user_audio = model_audio = frames = times = None
    words, texts = [], []
    if rng.random() < 0.8:
        user_audio = rng.integers(-9000, 9000, int(duration * 16000 * rng.uniform(0.5, 1.2))).astype(np.int16)
        words += _words(rng, USER, duration)
    if rng.random() < 0.8:
        model_audio = rng.integers(-9000, 9000, int(duration * 24000 * rng.uniform(0.5, 1.2))).astype(np.int16)
        if rng.random() < 0.7:
            words += _words(rng, MODEL, duration)
    if rng.random() < 0.5:
        count = int(rng.integers(1, 8))
        times = np.sort(rng.choice(int(duration * 1000) + 1, min(count, int(duration * 1000)), replace=False)) / 1000
        frames = rng.integers(0, 256, (len(times), 40, 40, 3)).astype(np.uint8)
    for _ in range(int(rng.integers(0, 4))):
        text = " ".join(rng.choice(VOCABULARY, int(rng.integers(1, 10))))
        texts.append(Text(str(rng.choice([USER, MODEL, BACKGROUND])), text, round(float(rng.uniform(0, duration)), 3)))
    words.sort(key=lambda word: word.start)
    texts.sort(key=lambda text: text.time)
    record = Conversation(
        f"c{seed}", duration, user_audio, model_audio, frames, times, tuple(words), tuple(texts), family="synthetic"
    )
    return lose_packets(record, rng, 0.3, float(rng.choice([1.0, 15.0]))) if rng.random() < 0.4 else record
