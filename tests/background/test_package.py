"""The context package: the whole conversation within its budget, without what is private, the same after JSON."""

import base64
import dataclasses
import io
import json
import re
import wave

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tml_jax.background.context import Package, Privacy, from_json, messages, package, to_json
from tml_jax.background.history import MARGIN, Budget, History, Note, Sound, heard, noted, spoken
from tml_jax.background.tasks import Task
from tml_jax.data.record import BACKGROUND, USER, Text
from tml_jax.serve.windows import Arrived
from tml_jax.serve.words import MicroTurn

TASK = Task(2, 2, ("weather in paris", "tomorrow"), 3, 7, 57)


def tone(samples: int) -> np.ndarray:
    return (0.3 * np.sin(np.arange(samples) / 5)).astype(np.float32)


def frame(shade: int) -> np.ndarray:
    return np.full((40, 40, 3), shade, np.uint8)


def turn(text: str = "", speak: bool = False, display: str = "") -> MicroTurn:
    sound = tone(4800) if speak else np.zeros(4800, np.float32)
    return MicroTurn(0, 0.0, "SPEAK" if speak else "LISTEN", text, display, np.zeros((20, 80)), sound, 0.0)


def step(history: History, audio=None, typed=(), frames=(), results=(), **said) -> History:
    arrived = Arrived(audio, frames, [Text(USER, text, 0.0) for text in typed])
    history = heard(history, arrived, tuple(Text(BACKGROUND, text, 0.0) for text in results))
    return spoken(history, turn(**said))


def conversation() -> History:
    """The user speaks for 0.4 s and shows something, types, the model answers, a result comes."""
    history = step(History(), tone(3200), frames=[(0.1, frame(9))])
    history = step(history, tone(3200), frames=[(0.1, frame(10))])  # nearly the same
    history = step(history, np.zeros(3200, np.float32))
    history = step(history, np.zeros(3200, np.float32), typed=["my pin is 1234"], frames=[(0.1, frame(200))])
    history = step(history, text=" it is", speak=True)
    history = step(history, text=" dry", speak=True)
    return step(history, display=" see", results=["#1. sunny"])


def parts(packed: Package) -> list[tuple]:
    kind = lambda part: part["text"] if part["type"] == "text" else part["type"]  # noqa: E731
    return [(t.speaker, t.start, t.end, tuple(map(kind, t.parts))) for t in packed.turns]


def test_everything_is_there_with_its_time():
    packed = package(conversation(), TASK, Privacy())
    assert parts(packed) == [
        ("user", 0.0, 0.6, ("input_audio",)),  # and 0.2 s more, so that no word loses its end
        ("user", 0.0, 0.0, ("image_url",)),
        ("user", 0.6, 0.6, ("(typed) my pin is 1234",)),
        ("user", 0.6, 0.6, ("image_url",)),
        ("assistant", 1.0, 1.4, ("it is dry", "input_audio")),
        ("background", 1.2, 1.2, ("#1. sunny",)),
        ("assistant", 1.4, 1.4, ("(shown) see",)),
    ]
    assert packed.complete and packed.seconds == 10.0 and packed.request == "weather in paris; tomorrow"
    sound = base64.b64decode(packed.turns[0].parts[0]["input_audio"]["data"])
    with wave.open(io.BytesIO(sound)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (16000, 1, 9600)
        samples = np.frombuffer(file.readframes(9600), "<i2") / 32768
    np.testing.assert_allclose(samples[:3200], tone(3200), atol=1e-4)
    url = packed.turns[3].parts[0]["image_url"]["url"]
    picture = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    np.testing.assert_array_equal(np.asarray(picture), frame(200))


def test_a_package_is_the_same_after_json_and_what_is_none_is_refused():
    packed = package(conversation(), TASK, Privacy())
    assert from_json(to_json(packed)) == packed
    for text in ("", "[]", "{}", json.dumps({"format": 9}), json.dumps({"format": 1, "turns": [{}]})):
        with pytest.raises(ValueError, match="not a context package"):
            from_json(text)


def test_messages_are_those_of_the_chat_protocol():
    system, user = messages(package(conversation(), TASK, Privacy()))
    assert system["role"] == "system" and user["role"] == "user"
    texts = [part["text"] for part in user["content"] if part["type"] == "text"]
    assert texts[0] == "[user, 0.0 to 0.6 s]"
    assert texts[-2:] == ["[task, within 10 s] weather in paris", "[changed to] tomorrow"]
    assert {part["type"] for part in user["content"]} == {"text", "input_audio", "image_url"}


def test_what_is_private_stays():
    private = Privacy(audio=False, frames=False, typed=False, redact=(re.compile(r"sun\w+"), re.compile("paris")))
    packed = package(conversation(), TASK, private)
    assert parts(packed) == [
        ("user", 0.0, 0.6, ("(speaks)",)),
        ("user", 0.6, 0.6, ("(typed) [withheld]",)),
        ("assistant", 1.0, 1.4, ("it is dry",)),
        ("background", 1.2, 1.2, ("#1. [redacted]",)),
        ("assistant", 1.4, 1.4, ("(shown) see",)),
    ]
    assert packed.requests[0] == "weather in [redacted]" and not packed.complete
    told = to_json(packed)
    assert not any(secret in told for secret in ("1234", "sunny", "paris", "input_audio", "base64"))


def test_without_the_conversation_the_task_is_there_and_no_more():
    packed = package(conversation(), TASK, Privacy(redact=(re.compile("paris"),)), conversation=False)
    assert packed == Package(2, 2, ("weather in [redacted]", "tomorrow"), 10.0, complete=False)


def test_a_text_that_is_cut_by_a_pattern_over_words_is_found_whole():
    history = step(step(History(), text=" my pin is 12", speak=True), text="34 ok", speak=True)
    packed = package(history, TASK, Privacy(redact=(re.compile("1234"),)))
    assert parts(packed)[0][3][0] == "my pin is [redacted] ok"


def test_a_zero_character_is_not_taken_for_something_hidden():
    packed = package(step(History(Budget(characters=3)), text="a\0b"), TASK, Privacy())
    assert parts(packed)[0][3] == ("a\ufffdb",)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.booleans(), st.text(max_size=30), st.booleans()), max_size=40),
    st.integers(0, 20),
    st.integers(0, 3),
    st.integers(0, 60),
)
def test_the_budget_holds_whatever_is_said(steps, windows, frames, characters):
    budget = Budget(round(0.2 * windows, 6), frames, characters)
    history = History(budget)
    for index, (user, model, text, typed) in enumerate(steps):
        seen = [(0.1, frame(20 * index % 256))]
        history = step(history, tone(3200) if user else None, [text] if typed else (), seen, text=text, speak=model)
    assert len(history.heard) <= windows and len(history.said) <= windows and len(history.frames) <= frames
    for kind in ("said", "typed"):
        assert sum(len(note.text) for note in history.notes if note.kind == kind) <= characters + MARGIN
    packed = package(history, TASK, Privacy())
    assert packed.turns == tuple(sorted(packed.turns, key=lambda turn: turn.start))
    if history.heard:  # the newest is what is kept
        newest = max(index for index, (user, *_) in enumerate(steps) if user)
        assert history.heard[-1].micro_turn == newest
    written = sum(len(text) * (1 + typed) for _, _, text, typed in steps)
    assert json.loads(to_json(packed))["complete"] is not (history.forgotten or written > characters)
    shown = "".join(
        part["text"].removeprefix("(typed) ") for turn in packed.turns for part in turn.parts if "text" in part
    )
    assert len(shown) <= characters


