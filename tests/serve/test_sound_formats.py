"""Sound on the wire: what is sent is what is heard, however it is cut."""

import base64

import numpy as np
import pytest

from tml_jax.serve.sound_formats import FORMATS, Decoder, Encoder, SoundError, from_pcm16, to_pcm16


def tone(rate: int, seconds: float = 1.0, pitch: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * pitch * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


@pytest.mark.parametrize("name", FORMATS)
def test_a_tone_survives_the_way_there_in_any_pieces(name):
    form = FORMATS[name]
    # The wire's own bytes, made by the other direction: 24 kHz → wire.
    wire = base64.b64decode("".join(Encoder(form).encode(tone(24_000))).encode())
    width = 2 if form.wide else 1
    whole = Decoder(form).decode(base64.b64encode(wire).decode(), last=True)
    decoder, step = Decoder(form), width * form.rate // 50
    parts = [wire[first : first + step] for first in range(0, len(wire), step)]
    pieces = [decoder.decode(base64.b64encode(part).decode(), last=part is parts[-1]) for part in parts]
    np.testing.assert_allclose(np.concatenate(pieces), whole, atol=1e-6)
    heard = whole[1600:12_000]
    expected = tone(16_000)[1600:12_000]
    assert np.sqrt(np.mean(np.square(heard - expected))) < (1e-3 if form.wide else 2e-2)


@pytest.mark.parametrize("name", FORMATS)
def test_a_copy_goes_on_as_its_decoder_would_and_leaves_it_as_it_is(name):
    form, rng = FORMATS[name], np.random.default_rng(3)
    sizes = [0, 1, 333, *rng.integers(0, form.rate // 2, 12).tolist()]
    pieces = [rng.integers(0, 256, size * (1 + form.wide)).astype(np.uint8).tobytes() for size in sizes]
    decoder, copied, plain, by_copies = Decoder(form), Decoder(form), [], []
    for text in (base64.b64encode(piece).decode() for piece in pieces):
        decoder.copy().decode(text)  # abandoned
        plain.append(decoder.decode(text))
        copied = copied.copy()
        by_copies.append(copied.decode(text))
    plain, by_copies = np.concatenate(plain), np.concatenate(by_copies)
    length = min(len(plain), len(by_copies))  # one may hold a little more back
    assert length > len(plain) - 1700
    np.testing.assert_allclose(by_copies[:length], plain[:length], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "code", "level"),
    # From the tables of ITU-T G.711: the ends and both codes next to zero.
    [
        ("audio/pcmu", 0x00, -32124), ("audio/pcmu", 0x80, 32124), ("audio/pcmu", 0xFF, 0), ("audio/pcmu", 0xFE, 8),
        ("audio/pcma", 0x2A, -32256), ("audio/pcma", 0xAA, 32256), ("audio/pcma", 0xD5, 8), ("audio/pcma", 0x55, -8),
    ],
)  # fmt: skip
def test_codes_of_g711_stand_for_the_levels_of_its_tables(name, code, level):
    assert Decoder(FORMATS[name])._levels[code] * 32768 == level


def test_sixteen_bits_are_kept_and_what_is_too_loud_is_cut():
    every = np.arange(-32768, 32768, dtype=np.int16)
    np.testing.assert_array_equal(np.frombuffer(to_pcm16(from_pcm16(every.tobytes())), "<i2"), every)
    assert np.frombuffer(to_pcm16(np.asarray([2.0, -2.0])), "<i2").tolist() == [32767, -32768]


def test_what_is_no_sound_is_refused():
    with pytest.raises(SoundError, match="not base64"):
        Decoder(FORMATS["audio/pcm"]).decode("é")
    with pytest.raises(SoundError, match="3 bytes of audio"):
        Decoder(FORMATS["audio/pcm"]).decode("AAAA")
