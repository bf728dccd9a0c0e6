"""Policies that know no words: what the interactivity metrics give away for free, and what a voice-activity rule gets.

A policy takes the user's audio window by window and puts out a micro-turn for each, so it is causal by construction.
`fit` takes everything it knows from training conversations. The record itself, played back by `as_recorded`, is the
ceiling.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from tml_jax.config import INPUT_RATE, MEL_BINS, MICRO_TURN_SECONDS
from tml_jax.data.layout import INPUT_SAMPLES, OUTPUT_SAMPLES, fit_samples, gates, spoken_words
from tml_jax.data.record import BACKGROUND, MODEL, TASK, USER, Conversation, Cue, Word
from tml_jax.eval.activity import of_sound
from tml_jax.serve.words import MicroTurn, Span
from tml_jax.signal.mel import SILENT_OWN_MEL, own_mel

FRAME_SECONDS = 0.05  # of the voice-activity detector; four a micro-turn
SPEECH_SECONDS = 0.3  # speech that must come before the silence
SILENCE_SECONDS = 0.5  # silence after which the reply begins
_THRESHOLDS = np.arange(-80.0, 0.0, 1.0)  # dBFS
_TINY = 1e-10  # mean square of digital silence, for the logarithm


@dataclasses.dataclass(frozen=True)
class Params:
    """What `fit` learned.

    Attributes:
      threshold: dBFS; a 50 ms frame of the user's audio above it counts as speech.
      reply: the majority reply.
      pieces: spoken text of each micro-turn of the reply, (m,) strings.
      samples: its sound, (m, 4800) float32 at 24 kHz.
      mel: its own mel, (m, 20, 80) float32.
      begins: micro-turn at which replies most often begin, whatever they say.
    """

    threshold: float
    reply: str
    pieces: tuple[str, ...]
    samples: np.ndarray
    mel: np.ndarray
    begins: int


Policy = Callable[[Params, Iterable[np.ndarray]], Iterator[MicroTurn]]


def fit(conversations: Sequence[Conversation]) -> Params:
    """Estimates the speech threshold and the majority reply.

    The threshold maximises the balanced accuracy with which 50 ms frames are told into those that lie in a user's word
    and those that do not. The majority reply is the most frequent `respond` text; its typical length is the median
    over its occurrences, and its sound and words are those of the occurrence nearest to that. When replies begin is
    counted over all onsets of the gates; the earliest of the most frequent ones is taken.

    Args:
      conversations: training conversations, never those to be scored; read once from first to last, and one once more.

    Returns:
      The parameters of the policies.

    Raises:
      ValueError: no conversation has a `respond` cue, or none has user audio with timed words.
    """
    levels, in_words = [], []
    onsets: collections.Counter[int] = collections.Counter()
    replies: dict[str, list[tuple[float, int, Cue]]] = collections.defaultdict(list)
    for number in range(len(conversations)):
        conversation = conversations[number]
        if conversation.user_audio is not None and any(word.speaker == USER for word in conversation.words):
            level = frame_levels(fit_samples(conversation.user_audio, conversation.user_audio.size))
            levels.append(level)
            in_words.append(_frames_in_words(conversation, len(level)))
        spoke = np.concatenate([[False], gates(conversation)])
        onsets.update(np.flatnonzero(spoke[1:] & ~spoke[:-1]).tolist())
        for cue in conversation.cues:
            if cue.kind == "respond" and cue.text:
                replies[cue.text].append((cue.end - cue.start, number, cue))
    if not replies:
        raise ValueError("no training conversation has a `respond` cue with text: the baselines need a reply to give")
    if not levels:
        raise ValueError("no training conversation has user audio with timed words: cannot set the speech threshold")

    reply = max(sorted(replies), key=lambda text: len(replies[text]))
    typical = float(np.median([length for length, _, _ in replies[reply]]))
    _, number, cue = min(replies[reply], key=lambda occurrence: abs(occurrence[0] - typical))
    pieces, samples = _cut_reply(
        conversations[number], cue, max(1, int(np.ceil(round(typical / MICRO_TURN_SECONDS, 6))))
    )
    mel = own_mel(samples.reshape(-1)).reshape(len(pieces), -1, MEL_BINS)
    threshold = _best_threshold(np.concatenate(levels), np.concatenate(in_words))
    begins = max(sorted(onsets), key=lambda index: onsets[index], default=0)
    return Params(threshold, reply, pieces, samples, mel, begins)


def always_listening(params: Params, windows: Iterable[np.ndarray]) -> Iterator[MicroTurn]:
    """Never speaks."""
    for index, _ in enumerate(windows):
        yield _micro_turn(params, index, None)


def always_speaking(params: Params, windows: Iterable[np.ndarray]) -> Iterator[MicroTurn]:
    """Gives the majority reply over and over, whatever is heard; of its windows those that sound, or it would pause."""
    sounds = np.flatnonzero(of_sound(params.samples).active)
    steps = sounds.tolist() or list(range(len(params.pieces)))
    for index, _ in enumerate(windows):
        yield _micro_turn(params, index, steps[index % len(steps)])


def majority(params: Params, windows: Iterable[np.ndarray]) -> Iterator[MicroTurn]:
    """Gives the most frequent reply, at the time at which replies are most frequent."""
    for index, _ in enumerate(windows):
        step = index - params.begins
        yield _micro_turn(params, index, step if 0 <= step < len(params.pieces) else None)


def energy_threshold(params: Params, windows: Iterable[np.ndarray]) -> Iterator[MicroTurn]:
    """Gives the majority reply once after at least 0.3 s of speech and then 0.5 s of silence.

    Speech adds up over pauses shorter than 0.5 s. While the reply lasts, 0.1 s of speech within a window stops it.
    """
    speech = silence = 0.0
    step = None  # micro-turn of the reply, or None
    for index, window in enumerate(windows):
        loud = frame_levels(window) > params.threshold
        due = False
        for frame in loud:
            speech, silence = (speech + FRAME_SECONDS, 0.0) if frame else (speech, silence + FRAME_SECONDS)
            if silence >= SILENCE_SECONDS - 1e-6:
                due = due or speech >= SPEECH_SECONDS - 1e-6
                speech = 0.0
        if due:
            step = 0
        elif step is not None:
            interrupted = loud.sum() * FRAME_SECONDS >= 0.1
            step = step + 1 if not interrupted and step + 1 < len(params.pieces) else None
        yield _micro_turn(params, index, step)


MAJORITY = "majority"
POLICIES: dict[str, Policy] = {
    "always listening": always_listening,
    "always speaking": always_speaking,
    "energy threshold": energy_threshold,
    MAJORITY: majority,
}


def run(policy: Policy, params: Params, conversation: Conversation) -> list[MicroTurn]:
    """Streams the user's audio of a conversation through a policy.

    Args:
      policy: one of the above.
      params: of `fit`.
      conversation: only its length and its user audio are looked at.

    Returns:
      A micro-turn for each of the conversation's.
    """
    return list(policy(params, input_windows(conversation)))


def input_windows(conversation: Conversation) -> Iterator[np.ndarray]:
    """The user's audio, (3200,) float32 a micro-turn; silence past its end and where there is none."""
    audio = np.zeros(0, np.int16) if conversation.user_audio is None else conversation.user_audio
    yield from fit_samples(audio, conversation.micro_turns * INPUT_SAMPLES).reshape(-1, INPUT_SAMPLES)


