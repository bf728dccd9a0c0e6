"""What is said, shown and waited for in generated scenes: plain data, one part for training and one held out.

The two splits share the keywords, the words that break in and the shapes, which a replica can only know by having heard
or seen them. They differ in voices (`voices.py`), wordings, and every time, size and colour (`Grids`).
"""

import dataclasses

import numpy as np

TRAIN, HELD_OUT = "train", "held_out"

KEYWORDS = (
    "tiger", "banana", "window", "garden", "music", "river", "doctor", "pencil", "coffee", "elephant", "kitchen",
    "bridge", "yellow", "summer",
)  # fmt: skip
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
INTERRUPTIONS = ("stop", "wait", "hold on", "stop please", "that's enough")
BACKCHANNELS = ("mm hm", "uh huh", "right", "yeah")
CUE_WORDS = ("go", "now")
DELAYS = {"two": 2.0, "three": 3.0, "four": 4.0}  # seconds
SHAPES = ("ball", "box", "cross", "ring")

# {keyword}, {cue}, {delay} and {shape} are filled in. A comma is where a `pause` scene pauses.
CARRIERS = {
    "answer": {
        TRAIN: (
            "please say the word {keyword}", "say {keyword}", "can you say {keyword}",
            "could you say {keyword} for me", "i want you to say {keyword}", "repeat after me {keyword}",
            "now say {keyword}", "just say {keyword} please", "tell me the word {keyword}",
            "say the word {keyword} now",
        ),
        HELD_OUT: ("would you please say {keyword}", "let me hear you say {keyword}", "say {keyword} to me"),
    },
    "pause": {
        TRAIN: (
            "please say the word, {keyword}", "can you say, {keyword}", "i want you to say, {keyword}",
            "could you please say, {keyword}", "now say the word, {keyword}", "repeat after me, {keyword}",
            "tell me the word, {keyword}", "what i want you to say is, {keyword}",
        ),
        HELD_OUT: (
            "would you please say, {keyword}", "let me hear you say, {keyword}", "the word to say is, {keyword}",
        ),
    },
    "count": {
        TRAIN: (
            "please count to eight", "count from one to eight", "can you count to eight", "start counting please",
            "i want you to count to eight", "count up to eight for me", "could you count to eight",
            "now count to eight please",
        ),
        HELD_OUT: ("would you count to eight", "let me hear you count to eight", "begin to count from one"),
    },
    "timed": {
        TRAIN: (
            "in {delay} seconds say {keyword}", "say {keyword} in {delay} seconds",
            "wait {delay} seconds and say {keyword}", "please say {keyword} in {delay} seconds",
            "after {delay} seconds say {keyword}", "{delay} seconds from now say {keyword}",
            "can you say {keyword} after {delay} seconds", "wait for {delay} seconds then say {keyword}",
        ),
        HELD_OUT: (
            "would you say {keyword} in {delay} seconds", "let {delay} seconds pass then say {keyword}",
            "say the word {keyword} after {delay} seconds",
        ),
    },
    "cue": {
        TRAIN: (
            "say {keyword} when i say {cue}", "when i say {cue} say {keyword}", "please say {keyword} when i say {cue}",
            "as soon as i say {cue} say {keyword}", "wait until i say {cue} and say {keyword}",
            "say the word {keyword} when i say {cue}", "when you hear {cue} say {keyword}",
            "can you say {keyword} when i say {cue}",
        ),
        HELD_OUT: (
            "would you say {keyword} when i say {cue}", "say {keyword} as soon as you hear {cue}",
            "once i say {cue} please say {keyword}",
        ),
    },
    "visual": {
        TRAIN: (
            "say {keyword} when you see the {shape}", "when you see a {shape} say {keyword}",
            "please say {keyword} when the {shape} appears", "as soon as you see the {shape} say {keyword}",
            "say {keyword} when there is a {shape}", "watch for the {shape} and say {keyword}",
            "can you say {keyword} when you see a {shape}", "when the {shape} comes say {keyword}",
        ),
        HELD_OUT: (
            "would you say {keyword} when you see the {shape}", "say {keyword} once the {shape} shows up",
            "look out for a {shape} and say {keyword}",
        ),
    },
    "silence": {
        TRAIN: (
            "i went to the market this morning", "the weather is nice today", "my brother lives near the river",
            "we had coffee in the garden", "she is reading a book by the window", "it was a very long summer",
            "they built a bridge last year", "i left my keys in the kitchen", "the doctor was late again",
        ),
        HELD_OUT: (
            "my sister plays music at home", "the train was full of people", "he painted the old door yellow",
            "there was snow on the hills",
        ),
    },
}  # fmt: skip

