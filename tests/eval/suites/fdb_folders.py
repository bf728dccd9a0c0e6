"""A small benchmark in the layout of Full-Duplex-Bench v1 and v1.5, made of three seconds of real speech."""

import json
import pathlib

import numpy as np

from tml_jax.signal.media import resample, write_wav

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"
RATE = 16_000


def speech() -> np.ndarray:
    """(47840,) float32 at 16 kHz: "he was not an ill disposed young man"."""
    return np.load(GOLDEN / "mel_golden.npz")["speech"].astype(np.float32) / 32768


def sound(seconds: float, pieces: list[tuple[float, float, float]], rate: int = RATE, seed: int = 0) -> np.ndarray:
    """Faint noise with pieces of the speech in it.

    Args:
      seconds: length.
      pieces: (at, from, to) seconds: where the piece lies, and what of the speech it is; beyond its end it is repeated.
      rate: Hz of the result.
      seed: of the noise.

    Returns:
      (n,) float32.
    """
    out = np.random.default_rng(seed).normal(0, 3e-4, round(seconds * RATE)).astype(np.float32)
    said = np.tile(speech(), 4)
    for at, first, last in pieces:
        piece = said[round(first * RATE) : round(last * RATE)]
        place = round(at * RATE)
        out[place : place + len(piece)] += piece[: len(out) - place]
    return resample(out[None], RATE, rate)[0]


def words(*timed: tuple[str, float, float | None]) -> dict:
    """`output.json` of timed words."""
    chunks = [{"text": text, "timestamp": [start, end]} for text, start, end in timed]
    return {"text": " ".join(text for text, _, _ in timed), "chunks": chunks}


def put(folder: pathlib.Path, **content) -> None:
    """Writes files into a folder, which is made: `output_json=…` goes to output.json; sound as (samples, rate)."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in content.items():
        stem, ending = name.rsplit("_", 1)
        if ending == "wav":
            write_wav(folder / f"{stem}.wav", value[0][None], value[1])
        else:
            (folder / f"{stem}.json").write_text(json.dumps(value))


def spread(count: int, start: float, end: float) -> dict:
    """`output.json` of `count` words evenly from start to end."""
    edges = np.linspace(start, end, count + 1).round(3).tolist()
    return words(*[(f"w{i}", edges[i], edges[i + 1]) for i in range(count)])


def make_v1(root: pathlib.Path) -> None:
    """Every branch of the published v1 evaluator: few words, many words, open ends, nobody, early and late."""
    pauses = [
        words(),
        spread(2, 1.0, 1.4),
        spread(4, 1.0, 1.8),
        spread(2, 1.0, 2.5),
        words(("a", 0.2, 0.4), ("b", 1.1, None)),
    ]
    for number, output in enumerate(pauses):
        put(root / "candor_pause_handling" / str(number), output_json=output, pause_json=[{"timestamp": [1.0, 2.0]}])
    put(root / "synthetic_pause_handling" / "1", output_json=spread(9, 0.1, 3.0))

    turns = [(2.0, spread(6, 2.4, 4.0)), (2.0, spread(6, 1.5, 4.0)), (2.0, words()), (3.1, spread(2, 3.3, 3.6))]
    turns.append((1.25, spread(5, 2.0, 2.5)))
    for number, (end, output) in enumerate(turns):
        turn = [{"text": "[TURN-TAKING]", "timestamp": [end, end + 0.4]}]
        put(root / "candor_turn_taking" / str(number), output_json=output, turn_taking_json=turn)

    interruptions = [(4.0, spread(8, 4.6, 7.0)), (5.5, words()), (3.0, spread(3, 3.1, 3.8)), (2.5, spread(4, 2.4, 3.0))]
    for number, (end, output) in enumerate(interruptions, start=1):
        fact = [{"context": "What is new?", "interrupt": "And the weather?", "timestamp": [end - 1.5, end]}]
        put(root / "synthetic_user_interruption" / str(number), output_json=output, interrupt_json=fact)

    # (pieces, rate, words): short and long backchannels, a turn, a turn before a backchannel, many words, none at all.
    backchannels = [
        ([(1.0, 0.2, 0.7), (4.0, 0.0, 0.6)], RATE, words(("he", 1.05, 1.2), ("was", 4.1, 4.3))),
        ([(1.0, 0.0, 2.0), (6.0, 0.2, 0.8)], RATE, words(("he", 1.0, 1.5), ("was", 1.5, 2.9), ("mm", 6.1, 6.5))),
        ([(0.5, 0.2, 0.8), (3.0, 0.0, 5.5)], RATE, spread(12, 0.5, 8.0)),
        ([(2.0, 0.1, 0.9)], 24_000, words(("he", 2.0, 2.2), ("was", 2.2, 2.4), ("not", 2.4, 2.6), ("an", 2.6, None))),
        ([], RATE, words()),
        ([(1.0, 0.0, 1.6), (5.2, 0.2, 0.8)], 24_000, words(("yes", 1.1, 1.4), ("mm", None, None), ("hm", 5.2, 5.6))),
    ]
    for number, (pieces, rate, output) in enumerate(backchannels):
        made = sound(10.0, pieces, rate, number), rate
        put(root / "icc_backchannel" / str(number), output_wav=made, output_json=output)
    rng = np.random.default_rng(5)
    reference = {str(number): (counts / counts.sum()).tolist() for number, counts in enumerate(rng.random((6, 37)))}
    (root / "icc_gt_distribution.json").write_text(json.dumps(reference))


def make_v15(root: pathlib.Path) -> None:
    """Overlaps, gaps that are merged and gaps that are not, answers, and a model that says nothing."""
    sides = [  # pieces of the user, of the model
        ([(0.5, 0.0, 2.0), (6.0, 0.0, 1.5)], [(3.0, 0.0, 4.0), (8.2, 0.0, 2.0)]),
        ([(0.5, 0.0, 1.0), (1.9, 0.2, 1.2), (5.0, 0.0, 2.5)], [(3.4, 0.3, 2.2), (5.6, 0.2, 1.0), (6.9, 0.2, 2.0)]),
        ([(1.0, 0.0, 2.0)], []),
        ([(0.5, 0.0, 3.0)], [(0.2, 0.0, 9.0)]),
    ]
    for task in ("user_interruption", "user_backchannel"):
        for number, (user, model) in enumerate(sides[:: 1 if task == "user_interruption" else 2], start=1):
            shift = 0.0 if task == "user_interruption" else 0.35
            heard = sound(12.0, [(at + shift, first, last) for at, first, last in user], seed=number)
            said = sound(12.0, model, seed=10 + number)
            meta = {"context_text": "What is new?", "current_turn_text": "And the weather?", "timestamps": [5.0, 7.5]}
            put(
                root / task / str(number),
                input_wav=(heard, RATE), clean_input_wav=(heard, RATE), metadata_json=meta,
                output_wav=(said, RATE), clean_output_wav=(said, RATE),
            )  # fmt: skip
