"""Streams a recording through the exported model in this folder, 200 ms at a time.

  python caller.py question.wav answer.wav

Needs jax, numpy and safetensors, and nothing of the project that made the model. question.wav has one channel of 16-bit
samples at 16 kHz; two seconds of silence follow it, in which the model can answer. answer.wav, a new file, gets what
the model says, at 24 kHz, on the same clock. manifest.json says what else the model takes in (typed text, frames) and
puts out.
"""

import json
import pathlib
import sys
import wave
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import export
from safetensors.numpy import load_file

Arrays = dict[str, Any]
TAIL = 2.0  # seconds of silence after the question


def load(folder: pathlib.Path) -> tuple[dict[str, Any], Arrays, Callable[..., Arrays], Callable[..., Any]]:
    """Opens an export.

    Args:
      folder: what launch.export wrote.

    Returns:
      The manifest; the weights, on the device; `start(seeds)` → state; `micro_turn(state, weights, inputs)` →
      (state, output), which takes the given state over, so use only the new one after it.
    """
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    files = {name: folder / function["file"] for name, function in manifest["functions"].items()}
    start, micro_turn = (export.deserialize(bytearray(files[name].read_bytes())) for name in ("start", "micro_turn"))
    weights = jax.device_put(load_file(folder / manifest["weights"]["file"]))
    return manifest, weights, jax.jit(start.call), jax.jit(micro_turn.call, donate_argnums=0)


def no_input(manifest: dict[str, Any]) -> Arrays:
    """The inputs of a micro-turn in which nothing arrives: all zero. Replace what did arrive."""
    wanted = manifest["functions"]["micro_turn"]["inputs"]
    return {name: np.zeros(array["shape"], array["dtype"]) for name, array in wanted.items()}


def pieces(folder: pathlib.Path) -> dict[int, bytes]:
    """The bytes that each text token stands for; tokenizer.json spells every byte as one printable character."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = [byte for byte in range(256) if byte not in plain]
    byte_of = {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(moved)}
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    found = {i: bytes(byte_of[c] for c in piece) for piece, i in tokenizer["model"]["vocab"].items()}
    return found | {token["id"]: token["content"].encode() for token in tokenizer["added_tokens"]}


def read(path: str, rate: int) -> np.ndarray:
    """Samples −1 … 1 of a file; what is wrong with it ends the process with a line."""
    try:
        with wave.open(path) as file:
            if (file.getnchannels(), file.getsampwidth(), file.getframerate()) != (1, 2, rate):
                raise SystemExit(f"{path}: expected one channel of 16 bit at {rate} Hz")
            return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
    except (OSError, EOFError, wave.Error) as error:
        raise SystemExit(f"{path}: cannot be read as a wave file ({error})") from None


def main(question: str, answer: str) -> None:
    """Runs the command."""
    if not pathlib.Path(answer).absolute().parent.is_dir():
        raise SystemExit(f"{answer}: there is no such folder")
    if pathlib.Path(answer).exists():
        raise SystemExit(f"{answer} exists already: give a new file")
    folder = pathlib.Path(__file__).resolve().parent
    manifest, weights, start, micro_turn = load(folder)
    text_of, nothing = pieces(folder), no_input(manifest)
    sessions, hop = nothing["audio"].shape  # every session hears the same; what the first one says is kept
    heard = read(question, manifest["rates"]["input"])
    heard = np.pad(heard, (0, round(TAIL * manifest["rates"]["input"])))
    heard = np.pad(heard, (0, -len(heard) % hop)).reshape(-1, hop)

    state, said = start(np.arange(sessions, dtype=np.int32)), []
    for index, window in enumerate(heard):
        now = {"audio": np.tile(window, (sessions, 1)), "heard": np.ones(sessions, bool)}
        state, output = micro_turn(state, weights, {**nothing, **now})
        output = jax.device_get(output)
        tokens = output["tokens"][0, : output["count"][0]].tolist()
        words = b"".join(text_of.get(token, b"") for token in tokens).decode(errors="replace")
        gate = "SPEAK " if output["speak"][0] else "LISTEN"
        print(f"{(index + 1) * manifest['micro_turn_seconds']:6.1f} s  {gate}  {words}", flush=True)
        said.append(output["samples"][0])
    # What a micro-turn puts out is heard while the next one takes in.
    sound = np.concatenate([np.zeros_like(said[0]), *said])
    with open(answer, "xb") as raw, wave.open(raw, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(manifest["rates"]["output"])
        file.writeframes(np.rint(np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