# What the user goes on talking about in `cue` scenes, before and after the cue word.
FILLERS = {
    TRAIN: (
        "i am looking for my keys", "the bus was late today", "we should buy some bread", "my shoes are still wet",
        "it is getting dark outside", "the children are at school", "i need to call my mother", "the cat is asleep",
        "there is a letter on the table", "he is coming back tomorrow",
    ),
    HELD_OUT: (
        "our neighbour has a new car", "the shop closes at six", "i forgot to water the plants", "it smells like rain",
    ),
}  # fmt: skip

# Ordinary words for transcription and for plain text.
ADJECTIVES = ("old", "small", "green", "quiet", "happy", "cold", "heavy", "young", "bright", "slow", "empty", "clean")
NOUNS = (
    "dog", "house", "teacher", "road", "apple", "train", "letter", "boat", "table", "flower", "horse", "city", "lamp",
    "child", "farmer", "door", "mountain", "shop", "bird", "island",
)  # fmt: skip
VERBS = (
    "found", "painted", "carried", "followed", "saw", "liked", "moved", "cleaned", "watched", "opened", "sold", "took",
)  # fmt: skip
PREPOSITIONS = ("near", "behind", "under", "beside", "above", "before")
TIMES = ("today", "this morning", "last week", "in the evening", "at night", "again")

COLOURS = {
    TRAIN: {"red": (225, 40, 40), "green": (50, 200, 60), "blue": (60, 90, 235), "white": (240, 240, 240)},
    HELD_OUT: {"orange": (240, 140, 30), "pink": (240, 120, 190), "cyan": (50, 210, 220)},
}


def _grid(low: float, high: float, step: float, half: bool) -> tuple[float, ...]:
    """Values from `low` to `high`, or those half-way between them."""
    values = np.arange(low + (step / 2 if half else 0.0), high + step * 0.01, step)
    return tuple(round(float(value), 4) for value in values)


@dataclasses.dataclass(frozen=True)
class Grids:
    """Values that a split draws its times (seconds), sizes and speeds from. No value occurs in both splits.

    Attributes:
      lead: silence before the user begins.
      reply: from the end of the request to the reply.
      typed_reply: the same for typed requests, whose text may take two micro-turns to come in.
      pause: pause within a sentence.
      cue_reply: from the end of the cue word to the reply.
      event_reply: from the frame that shows the object to the reply.
      event: from the end of the request to that frame.
      break_in: from the start of the model's counting to the user's breaking in.
      tail: silence after the last event.
      speed: of the user's speech.
      size: radius of an object in pixels.
    """

    lead: tuple[float, ...]
    reply: tuple[float, ...]
    typed_reply: tuple[float, ...]
    pause: tuple[float, ...]
    cue_reply: tuple[float, ...]
    event_reply: tuple[float, ...]
    event: tuple[float, ...]
    break_in: tuple[float, ...]
    tail: tuple[float, ...]
    speed: tuple[float, ...]
    size: tuple[float, ...]


def _grids(half: bool) -> Grids:
    return Grids(
        lead=_grid(0.1, 0.6, 0.05, half),
        reply=_grid(0.25, 0.45, 0.02, half),
        typed_reply=_grid(0.45, 0.65, 0.02, half),
        pause=_grid(0.5, 1.6, 0.1, half),
        cue_reply=_grid(0.2, 0.4, 0.02, half),
        event_reply=_grid(0.3, 0.5, 0.02, half),
        event=_grid(0.6, 2.4, 0.1, half),
        break_in=_grid(1.0, 2.8, 0.1, half),
        tail=_grid(0.6, 1.0, 0.1, half),
        speed=_grid(0.9, 1.1, 0.04, half),
        size=_grid(5.0, 10.0, 1.0, half),
    )


GRIDS = {TRAIN: _grids(False), HELD_OUT: _grids(True)}
