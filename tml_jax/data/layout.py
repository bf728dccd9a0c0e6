"""Record → layout: which elements each micro-turn of a conversation has, before any spectrum is computed.

Micro-turn t takes in what the user does in window t, [0.2 t, 0.2 (t + 1)) seconds, and then puts out what is heard in
window t + 1. So the model's side of window 0 has no micro-turn.
"""

import collections
import dataclasses
from collections.abc import Iterable

import numpy as np

from tml_jax.config import (
    AUDIO_ELEMENTS,
    INPUT_RATE,
    MICRO_TURN_SECONDS,
    OUTPUT_RATE,
    PATCH,
    Config,
    ModelConfig,
)
from tml_jax.data.record import BACKGROUND, MODEL, TASK, USER, Conversation, Word
from tml_jax.data.tokenizer import Tokenizer
from tml_jax.signal.pcm import float_audio
from tml_jax.tokens import Control

INPUT_SAMPLES = round(INPUT_RATE * MICRO_TURN_SECONDS)  # of one window
OUTPUT_SAMPLES = round(OUTPUT_RATE * MICRO_TURN_SECONDS)
MIN_OVERLAP = 0.02  # seconds that a word must reach into a window for its gate to be SPEAK
MAX_GAP = 0.3  # seconds of pause at which an utterance ends
MIN_POWER = 10 ** (-50 / 10)  # mean square of −50 dBFS
_NEAR = 1e-6  # times that differ by less are equal


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which elements the n micro-turns of a conversation have, without their sound and pictures.

    Attributes:
      text_in: n lists of tokens.
      frames: (n, 2) int64, the two frames shown; −1 in a micro-turn without a new frame.
      patches: patches of one pair of frames.
      heard: (n,) int64, audio-in elements of each micro-turn: 4; 0 without a microphone, and where nothing arrived.
      text_out: n lists of tokens.
      speak: (n,) bool, the gates.
      cut: tokens still waiting when the conversation ends; they are in no micro-turn.
    """

    text_in: list[list[int]]
    frames: np.ndarray
    patches: int
    heard: np.ndarray
    text_out: list[list[int]]
    speak: np.ndarray
    cut: int


def control_token(control: Control, config: ModelConfig) -> int:
    """Token id of a control token."""
    return config.text_vocab_size + int(control)


def text_in_tokens(speaker: str, text: str, tokenizer: Tokenizer, config: ModelConfig) -> list[int]:
    """Tokens of typed text (`speaker` USER) or of a result (BACKGROUND): the source, then the text."""
    source = Control.FROM_USER if speaker == USER else Control.FROM_BACKGROUND
    return [control_token(source, config), *tokenizer.encode_words(text)]


def results_room(config: Config, free: int) -> int:
    """Tokens of results that a micro-turn takes in, where what is typed leaves `free`: at most half of its text."""
    return min(free, max(1, config.serve.max_text_in // 2))


def written_tokens(kind: str, text: str, tokenizer: Tokenizer, config: ModelConfig) -> list[int]:
    """Tokens of text that the model shows, or hands over (`kind` TASK): DISPLAY or DELEGATE, the text, END."""
    opening = Control.DELEGATE if kind == TASK else Control.DISPLAY
    return [control_token(opening, config), *tokenizer.encode_words(text), control_token(Control.END, config)]


def spoken_words(conversation: Conversation) -> tuple[Word, ...]:
    """The words that the model speaks, by start."""
    return tuple(sorted((w for w in conversation.words if w.speaker == MODEL), key=lambda word: word.start))


def gates(conversation: Conversation) -> np.ndarray:
    """When the model speaks: the reference for SPEAK and LISTEN.

    The gate of micro-turn t is SPEAK if an utterance of the model reaches more than 20 ms into window t + 1; words less
    than 0.3 s apart are one utterance. Where the model has sound but no words, its level must be above −50 dBFS.

    Args:
      conversation: the record.

    Returns:
      (micro_turns,) bool, True for SPEAK.
    """
    count = conversation.micro_turns
    words = spoken_words(conversation)
    if words:
        start = MICRO_TURN_SECONDS * np.arange(1, count + 1)
        speak = np.zeros(count, bool)
        for first, last in _utterances(words):
            overlap = np.minimum(start + MICRO_TURN_SECONDS, last) - np.maximum(start, first)
            speak |= overlap > MIN_OVERLAP + _NEAR
        return speak
    if conversation.model_audio is None:
        return np.zeros(count, bool)
    sound = fit_samples(conversation.model_audio, (count + 1) * OUTPUT_SAMPLES).reshape(count + 1, OUTPUT_SAMPLES)[1:]
    return np.mean(np.square(sound), axis=1) > MIN_POWER


def _utterances(words: Iterable[Word]) -> list[tuple[float, float]]:
    """(start, end) of each run of words, in seconds, pauses shorter than MAX_GAP included."""
    runs: list[tuple[float, float]] = []
    for word in words:
        if runs and word.start - runs[-1][1] < MAX_GAP - _NEAR:
            runs[-1] = (runs[-1][0], max(runs[-1][1], word.end))
        else:
            runs.append((word.start, word.end))
    return runs


def _window(seconds: float) -> int:
    """Number of the 200 ms window in which a time lies."""
    return int(np.floor(round(seconds / MICRO_TURN_SECONDS, 6)))


def fit_samples(samples: np.ndarray, length: int) -> np.ndarray:
    """int16 samples as float32 in [−1, 1), cut or filled with silence to `length`."""
    fitted = np.zeros(length, np.float32)
    kept = min(length, samples.size)
    fitted[:kept] = float_audio(samples[:kept])
    return fitted


def arrived_samples(conversation: Conversation, micro_turns: int) -> np.ndarray:
    """Which samples of the user's sound reached the model.

    Args:
      conversation: the record.
      micro_turns: how many windows to describe; those past its end have arrived.

    Returns:
      (micro_turns, 3200) bool.
    """
    arrived = np.ones(micro_turns * INPUT_SAMPLES, bool)
    for start, end in conversation.gaps:
        arrived[round(start * INPUT_RATE) : round(end * INPUT_RATE)] = False
    return arrived.reshape(micro_turns, INPUT_SAMPLES)


def _spread(due: list[tuple[int, list[int]]], room: Iterable[int]) -> tuple[list[list[int]], int]:
    """Hands out tokens in order; what a micro-turn has no room for spills into the following ones.

    Args:
      due: (micro-turn, tokens), in order of the micro-turn.
      room: tokens that each micro-turn can hold.

    Returns:
      The tokens of each micro-turn, and how many were still waiting at the end.
    """
    waiting: collections.deque[int] = collections.deque()
    turns, upcoming = [], 0
    for turn, most in enumerate(room):
        while upcoming < len(due) and due[upcoming][0] <= turn:
            waiting.extend(due[upcoming][1])
            upcoming += 1
        turns.append([waiting.popleft() for _ in range(min(most, len(waiting)))])
    return turns, len(waiting) + sum(len(tokens) for _, tokens in due[upcoming:])


def _frame_pairs(times: np.ndarray, count: int) -> np.ndarray:
    """(count, 2) frames of each micro-turn: the latest of its first half, the latest of all; −1 without a new one."""
    in_turns = np.round(np.asarray(times, np.float64) / MICRO_TURN_SECONDS, 6)
    start = np.arange(count)
    before, half, end = (np.searchsorted(in_turns, start + part) for part in (0.0, 0.5, 1.0))
    # With no frame at all before the middle, `half` is 0 and the first new frame stands in.
    pairs = np.stack([np.maximum(half - 1, 0), end - 1], axis=1)
    return np.where((end > before)[:, None], pairs, -1)


def layout(conversation: Conversation, tokenizer: Tokenizer, config: Config) -> Layout:
    """Places the tokens, frames and gates of a conversation in its micro-turns. Cheap: no spectrum is computed.

    Args:
      conversation: the record.
      tokenizer: tokenizer of the text, at most `config.model.text_vocab_size` tokens.
      config: the run's configuration.

    Returns:
      The layout.

    Raises:
      ValueError: the record, the tokenizer and the configuration do not fit each other.
    """
    if tokenizer.size > config.model.text_vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.size} tokens, config.model.text_vocab_size is "
            f"{config.model.text_vocab_size}: train a smaller tokenizer or raise text_vocab_size"
        )
    count, name = conversation.micro_turns, f"conversation {conversation.id!r}"
    words = spoken_words(conversation)
    if words and conversation.model_audio is None:
        raise ValueError(f"{name} has model words but no model_audio: give the sound, or show the words as Text")
    down, across = config.data.video_grid
    frames = np.full((count, 2), -1)
    if conversation.frames is not None:
        expected = (down * PATCH[1], across * PATCH[2])
        if conversation.frames.shape[1:3] != expected:
            raise ValueError(
                f"{name}: frames of {conversation.frames.shape[1:3]} pixels, config.data.video_grid = {(down, across)} "
                f"expects {expected}: scale the frames, or set video_grid"
            )
        frames = _frame_pairs(conversation.frame_times, count)

    texts = sorted(conversation.texts, key=lambda text: text.time)
    typed, results = (
        [
            (_window(text.time), text_in_tokens(text.speaker, text.text, tokenizer, config.model))
            for text in texts
            if text.speaker == speaker
        ]
        for speaker in (USER, BACKGROUND)
    )
    said = [(word.start, tokenizer.encode_words(word.text)) for word in words]
    written = [
        (text.time, written_tokens(text.kind, text.text, tokenizer, config.model))
        for text in texts
        if text.speaker == MODEL
    ]
    # What is heard in window w is put out by micro-turn w − 1.
    out = [(_window(time) - 1, tokens) for time, tokens in sorted(said + written, key=lambda item: item[0])]
    arrived = arrived_samples(conversation, count)
    lost = (~arrived).any(axis=1) & (conversation.user_audio is not None)
    room = config.serve.max_text_in - lost
    text_in, cut_in = _spread(typed, room.tolist())
    free = (results_room(config, int(most) - len(text)) for most, text in zip(room, text_in))
    given, cut_results = _spread(results, free)
    mark = control_token(Control.LOST_AUDIO, config.model)
    text_in = [[mark] * int(gap) + text + result for gap, text, result in zip(lost, text_in, given)]
    text_out, cut_out = _spread(out, [config.model.max_text_out] * count)
    return Layout(
        text_in=text_in,
        frames=frames,
        patches=down * across,
        heard=AUDIO_ELEMENTS * (arrived.any(axis=1) & (conversation.user_audio is not None)),
        text_out=text_out,
        speak=gates(conversation),
        cut=cut_in + cut_results + cut_out,
    )


def layout_sizes(plan: Layout) -> np.ndarray:
    """What a conversation takes of a row, see `element_sizes`."""
    count = len(plan.speak)
    text_in, text_out = sum(map(len, plan.text_in)), sum(map(len, plan.text_out))
    audio_in, audio_out = int(plan.heard.sum()), AUDIO_ELEMENTS * int(plan.speak.sum())
    video = plan.patches * int((plan.frames[:, 1] >= 0).sum())
    outputs = text_out + count
    elements = count + text_in + video + audio_in + outputs + audio_out
    return np.array([elements, audio_in, video, audio_out, outputs], np.int32)