def as_recorded(conversation: Conversation) -> list[MicroTurn]:
    """The model's side of the record as micro-turns: the ceiling of every metric, and a way to draw a record."""
    count = conversation.micro_turns
    samples = output_windows(conversation, 1, count)
    mel = own_mel(samples.reshape(-1)).reshape(count, -1, MEL_BINS)
    pieces = _pieces(spoken_words(conversation), 1, count)
    shown, asked, given = [""] * count, [()] * count, [()] * count
    for text in conversation.texts:
        window = min(_window(text.time), count - 1)
        if text.kind == TASK:
            asked[window] += (Span(text.text),)
        elif text.speaker == MODEL:
            shown[window] += text.text
        elif text.speaker == BACKGROUND:
            given[window] += (text.text,)
    return [
        MicroTurn(
            index=index,
            start=MICRO_TURN_SECONDS * index,
            gate="SPEAK" if speaks else "LISTEN",
            text=pieces[index],
            display=shown[index],
            mel=mel[index],
            samples=samples[index] if speaks else np.zeros(OUTPUT_SAMPLES, np.float32),
            compute_seconds=0.0,
            spans=asked[index],
            given=given[index],
        )
        for index, speaks in enumerate(gates(conversation))
    ]


def frame_levels(samples: np.ndarray) -> np.ndarray:
    """Level of each whole 50 ms frame: (n,) float32 at 16 kHz to (n // 800,) dBFS (rms; full-scale square wave 0)."""
    size = round(FRAME_SECONDS * INPUT_RATE)
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    return 10 * np.log10(np.square(frames).mean(axis=1) + _TINY)


