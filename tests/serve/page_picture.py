"""Makes the README's picture of the page: generated held-out conversations, whose model side stands for a model.

PYTHONPATH=. python tests/serve/page_picture.py .readme/page.png
"""

import pathlib
import sys
import tempfile

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "data")]

from chromium import Watched, launch, open_page, start, until  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402
from scripted import SAMPLES, Line, ScriptedEngine  # noqa: E402

from tml_jax.data.record import MODEL, Conversation  # noqa: E402
from tml_jax.data.scene_families import FAMILIES  # noqa: E402
from tml_jax.data.scenes import make_conversation  # noqa: E402
from tml_jax.data.voices import Synthesizer  # noqa: E402
from tml_jax.signal.media import write_wav  # noqa: E402


def line(said: Conversation, index: int) -> Line:
    """What the model side says after a micro-turn: it is heard in the window after it."""
    start, end = 0.2 * (index + 1), 0.2 * (index + 2)
    words = [word for word in said.words if word.speaker == MODEL and word.start < end and word.end > start]
    if not words:
        return Line()
    samples = said.model_audio[(index + 1) * SAMPLES :][:SAMPLES].astype(np.float32) / 32768
    text = "".join(f" {word.text}" for word in words if word.start >= start)
    return Line(np.pad(samples, (0, SAMPLES - len(samples))), text)


def main(output: str) -> None:
    """Draws the picture to a file."""
    synthesizer, families = Synthesizer(), list(FAMILIES)
    scenes = [
        make_conversation(synthesizer, "held_out", 0, families.index(name)) for name in ("answer", "interruption")
    ]
    lines = [line(said, index) for said in scenes for index in range(said.micro_turns)]
    heard = [np.pad(said.user_audio, (0, 3200 * said.micro_turns))[: 3200 * said.micro_turns] for said in scenes]
    silence = np.zeros(16_000 * 20)  # or the recording begins anew
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        microphone = pathlib.Path(folder) / "user.wav"
        write_wav(microphone, np.concatenate([*heard, silence])[None] / 32768, 16_000)
        chromium = launch(driver, microphone)
        with Watched(ScriptedEngine(lambda index, arrived: lines[index] if index < len(lines) else Line())) as served:
            page = open_page(chromium.new_context(viewport={"width": 900, "height": 730}), served)
            start(page)
            until(page, f"observed.turns.length >= {len(lines)}")
            page.evaluate("scrollTo(0, 0)")
            page.screenshot(path=output)
            chromium.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
