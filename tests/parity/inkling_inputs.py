"""What both sides of the comparison with the reference get: configurations, random weights, conversations.

Random numbers come from numpy's RandomState, whose streams never change (NEP 19), so that the golden file need not
hold the weights.
"""

import dataclasses
import pathlib
import zlib

import numpy as np

from tml_jax.config import ModelConfig
from tml_jax.interop.inkling import PLANNED_STAGES
from tml_jax.tokens import Stream

TOLERANCE = 1e-4  # of `relative_error`
SEED = 3  # of the weights
GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "inkling_golden.npz"


def stages(count: int) -> tuple:
    """The reference's folds of a patch in `count` stages; it releases weights for four."""
    return (*PLANNED_STAGES[count], (2, 40, 40, 1))


BASE = ModelConfig(
    d_model=32,
    num_layers=3,
    num_dense_layers=1,
    global_every=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    window=9,
    rel_extent=20,
    d_rel=4,
    dense_ffn=48,
    expert_ffn=24,
    num_experts=6,
    num_shared_experts=2,
    top_k=3,
    route_scale=2.5,
    logit_divisor=4.0,
    vocab_size=72,
    text_vocab_size=56,
    vision_stages=stages(2),
    flow_width=400,
    flow_blocks=1,
)
GOLDEN_CONFIG = dataclasses.replace(BASE, num_layers=8, log_scaling_floor=20, vision_stages=stages(4))


def relative_error(ours, reference) -> float:
    """Largest difference over the largest magnitude of the reference."""
    ours, reference = np.asarray(ours), np.asarray(reference)
    assert ours.shape == reference.shape and np.all(np.isfinite(ours))
    return float(np.max(np.abs(ours - reference)) / np.max(np.abs(reference)))


def uniform(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Independent numbers of zero mean and unit variance, by name and seed."""
    random = np.random.RandomState([seed, zlib.crc32(name.encode())])
    return (random.random_sample(shape) * 12**0.5 - 3**0.5).astype(np.float32)


def random_weight(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """One tensor of the reference. Nothing is zero or one as after initialisation, so that a wrong term shows."""
    noise = uniform(name, shape, seed)
    if name.endswith(("q_norm.weight", "k_norm.weight")):
        return 2 + 0.5 * noise  # scores are scaled by 1 / head_dim: larger norms make attention choose
    if "norm" in name or name.endswith("global_scale"):
        return 1 + 0.3 * noise
    if name.endswith("e_score_correction_bias"):
        return 0.2 * noise
    if name.endswith(("conv1d.weight", "rel_logits_proj.proj")):
        return 0.4 * noise
    if "embed" in name:
        return noise
    return noise / np.float32(shape[-1] ** 0.5)


def random_weights(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    return {name: random_weight(name, shape, seed) for name, shape in shapes.items()}


@dataclasses.dataclass(frozen=True)
class Sequence:
    """One conversation: streams and tokens (n,), audio levels (a, 80) uint8, patches (v, 2, 40, 40, 3) uint8."""

    stream: np.ndarray
    token: np.ndarray
    audio: np.ndarray
    video: np.ndarray

    def __len__(self) -> int:
        return len(self.stream)

    def part(self, start: int, stop: int) -> "Sequence":
        """The elements from `start` to `stop`."""
        audio, video = (
            slice(*(int(np.sum(self.stream[:end] == kind)) for end in (start, stop)))
            for kind in (Stream.AUDIO_IN, Stream.VIDEO)
        )
        return Sequence(self.stream[start:stop], self.token[start:stop], self.audio[audio], self.video[video])


def random_sequence(config, kinds: str, length: int, seed: int) -> Sequence:
    """Elements in mixed runs, as a micro-turn has them. `kinds`: of `text`, `audio`, `image`, joined by `+`."""
    random = np.random.RandomState(seed)
    runs = {"text": (Stream.TEXT_IN, 3), "audio": (Stream.AUDIO_IN, 4), "image": (Stream.VIDEO, 2)}
    chosen = [runs[kind] for kind in kinds.split("+")]
    stream = []
    while len(stream) < length:
        for kind, most in chosen:
            stream += [kind] * (1 + random.randint(most))
    stream = np.asarray(stream[:length], np.int8)
    token = np.where(stream == Stream.TEXT_IN, random.randint(0, config.text_vocab_size, length), 0)
    audio = random.randint(0, 16, (int(np.sum(stream == Stream.AUDIO_IN)), 80)).astype(np.uint8)
    # Smooth and noisy patches, bright and dark.
    coarse = random.randint(0, 256, (int(np.sum(stream == Stream.VIDEO)), 2, 8, 8, 3))
    video = np.clip(coarse.repeat(5, 2).repeat(5, 3) + random.randint(-20, 21, (2, 40, 40, 3)), 0, 255).astype(np.uint8)
    return Sequence(stream, token.astype(np.int32), audio, video)


def random_chunks(length: int, most: int, seed: int) -> list[int]:
    """Sizes of the pieces in which a sequence is streamed: a prompt, single elements, and runs of up to `most`."""
    random, chunks = np.random.RandomState(seed), [most - 1]
    while sum(chunks) < length:
        chunks.append(min(length - sum(chunks), 1 if random.rand() < 0.5 else random.randint(2, most + 1)))
    return chunks


def golden_sequences() -> list[Sequence]:
    """The two conversations of the golden file."""
    return [
        random_sequence(GOLDEN_CONFIG, "audio+image+text", 40, seed=11),
        random_sequence(GOLDEN_CONFIG, "text+audio", 60, seed=12),
    ]