def test_text_without_letters_does_not_pile_up():
    history = History(Budget(characters=5))
    for _ in range(100):
        history = noted(history, (Note(0, "said", ""),))
    assert not history.notes


def test_of_a_text_too_long_the_end_is_kept_and_the_model_is_told_so():
    history = step(History(Budget(characters=4)), typed=["x" * 5000 + "last"])
    packed = package(history, TASK, Privacy())
    assert parts(packed)[0][3] == ("(typed) last",) and not packed.complete


SECRET = "4711 0815"


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["said", "silent", "typed", "shown", "result"]),
    st.sets(st.integers(1, 27), max_size=6),
    st.lists(st.integers(0, 3), min_size=7, max_size=7),
    st.integers(0, 2) | st.integers(0, 40),
    st.integers(0, 3),
)
def test_a_secret_is_found_wherever_it_is_split(kind, cuts, pauses, characters, windows):
    """Whatever lies between its pieces: pauses, other speakers, sound that is forgotten, the end of the budget."""
    text = "well now it " + SECRET + " and on"
    if kind == "result":  # comes in whole words
        cuts = {cut for cut in cuts if text[cut - 1 : cut] == " "}
    places = [0, *sorted(cuts), len(text)]
    history = History(Budget(round(0.2 * windows, 6), 0, characters))
    for first, last, pause in zip(places, places[1:], pauses, strict=False):
        piece = text[first:last]
        history = step(
            history,
            typed=[piece] if kind == "typed" else (),
            results=[f"#2 {piece.strip()}"] if kind == "result" else (),
            text=piece if kind in ("said", "silent") else "",
            display=piece if kind == "shown" else "",
            speak=kind == "said",
        )
        for _ in range(pause):
            history = step(history, tone(3200), results=["#3 no"])
    packed = package(history, TASK, Privacy(redact=(re.compile(SECRET),)))
    shown = "".join(part["text"] for turn in packed.turns for part in turn.parts if part["type"] == "text")
    assert not set(SECRET) - {" "} & set(shown.replace("#2", "").replace("#3", ""))


def test_packing_takes_no_longer_for_each_word_the_more_words_there_are():
    """Counted, not timed: how often two notes are compared."""
    compared = 0

    class Counted(Note):
        def __eq__(self, other):
            nonlocal compared
            compared += 1
            return super().__eq__(other)

        __hash__ = Note.__hash__

    notes = tuple(Counted(index, "said", " a") for index in range(500))
    said = tuple(Sound(index, np.zeros(4800, np.int16)) for index in range(0, 500, 2))
    package(History(Budget(), 500, (), said, notes), TASK, Privacy())
    assert compared <= 500


def test_a_budget_that_is_none_is_refused():
    with pytest.raises(ValueError, match="frames = -1"):
        Budget(frames=-1)
    assert dataclasses.replace(Budget(), audio=0.0).audio == 0.0
