"""How good the sound is, in numbers: clips go through own mel and the vocoder, and are compared with what they were.

The recogniser (pocketsphinx, `recognition.py`) makes errors on clean speech too, so that its figure for resynthesised
sound means something only beside the one for the original.
"""

import dataclasses
import re
import time
from collections.abc import Callable, Sequence

import numpy as np

from tml_jax.config import OUTPUT_RATE
from tml_jax.eval.estimates import Estimate, pooled, pooled_apart
from tml_jax.eval.interactivity import word_errors
from tml_jax.eval.recognition import words_heard
from tml_jax.eval.sentences import SENTENCES
from tml_jax.eval.suites.report import cell
from tml_jax.signal.mel import OWN, OWN_MEL_MIN, own_mel
from tml_jax.signal.vocoder import init_vocoder, vocode

CHUNK = 20  # frames of one micro-turn
AUDIBLE = OWN_MEL_MIN + 1  # log10 mel of the original from which a cell counts in the mel distance


@dataclasses.dataclass(frozen=True)
class SoundReport:
    """What resynthesis does to clips.

    Attributes:
      clips: number of clips.
      seconds: their length together.
      mel_distance: mean absolute difference of log10 own mel, over the cells that are audible in the original.
      streaming_error: energy of (micro-turn by micro-turn − all at once) over energy of all at once, dB; −200 if equal.
      edge_click: energy of the second difference at the edges of micro-turns over that elsewhere, each relative to
        the 20 ms around it, dB; about 0 without clicks.
      edge_click_original: the same of the originals, where nothing was cut: how far from 0 chance alone leads.
      speed: seconds of sound made in a second, one stream, a micro-turn a call, median call.
      word_error_original: word error rate of the originals, 0 … , its interval over clips; None if nothing was
        recognised.
      word_error: that of the resynthesised clips; None likewise.
    """

    clips: int
    seconds: float
    mel_distance: float
    streaming_error: float
    edge_click: float
    edge_click_original: float
    speed: float
    word_error_original: Estimate | None
    word_error: Estimate | None

    @property
    def mel_distance_db(self) -> float:
        """`mel_distance` in dB (of magnitude: 20 dB a unit of log10)."""
        return 20 * self.mel_distance

    def table(self) -> str:
        """The report as plain text, one figure a line."""
        percent = lambda rate: "not measured" if rate is None else cell(rate, "%")  # noqa: E731
        rows = [
            ("clips", f"{self.clips} ({self.seconds:.1f} s)"),
            ("mel distance", f"{self.mel_distance:.4f} log10 ({self.mel_distance_db:.2f} dB)"),
            ("streaming against at once", f"{self.streaming_error:.1f} dB"),
            ("click at chunk edges", f"{self.edge_click:+.2f} dB (originals {self.edge_click_original:+.2f} dB)"),
            ("word error rate, original", percent(self.word_error_original)),
            ("word error rate, resynthesised", percent(self.word_error)),
            ("speed, one stream", f"{self.speed:.0f} x real time"),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def recognise(samples: np.ndarray, rate: int) -> str:
    """Words in `samples`, by pocketsphinx. A clip is normalised by itself: clips before it change nothing.

    Args:
      samples: (n,) float32 in [-1, 1].
      rate: Hz.

    Returns:
      The words in lower case with single spaces, "" if none.

    Raises:
      ImportError: the extra `replica` is not installed.
      ValueError: more than one channel.
    """
    return plain_words(" ".join(word.text for word in words_heard(samples, rate)))


def plain_words(text: str) -> str:
    """`text` in lower case without punctuation, single spaces: what word error rates compare."""
    return " ".join(re.sub(r"[^\w' ]", " ", text.lower()).split())


def word_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> Estimate:
    """Word errors over words of all references together, after `plain_words`, with its interval over references.

    Raises:
      ValueError: a reference has no words.
    """
    return pooled(*_word_errors(references, hypotheses))


def word_error_excess(
    references: Sequence[str], hypotheses: Sequence[str], other_references: Sequence[str], others: Sequence[str]
) -> Estimate:
    """How much higher the word error rate is than that of other recordings, clip by clip of the same conversation.

    Raises:
      ValueError: a reference has no words.
    """
    return pooled_apart(*_word_errors(references, hypotheses), *_word_errors(other_references, others))


def _word_errors(references: Sequence[str], hypotheses: Sequence[str]) -> tuple[list[int], list[int]]:
    """Word errors and words of each reference."""
    plain = [plain_words(text).split() for text in references]
    if not all(plain):
        raise ValueError(f"reference {plain.index([])} has no words: leave such clips out")
    errors = [word_errors(due, plain_words(text).split()) for due, text in zip(plain, hypotheses, strict=True)]
    return errors, [len(due) for due in plain]


def resynthesise(samples: np.ndarray) -> np.ndarray:
    """Own mel of `samples` and back, all at once.

    Args:
      samples: (n,) float32 at 24 kHz.

    Returns:
      (n,) float32.
    """
    frames = _frames(samples)
    # A length in steps of 2 s keeps the number of compilations low; silence at the end changes nothing before it.
    padded = np.pad(frames, ((0, -len(frames) % 200), (0, 0)), constant_values=OWN_MEL_MIN)
    return np.asarray(vocode(init_vocoder(), padded)[1])[: samples.size]


def _frames(samples: np.ndarray) -> np.ndarray:
    return own_mel(np.pad(samples, (0, -samples.size % (CHUNK * OWN.hop))))


def _stream(samples: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """Like `resynthesise`, micro-turn by micro-turn; also the seconds of each call."""
    frames, state = _frames(samples), init_vocoder()
    chunks, seconds = [], []
    for start in range(0, len(frames), CHUNK):
        begun = time.perf_counter()
        state, chunk = vocode(state, frames[start : start + CHUNK])
        chunks.append(np.asarray(chunk))
        seconds.append(time.perf_counter() - begun)
    return np.concatenate(chunks)[: samples.size], seconds


def edge_energies(samples: np.ndarray, every: int = CHUNK * OWN.hop) -> tuple[np.ndarray, np.ndarray]:
    """Energy of the second difference relative to the 20 ms around it, where the clip sounds.

    Args:
      samples: (n,) float32 at 24 kHz.
      every: samples from one edge to the next.

    Returns:
      The energies of the second differences that straddle an edge (two an edge), and all others, both (?,) float64.
    """
    energy = np.square(np.diff(samples.astype(np.float64), 2))
    around = np.convolve(energy, np.full(480, 1 / 480), mode="same")
    sounds = around > 1e-12
    relative = energy[sounds] / around[sounds]
    at_edge = (np.arange(energy.size)[sounds] + 2) % every < 2  # second difference i spans samples i … i + 2
    return relative[at_edge], relative[~at_edge]


def _click(clips: Sequence[np.ndarray]) -> float:
    edge, elsewhere = (np.concatenate(parts) for parts in zip(*(edge_energies(clip) for clip in clips)))
    return float(10 * np.log10(edge.mean() / elsewhere.mean())) if edge.size else 0.0


def measure_sound(
    clips: Sequence[tuple[np.ndarray, str]],
    recogniser: Callable[[np.ndarray, int], str] | None = recognise,
    progress: Callable[[str], None] | None = None,
) -> SoundReport:
    """Measures what own mel and vocoder do to clips.

    Args:
      clips: (samples, reference text) each; samples (n,) float32 at 24 kHz. A clip whose text is "" counts in all but
        the word error rates.
      recogniser: from (samples, rate) to words; None leaves the word error rates out.
      progress: called with a line after each clip.

    Returns:
      The report.

    Raises:
      ValueError: no clips, or an empty or silent one.
      ImportError: recognition is asked for without the extra `replica`.
    """
    if not clips:
        raise ValueError("no clips: give at least one (samples, text)")
    originals = [np.asarray(samples, np.float32) for samples, _ in clips]
    for index, clip in enumerate(originals):
        if clip.ndim != 1 or not np.any(clip):
            raise ValueError(f"clip {index} has shape {clip.shape} or is silent: expected sounding samples, (n,)")
    _stream(np.zeros(CHUNK * OWN.hop, np.float32))  # compiles, so that the first timed call does not

    made, calls, distances = [], [], []
    error = power = 0.0
    references, heard, heard_original = [], [], []
    for index, (clip, (_, text)) in enumerate(zip(originals, clips)):
        streamed, seconds = _stream(clip)
        whole = resynthesise(clip)
        made.append(streamed)
        calls += seconds
        error += float(np.sum(np.square(streamed - whole, dtype=np.float64)))
        power += float(np.sum(np.square(whole, dtype=np.float64)))
        target = _frames(clip)
        distances.append(np.abs(_frames(streamed) - target)[target > AUDIBLE])
        if recogniser is not None and plain_words(text):
            references.append(text)
            heard_original.append(recogniser(clip, OUTPUT_RATE))
            heard.append(recogniser(streamed, OUTPUT_RATE))
        if progress is not None:
            progress(f"sound: clip {index + 1} of {len(clips)}")
    cells = np.concatenate(distances)
    return SoundReport(
        clips=len(clips),
        seconds=sum(clip.size for clip in originals) / OUTPUT_RATE,
        mel_distance=float(cells.mean()) if cells.size else 0.0,
        streaming_error=float(10 * np.log10(max(error / max(power, 1e-30), 1e-20))),
        edge_click=_click(made),
        edge_click_original=_click(originals),
        speed=CHUNK * OWN.hop / OUTPUT_RATE / float(np.median(calls)),
        word_error_original=word_error_rate(references, heard_original) if references else None,
        word_error=word_error_rate(references, heard) if references else None,
    )


def held_out_sound(progress: Callable[[str], None] | None = None) -> str:
    """Measures resynthesis on `SENTENCES` in the model's own voice, and returns the report as text.

    Args:
      progress: called with a line after each clip.

    Returns:
      `SoundReport.table`.

    Raises:
      ImportError: the extra `replica` is missing.
    """
    from tml_jax.scenes.voices import MODEL_VOICE, Synthesizer

    synthesizer = Synthesizer()
    clips = [(synthesizer.say(text, MODEL_VOICE, 1.0, seed).samples, text) for seed, text in enumerate(SENTENCES)]
    return measure_sound(clips, progress=progress).table()
