"""What is taken from a model to see whether an ability rests on it: its ears, the motion it sees, the order of time.

Each changes its own input and nothing else; what was due, and the model's own side, stay as recorded.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from tml_jax.config import INPUT_RATE, MICRO_TURN_SECONDS
from tml_jax.data.layout import INPUT_SAMPLES, arrived_samples, fit_samples
from tml_jax.data.record import MODEL, Conversation
from tml_jax.scenes.acoustics import ECHO_TO_COME
from tml_jax.signal.pcm import pcm16
from tml_jax.signal.runs import true_runs

AUDIO_MUTED, VIDEO_FROZEN, TIME_SHUFFLED = "audio muted", "video frozen", "time shuffled"


def mute(conversation: Conversation) -> Conversation:
    """The conversation with silence for the user's audio, without an echo, too."""
    audio = conversation.user_audio
    meta = {name: fact for name, fact in conversation.meta.items() if name != ECHO_TO_COME}
    return dataclasses.replace(conversation, user_audio=None if audio is None else np.zeros_like(audio), meta=meta)


def freeze_video(conversation: Conversation) -> Conversation:
    """The conversation whose first frame is seen throughout, at the times of the frames."""
    frames = conversation.frames
    return dataclasses.replace(conversation, frames=None if frames is None else np.repeat(frames[:1], len(frames), 0))


def shuffle_time(conversation: Conversation, seed: int) -> Conversation:
    """The conversation whose 200 ms windows of input come in another order: sound, frames, texts and losses together.

    Args:
      conversation: any.
      seed: of the order.

    Returns:
      The same input, each window whole, elsewhere in time.
    """
    count = conversation.micro_turns
    order = np.random.default_rng(seed).permutation(count)  # window order[i] comes as number i
    place = np.argsort(order)
    audio, gaps = conversation.user_audio, ()
    if audio is not None:
        windows = fit_samples(audio, count * INPUT_SAMPLES).reshape(count, INPUT_SAMPLES)
        audio = pcm16(windows[order].reshape(-1))
        gaps = _gaps(arrived_samples(conversation, count)[order].reshape(-1))

    def moved(times: np.ndarray) -> np.ndarray:
        window = np.minimum((times / MICRO_TURN_SECONDS + 1e-6).astype(int), count - 1)
        return times + MICRO_TURN_SECONDS * (place[window] - window)

    frames, times = conversation.frames, conversation.frame_times
    if frames is not None:
        times = moved(times)
        rising = np.argsort(times, kind="stable")
        frames, times = frames[rising], times[rising]
    theirs = [text for text in conversation.texts if text.speaker != MODEL]
    shifted = moved(np.asarray([text.time for text in theirs], np.float64))
    theirs = [dataclasses.replace(text, time=float(time)) for text, time in zip(theirs, shifted)]
    texts = [text for text in conversation.texts if text.speaker == MODEL] + theirs
    return dataclasses.replace(
        conversation,
        user_audio=audio,
        gaps=gaps,
        frames=frames,
        frame_times=times,
        texts=tuple(sorted(texts, key=lambda text: text.time)),
    )


def _gaps(arrived: np.ndarray) -> tuple[tuple[float, float], ...]:
    """Runs of samples that did not arrive, (n,) bool at 16 kHz, as (start, end) seconds."""
    return tuple((float(first / INPUT_RATE), float(end / INPUT_RATE)) for first, end in true_runs(~arrived))


# Name → (conversation, seed) → the conversation that the model gets instead.
ABLATIONS: dict[str, Callable[[Conversation, int], Conversation]] = {
    AUDIO_MUTED: lambda conversation, seed: mute(conversation),
    VIDEO_FROZEN: lambda conversation, seed: freeze_video(conversation),
    TIME_SHUFFLED: shuffle_time,
}
