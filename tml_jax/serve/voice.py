"""The model's voice for a listener who is sent sound in real time: what waits to be played, and what is left out.

A listener with a player of its own (the page) is sent each micro-turn at once; over WebRTC the server is the player.
The first piece is held back a little, so that the next arrives before it ends. When the model yields, what waits is cut
off, so that it falls silent at once.
"""

import dataclasses

import numpy as np

from tml_jax.config import OUTPUT_RATE

_CUSHION = OUTPUT_RATE // 25  # samples that the first piece is held back
_MORE = OUTPUT_RATE // 50  # and later ones, each time that a piece came too late
_MOST_CUSHION = OUTPUT_RATE // 10
_LONGEST = 3 * OUTPUT_RATE // 5  # a voice that lags more than this behind leaves words out
# What it may still say after it yields: what waits when its last piece came in time. The listener's buffer adds to it.
KEPT_AT_YIELD = 2 * OUTPUT_RATE // 25
_FADE = OUTPUT_RATE // 200


@dataclasses.dataclass(frozen=True)
class Piece:
    """Sound that waits, (n,) float32 at 24 kHz, of the response `reply` and the micro-turn `index`, at whose end `gone`
    samples have been left out."""

    samples: np.ndarray
    reply: str
    index: int = 0
    gone: int = 0


@dataclasses.dataclass(frozen=True)
class Voice:
    """What waits to be played. Never changed.

    Attributes:
      pieces: in order; none is empty.
      wait: samples of silence before the first.
      cushion: silence that the next first piece gets.
    """

    pieces: tuple[Piece, ...] = ()
    wait: int = 0
    cushion: int = _CUSHION

    @property
    def length(self) -> int:
        """Samples until it is silent."""
        return self.wait + sum(len(piece.samples) for piece in self.pieces)


def left_out(before: Voice, after: Voice) -> dict[int, int]:
    """What will not be heard.

    Args:
      before: what waited.
      after: what is left of it, or of it and more.

    Returns:
      Micro-turn → samples at its end that are left out by now, of those where there are more than before.
    """
    kept: dict[int, int] = {}
    for piece in after.pieces:
        kept[piece.index] = kept.get(piece.index, 0) + len(piece.samples)
    left = ((piece, len(piece.samples) - kept.get(piece.index, 0)) for piece in before.pieces)
    return {piece.index: piece.gone + samples for piece, samples in left if samples > 0}


def say(voice: Voice, piece: Piece) -> Voice:
    """Adds a piece; of what lags too far behind the oldest is left out."""
    wait = voice.wait if voice.pieces else voice.cushion
    voice = dataclasses.replace(voice, pieces=(*voice.pieces, piece), wait=wait)
    while voice.length > _LONGEST and len(voice.pieces) > 1:
        voice = dataclasses.replace(voice, pieces=voice.pieces[1:])
    return voice


def cut(voice: Voice, kept: int) -> Voice:
    """Leaves out what would be played after `kept` samples, not with a click."""
    left, pieces = max(0, kept - voice.wait), []
    for piece in voice.pieces:
        if len(piece.samples) > left:
            rest = piece.samples[:left].copy()
            fade = min(_FADE, left)
            rest[left - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
            gone = piece.gone + len(piece.samples) - left
            pieces += [dataclasses.replace(piece, samples=rest, gone=gone)] if left else []
            break
        pieces.append(piece)
        left -= len(piece.samples)
    return dataclasses.replace(voice, pieces=tuple(pieces), wait=voice.wait if pieces else 0)


def play(voice: Voice, count: int) -> tuple[Voice, np.ndarray, str | None]:
    """What is to be heard next.

    Args:
      voice: what waits.
      count: samples.

    Returns:
      What waits then; (count,) float32, with silence where nothing waits; the response that sounds last in it, if any.
    """
    silence = min(voice.wait, count)
    sound, pieces, reply = [np.zeros(silence, np.float32)], list(voice.pieces), None
    left = count - silence
    while left and pieces:
        piece = pieces.pop(0)
        sound.append(piece.samples[:left])
        reply = piece.reply
        if len(piece.samples) > left:
            pieces.insert(0, dataclasses.replace(piece, samples=piece.samples[left:]))
        left -= len(sound[-1])
    sound.append(np.zeros(left, np.float32))
    return dataclasses.replace(voice, pieces=tuple(pieces), wait=voice.wait - silence), np.concatenate(sound), reply


def late(voice: Voice) -> Voice:
    """A piece has not come in time: gives later ones more of it."""
    return dataclasses.replace(voice, cushion=min(voice.cushion + _MORE, _MOST_CUSHION))
