"""Scale on paper: bytes and chips by arithmetic, from the sizes of a model and a few stated rates."""

import dataclasses
import math

from tml_jax.config import AUDIO_ELEMENTS, INPUT_RATE, MICRO_TURN_SECONDS, OUTPUT_RATE, PATCH, Config, ModelConfig
from tml_jax.model.count import count_parameters
from tml_jax.serve.windows import block_sizes

DAY = 24 * 3600


@dataclasses.dataclass(frozen=True)
class Rates:
    """What is assumed about the world.

    Attributes:
      host_write: bytes a second that a host writes to storage.
      chips_per_host: chips that one host feeds.
      speaking: share of the time in which the model speaks.
      words: words that it says in a second of speech.
      tokens_per_word: tokens of a word.
      sample_bytes: of one sample of stored sound.
      frame_bytes: of one stored frame of video.
    """

    host_write: float = 1e9
    chips_per_host: int = 4
    speaking: float = 0.4
    words: float = 3.0
    tokens_per_word: float = 4 / 3
    sample_bytes: float = 2.0
    frame_bytes: float = 20e3

    @property
    def tokens(self) -> float:
        """Tokens that it says in a second of speech."""
        return self.words * self.tokens_per_word


def kv_bytes(model: ModelConfig) -> tuple[int, int]:
    """Bytes of keys and values in bfloat16: that each element adds for good in global layers, and of all windows."""
    each = {kind: 2 * 2 * math.prod(model.heads(kind)[1:]) for kind in (True, False)}
    kinds = [model.is_global(layer) for layer in range(model.num_layers)]
    return sum(kinds) * each[True], (len(kinds) - sum(kinds)) * each[False] * model.window


def elements_per_second(config: Config, rates: Rates, frames: bool) -> float:
    """Elements that a session appends in a second of conversation."""
    bare, with_frame, _ = block_sizes(config)
    taken = with_frame if frames else bare
    said = 1 + rates.speaking * (AUDIO_ELEMENTS + rates.tokens * MICRO_TURN_SECONDS)
    return (taken + said) / MICRO_TURN_SECONDS


def session_bytes(config: Config, rates: Rates, minutes: float, frames: bool) -> float:
    """Bytes that a session holds after so many minutes; the context bounds it."""
    growing, windows = kv_bytes(config.model)
    elements = min(60 * minutes * elements_per_second(config, rates, frames), config.serve.context)
    return growing * elements + windows


def state_bytes(model: ModelConfig) -> float:
    """Bytes of a checkpoint to go on from: float32 masters, bfloat16 first and float32 second moments."""
    return 10.0 * sum(count_parameters(model).values())


def data_bytes_per_day(config: Config, rates: Rates, step_seconds: float) -> dict[str, float]:
    """What training reads and takes in a day.

    Args:
      config: the run; its packing says how full of sound and frames a row is.
      rates: sizes of stored sound and frames.
      step_seconds: time of a step.

    Returns:
      Hours of heard audio, and bytes of sound and of video.
    """
    rows, packing = config.data.batch_size * DAY / step_seconds, config.data.packing
    heard, spoken = (
        rows * count * MICRO_TURN_SECONDS / AUDIO_ELEMENTS for count in (packing.audio_in, packing.audio_out)
    )
    patches = config.data.video_grid[0] * config.data.video_grid[1]
    return {
        "hours": heard / 3600,
        "sound_bytes": (heard * INPUT_RATE + spoken * OUTPUT_RATE) * rates.sample_bytes,
        "video_bytes": rows * packing.video / patches * PATCH[0] * rates.frame_bytes,
    }


def checkpoint_seconds(model: ModelConfig, chips: int, rates: Rates) -> float:
    """Time to write a checkpoint, every host its part."""
    return state_bytes(model) / (rates.host_write * max(1, chips // rates.chips_per_host))


def chips_for_sessions(sessions: int, sessions_per_replica: int, chips_per_replica: int) -> int:
    """Chips that hold so many concurrent sessions, in whole replicas."""
    return math.ceil(sessions / sessions_per_replica) * chips_per_replica
