"""Makes the README's picture of the page: a real conversation with a trained model, which hands two sums over.

PYTHONPATH=. python tests/serve/page_picture.py .readme/page.png [CHECKPOINT]

Without a checkpoint it is the replica that comes with the package. A model that does not hand them over gets no
picture. On a machine that is busy with other things the voice has gaps.
"""

import pathlib
import sys
import tempfile

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from chromium import Watched, launch, open_page, start, until  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402

from tml_jax import shipped  # noqa: E402
from tml_jax.background.desk import Background  # noqa: E402
from tml_jax.background.local import LocalBackend, LocalTools  # noqa: E402
from tml_jax.background.runner import Runner  # noqa: E402
from tml_jax.config import INPUT_RATE  # noqa: E402
from tml_jax.scenes.voices import HELD_OUT_VOICES, RATE, Synthesizer  # noqa: E402
from tml_jax.serve.engine import Engine  # noqa: E402
from tml_jax.serve.program import load_model  # noqa: E402
from tml_jax.signal.media import resample, write_wav  # noqa: E402

# Seconds of silence, and what is said then; the last silence is long, or the recording begins anew.
SPOKEN = ((3.0, "what is three plus four"), (5.0, "please work out two times three"), (60.0, ""))
READ = "[...document.querySelectorAll('#tasks li')].filter((card) => card.dataset.state === 'read').length"


def spoken() -> np.ndarray:
    """(n,) float32 at 16 kHz."""
    synthesizer, parts = Synthesizer(), []
    for silence, text in SPOKEN:
        parts.append(np.zeros(round(silence * INPUT_RATE), np.float32))
        if text:
            said = synthesizer.say(text, HELD_OUT_VOICES[0]).samples
            parts.append(resample(said[None], RATE, INPUT_RATE)[0])
    return np.concatenate(parts)


def main(output: str, checkpoint: str = shipped.NAME) -> None:
    """Draws the picture to a file."""
    loaded = load_model(str(shipped.resolve(checkpoint)), delegate=True)
    engine = Engine(loaded, 1)
    engine.warm_up()
    runner = Runner(LocalBackend(LocalTools()))
    runner.start()
    background = Background(runner, loaded.tokenizer, loaded.config)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        microphone = pathlib.Path(folder) / "user.wav"
        write_wav(microphone, spoken()[None], INPUT_RATE)
        chromium = launch(driver, microphone)
        with Watched(engine, background, model="replica") as served:
            page = open_page(chromium.new_context(viewport={"width": 900, "height": 860}), served)
            start(page)
            until(page, f"{READ} === 2")
            page.wait_for_timeout(2500)  # until it has said what came
            page.evaluate("scrollTo(0, 0)")
            page.screenshot(path=output)
            chromium.close()
    runner.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
