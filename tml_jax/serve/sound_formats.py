"""Sound on the wire: base64 of PCM16 or G.711 on one side, float32 at the model's rates on the other; streamed."""

import base64
import binascii
import dataclasses

import numpy as np
import soxr

from tml_jax.config import INPUT_RATE, OUTPUT_RATE
from tml_jax.signal.pcm import float_audio, pcm16


class SoundError(ValueError):
    """What came is no sound in the format that was agreed on."""


@dataclasses.dataclass(frozen=True)
class Format:
    """A format of the protocol: its name, samples a second, and whether a sample is 16 bits or a G.711 code."""

    name: str
    rate: int
    wide: bool

    def seconds(self, characters: int) -> float:
        """How long the sound is that has so many characters of base64."""
        return characters * 3 / 4 / ((1 + self.wide) * self.rate)


PCM = Format("audio/pcm", 24_000, wide=True)
FORMATS = {f.name: f for f in (PCM, Format("audio/pcmu", 8_000, wide=False), Format("audio/pcma", 8_000, wide=False))}


def _g711_levels(name: str) -> np.ndarray:
    """(256,) float32 in [−1, 1]: what each code of G.711 stands for (ITU-T G.711, 1988)."""
    code = np.arange(256)
    if name == "audio/pcmu":
        code = ~code & 255
        level = (((code & 15) << 3) + 132 << ((code >> 4) & 7)) - 132
        return (np.where(code & 128, -level, level) / 32768).astype(np.float32)
    code = code ^ 0x55
    exponent = (code >> 4) & 7
    level = np.where(exponent == 0, ((code & 15) << 4) + 8, (((code & 15) << 4) + 264) << np.maximum(exponent - 1, 0))
    return (np.where(code & 128, level, -level) / 32768).astype(np.float32)


def _nearest(samples: np.ndarray, levels: np.ndarray) -> np.ndarray:
    order = np.argsort(levels)
    ranked = levels[order]
    return order[np.searchsorted((ranked[1:] + ranked[:-1]) / 2, samples)].astype(np.uint8)


def sound_bytes(text: str) -> bytes:
    """Decodes base64.

    Raises:
      SoundError: it is none.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise SoundError(f"audio is not base64 ({error}): encode the bytes of the samples") from error


def from_pcm16(raw: bytes) -> np.ndarray:
    """Little-endian 16-bit samples as float32 in [−1, 1).

    Raises:
      SoundError: an odd number of bytes.
    """
    if len(raw) % 2:
        raise SoundError(f"{len(raw)} bytes of audio: expected whole 16-bit samples; do not cut a sample in two")
    return float_audio(np.frombuffer(raw, "<i2"))


def to_pcm16(samples: np.ndarray) -> bytes:
    """Float32 samples as little-endian 16 bits; what is louder than 1 is cut off."""
    return pcm16(samples).astype("<i2").tobytes()


class Decoder:
    """A stream of wire sound, continued from piece to piece, as (n,) float32 at 16 kHz."""

    def __init__(self, form: Format) -> None:
        """At the start of a stream.

        Args:
          form: of the wire.
        """
        self._form = form
        self._levels = None if form.wide else _g711_levels(form.name)
        self._resampler = soxr.ResampleStream(form.rate, INPUT_RATE, 1, dtype="float32")
        # The end of what came, samples before it, and samples put out: all that another resampler goes on from.
        self._past = np.zeros(0, np.float32), 0, 0
        self._ahead, self._again = np.zeros(0, np.float32), 0  # put out by a copy too early; twice

    def copy(self) -> "Decoder":
        """A decoder that goes on as this one would, and leaves it as it is."""
        new, (tail, before, made) = Decoder(self._form), self._past
        out = new._resampler.resample_chunk(tail)
        wanted = made - before * INPUT_RATE // self._form.rate
        new._past, new._ahead, new._again = self._past, out[wanted:], max(0, wanted - len(out))
        return new

    def decode(self, text: str, last: bool = False) -> np.ndarray:
        """The next piece; the filter holds up to a tenth of a second back until the next.

        Args:
          text: base64.
          last: whether nothing follows, so that nothing is held back.

        Returns:
          (n,) float32 at 16 kHz.

        Raises:
          SoundError: it is no sound of the format; nothing has changed.
        """
        raw = sound_bytes(text)
        samples = from_pcm16(raw) if self._form.wide else self._levels[np.frombuffer(raw, np.uint8)]
        out = self._resampler.resample_chunk(samples, last=last)
        again = min(self._again, len(out))
        out = np.concatenate([self._ahead, out[again:]])
        self._ahead, self._again = self._ahead[:0], self._again - again
        tail, before, made = self._past
        tail = np.concatenate([tail, samples])
        # A second is more than the filter sees; whole periods of both rates are left off, so that the copy is in step.
        gone = max(0, len(tail) - self._form.rate) // 3 * 3
        self._past = tail[gone:].copy(), before + gone, made + len(out)
        return out


class Encoder:
    """The model's sound, (n,) float32 at 24 kHz, as a stream of wire sound."""

    def __init__(self, form: Format) -> None:
        """At the start of a stream.

        Args:
          form: of the wire.
        """
        self._levels = None if form.wide else _g711_levels(form.name)
        same = form.rate == OUTPUT_RATE
        self._resampler = None if same else soxr.ResampleStream(OUTPUT_RATE, form.rate, 1, dtype="float32")

    def encode(self, samples: np.ndarray) -> str:
        """The next piece → base64."""
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples)
        raw = to_pcm16(samples) if self._levels is None else _nearest(samples, self._levels).tobytes()
        return base64.b64encode(raw).decode()
