"""Scenes made by hand, one of each family that has a target, and who plays them."""

import dataclasses
import json

import numpy as np

from tml_jax.data.record import MODEL, TASK, USER, Conversation, Cue, Text, Word
from tml_jax.eval import baselines
from tml_jax.eval.abilities.aims import ABILITIES, Seen, figure
from tml_jax.eval.delegation import score_delegation
from tml_jax.eval.interactivity import measure, reply_frequency
from tml_jax.scenes.delegation import PlannedTask

NUMBERS = "one two three four five six".split()


def tone(rate, duration, words):
    times = np.arange(round(rate * duration)) / rate
    inside = np.zeros(times.size, bool)
    for word in words:
        inside |= (times >= word.start) & (times < word.end)
    return (6000 * inside * np.sin(2 * np.pi * 220 * times)).astype(np.int16)


def scene(family, heard, said, cues, duration=6.0, name="", event=None, **fields):
    """Words are (text, start, end), seconds; the picture, if there is an event, becomes bright then."""
    users, models = [Word(USER, *word) for word in heard], [Word(MODEL, *word) for word in said]
    if event is not None:
        times = 0.05 + 0.1 * np.arange(round(10 * duration))
        shades = np.where((times >= event) & (times < event + 1.2), 220, 20).astype(np.uint8)
        fields |= {"frames": np.tile(shades[:, None, None, None], (1, 40, 40, 3)), "frame_times": times}
    return Conversation(
        name or family,
        duration,
        user_audio=tone(16_000, duration, users),
        model_audio=tone(24_000, duration, models),
        words=tuple(sorted(users + models, key=lambda word: word.start)),
        cues=tuple(cues),
        family=family,
        **fields,
    )


def respond(due, *said):
    return Cue("respond", due, said[-1][2], " ".join(word for word, _, _ in said))


def counting(first, count=6, step=0.6):
    return [(NUMBERS[i], first + step * i, first + step * i + 0.4) for i in range(count)]


def scenes():
    """A scene of each family that has a target."""
    ask, late, gone = ("say", 0.4, 1.0), ("tiger", 1.33, 1.8), ("gone", 3.5, 3.9)
    count, held = counting(1.3), ("river", 2.5, 2.9)
    cut = [*counting(1.3, 3), ("four", 3.1, 3.4)]
    after, appear = ("window", 3.0, 3.4), ("now", 2.3, 2.7)
    seen = [(word, start + 0.3, start + 0.7) for word, start in zip(NUMBERS[:3], (2.0, 2.6, 3.2))]
    filler, result = ("moment", 2.1, 2.5), ("seven", 3.5, 3.9)
    task = PlannedTask("3 + 4", 1.6, "7", due="seven")
    return [
        scene("answer", [ask], [late], [respond(1.0, late)]),
        scene("pause", [ask, ("river", 1.8, 2.2)], [held], [Cue("hold", 1.0, 1.8), respond(2.2, held)]),
        scene("interruption", [ask, ("stop", 2.8, 3.1)], cut, [respond(1.0, *cut), Cue("yield", 3.1, 3.5)]),
        scene("backchannel", [ask, ("yeah", 2.5, 2.8)], count, [respond(1.0, *count), Cue("keep", 2.5, 4.6)]),
        scene("side_talk", [ask], count, [respond(1.0, *count), Cue("keep", 2.5, 4.6), Cue("hold", 4.8, 5.8)]),
        scene("background", [ask], [late], [Cue("hold", 0.0, 0.4), respond(1.0, late)]),
        scene("timed", [ask], [after], [Cue("hold", 1.0, 3.0), respond(3.0, after)]),
        scene("cue", [ask, ("go", 2.5, 2.8)], [after], [Cue("hold", 1.0, 2.8), respond(2.8, after)]),
        scene("visual", [ask], [appear], [Cue("hold", 1.6, 2.0), respond(2.0, appear)], event=2.0),
        scene("visual_stop", [ask], [appear, gone], [respond(2.0, appear), respond(3.2, gone)], event=2.0),
        scene(
            "repetition", [ask], seen, [*(respond(word[1] - 0.3, word) for word in seen), Cue("hold", 4.6, 5.8)],
            event=2.0,
        ),
        scene(
            "delegation", [ask], [filler, result], [respond(1.0, filler), respond(3.0, result)],
            texts=(Text(MODEL, "3 + 4", 1.4, TASK), Text("background", "#1. 7", 3.0)),
            meta={"tasks": [dataclasses.asdict(task)], "variant": "usual"},
        ),
        scene("silence", [ask], [], [Cue("hold", 0.0, 5.0)]),
    ]  # fmt: skip


def seen(player, conversations):
    frequency = reply_frequency(conversations)
    played = [player(each) for each in conversations]
    return [
        Seen(measure(each, turns, frequency, sound=True), score_delegation(each, turns), "faint", each.id)
        for each, turns in zip(conversations, played)
    ]


def verdicts(observed):
    aims = [aim for ability in ABILITIES for aim in ability.aims if aim.target is not None]
    return {aim.name: aim.reached(figure(aim, observed, resamples=1).value) for aim in aims}


def late(steps):
    """Plays the record some micro-turns late."""

    def play(conversation):
        turns = baselines.as_recorded(conversation)
        silent = dataclasses.replace(turns[0], gate="LISTEN", text="", samples=np.zeros(4800, np.float32), spans=())
        turns = [*[silent] * steps, *turns[: len(turns) - steps]]
        return [dataclasses.replace(turn, index=index, start=0.2 * index) for index, turn in enumerate(turns)]

    return play


def silent(conversation):
    return [
        dataclasses.replace(turn, gate="LISTEN", text="", samples=np.zeros(4800, np.float32), spans=())
        for turn in baselines.as_recorded(conversation)
    ]


def soundless(conversation):
    """Says everything, and cannot be heard."""
    turns = baselines.as_recorded(conversation)
    return [dataclasses.replace(turn, samples=np.zeros(4800, np.float32)) for turn in turns]


def results(output):
    return json.loads((output / "results.json").read_text())


def figures(output):
    return {part["name"]: part for ability in results(output)["abilities"] for part in ability["figures"]}
