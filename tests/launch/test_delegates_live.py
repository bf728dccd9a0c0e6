"""The replica that comes with the package hands sums to the background, in real time, over the server's own socket."""

import numpy as np
import pytest

from launch.server_process import serving
from tml_jax.bench.clients import turns_at_once
from tml_jax.data.layout import INPUT_SAMPLES
from tml_jax.eval.delegation import planned
from tml_jax.eval.interactivity import split_words
from tml_jax.scenes import sources
from tml_jax.scenes.voices import Synthesizer
from tml_jax.signal.pcm import float_audio

SCENES = 12
WAITED = 15  # micro-turns after a scene, in which a result that is later than in the scene can be spoken


def sums(count):
    """Held-out scenes, of a seed that nothing else uses, in which one sum is asked for aloud and comes back."""
    synthesizer, index = Synthesizer(), 0
    while count:
        scene = sources.make_conversation(synthesizer, "held_out", 41, index, "delegation")
        index += 1
        if scene.meta["variant"] in ("usual", "early", "late") and not scene.meta["typed"]:
            count -= 1
            yield scene


def talk(url, scene):
    """Plays a scene's sound in real time; returns what is due, handed over and said."""
    windows = scene.micro_turns + WAITED
    sound = np.zeros(windows * INPUT_SAMPLES, np.float32)
    sound[: len(scene.user_audio)] = float_audio(scene.user_audio)[: len(sound)]
    (turns,) = turns_at_once(url, 1, windows, sound)
    asked = [task["text"] for _, turn in turns.events for task in turn["tasks"] if task["what"] == "asked"]
    words = [word for _, turn in turns.events for word in split_words(turn["text"])]
    (task,) = planned(scene)
    return (task.text, task.due), asked, words


@pytest.mark.slow
def test_the_shipped_replica_delegates_in_live_sessions():
    handed, spoken = 0, 0
    with serving("shipped", 1, print, "--background=local") as url:
        for scene in sums(SCENES):
            (text, due), asked, words = talk(url, scene)
            handed += asked[:1] == [text]
            spoken += due in words
            print(f"due {text!r}, {due!r}: handed over {asked}, said {' '.join(words)!r}")
    print(f"handed over in the words due: {handed} of {SCENES}; result spoken: {spoken} of {SCENES}")
    assert handed >= SCENES // 2 and spoken >= SCENES // 2
