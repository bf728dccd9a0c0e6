"""The replica that comes with the package hands sums to the background, in real time, over the server's own socket."""

import base64
import json
import threading
import time

import pytest
from websockets.sync.client import connect

from launch.server_process import serving
from tml_jax.config import MICRO_TURN_SECONDS
from tml_jax.data import scenes
from tml_jax.data.layout import INPUT_SAMPLES
from tml_jax.data.voices import Synthesizer
from tml_jax.eval.delegation import planned
from tml_jax.eval.interactivity import split_words

SCENES = 12
WAITED = 15  # micro-turns after a scene, in which a result that is later than in the scene can be spoken


def sums(count):
    """Held-out scenes, of a seed that nothing else uses, in which one sum is asked for aloud and comes back."""
    synthesizer, index = Synthesizer(), 0
    while count:
        scene = scenes.make_conversation(synthesizer, "held_out", 41, index, "delegation")
        index += 1
        if scene.meta["variant"] in ("usual", "early", "late") and not scene.meta["typed"]:
            count -= 1
            yield scene


def talk(url, scene):
    """Plays a scene's sound in real time; returns what is due, handed over and said."""
    windows = scene.micro_turns + WAITED
    sound = scene.user_audio.astype("<i2").tobytes().ljust(2 * windows * INPUT_SAMPLES, b"\0")

    def play(socket):
        begun, size = time.monotonic(), 2 * INPUT_SAMPLES
        for window in range(windows):
            piece = base64.b64encode(sound[window * size : (window + 1) * size]).decode()
            socket.send(json.dumps({"type": "duplex.input", "offset": window * INPUT_SAMPLES, "audio": piece}))
            time.sleep(max(0.0, begun + MICRO_TURN_SECONDS * (window + 1) - time.monotonic()))

    asked, words = [], []
    with connect(f"{url}?duplex=1", proxy=None, max_size=None) as socket:
        player = threading.Thread(target=play, args=(socket,))
        player.start()
        index = 0
        while index < windows - 2:
            event = json.loads(socket.recv(timeout=60))
            if event["type"] == "duplex.micro_turn":
                index = event["index"]
                asked += [task["text"] for task in event["tasks"] if task["what"] == "asked"]
                words += split_words(event["text"])
        player.join()
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