def _frames_in_words(conversation: Conversation, count: int) -> np.ndarray:
    """Which 50 ms frames have their middle in a word of the user, (count,) bool."""
    middles = (np.arange(count) + 0.5) * FRAME_SECONDS
    inside = np.zeros(count, bool)
    for word in conversation.words:
        if word.speaker == USER:
            inside |= (middles >= word.start) & (middles < word.end)
    return inside


def _best_threshold(levels: np.ndarray, in_words: np.ndarray) -> float:
    """The threshold of the highest balanced accuracy; the middle of the best ones, which lies between the classes."""
    loud = levels[:, None] > _THRESHOLDS
    found = loud[in_words].mean(axis=0) if in_words.any() else np.ones(len(_THRESHOLDS))
    false = loud[~in_words].mean(axis=0) if not in_words.all() else np.zeros(len(_THRESHOLDS))
    balanced = found - false
    return float(np.median(_THRESHOLDS[balanced >= balanced.max() - 1e-9]))


def _window(time: float) -> int:
    """Number of the 200 ms window that `time` seconds lies in."""
    return int(np.floor(time / MICRO_TURN_SECONDS + 1e-6))


def output_windows(conversation: Conversation, first: int, count: int) -> np.ndarray:
    """The model's sound in windows first … first + count − 1, (count, 4800) float32, silence where there is none."""
    audio = np.zeros(0, np.int16) if conversation.model_audio is None else conversation.model_audio
    return fit_samples(audio[first * OUTPUT_SAMPLES :], count * OUTPUT_SAMPLES).reshape(count, OUTPUT_SAMPLES)


def _pieces(words: Iterable[Word], first: int, count: int) -> tuple[str, ...]:
    """Words by the window they start in, a leading space each; those that start earlier go to the first window."""
    pieces = [""] * count
    for word in words:
        window = max(_window(word.start) - first, 0)
        if window < count:
            pieces[window] += f" {word.text}"
    return tuple(pieces)


def _cut_reply(conversation: Conversation, cue: Cue, count: int) -> tuple[tuple[str, ...], np.ndarray]:
    """The reply's text and sound, from the window that the cue starts in."""
    first = _window(cue.start)
    words = [word for word in spoken_words(conversation) if cue.start - 1e-6 <= word.start < cue.end]
    pieces = _pieces(words, first, count)
    if "".join(pieces).split() != cue.text.split():  # words not timed, or cut off by the typical length
        pieces = (f" {cue.text}", *[""] * (count - 1))
    return pieces, output_windows(conversation, first, count)


def _micro_turn(params: Params, index: int, step: int | None) -> MicroTurn:
    """A micro-turn that is silent, or is micro-turn `step` of the reply."""
    silent = step is None
    return MicroTurn(
        index=index,
        start=MICRO_TURN_SECONDS * index,
        gate="LISTEN" if silent else "SPEAK",
        text="" if silent else params.pieces[step],
        display="",
        mel=np.full_like(params.mel[0], SILENT_OWN_MEL) if silent else params.mel[step],
        samples=np.zeros(OUTPUT_SAMPLES, np.float32) if silent else params.samples[step],
        compute_seconds=0.0,
    )
