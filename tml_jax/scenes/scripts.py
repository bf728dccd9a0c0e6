"""The words, amounts, shapes and colours of generated scenes: plain data, one part for training and one held out.

The splits share the keywords, half of the words that break in (training has more of these), the shapes and what they
do, which a replica can only know by having heard or seen them. They differ in voices (`voices.py`), wordings (of
requests and of all other talk, `patterns.py`), and every time, size, level (`grids.py`) and colour. Extrapolation has
the held-out wordings, voices and colours, and amounts beyond those of training. Development, by which to choose, has
wordings of its own, and is training in all else. Other voices is held out in all, with speakers of another engine.
"""

from tml_jax.scenes.grids import DEVELOPMENT, EXTRAPOLATION, HELD_OUT, OTHER_VOICES, TRAIN

TEST_SPLITS = (DEVELOPMENT, HELD_OUT, EXTRAPOLATION, OTHER_VOICES)
SPLITS = (TRAIN, *TEST_SPLITS)

KEYWORDS = (
    "tiger", "banana", "window", "garden", "music", "river", "doctor", "pencil", "coffee", "elephant", "kitchen",
    "bridge", "yellow", "summer",
)  # fmt: skip
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
_INTERRUPTIONS = ("stop", "wait", "hold on", "stop please", "that's enough")
INTERRUPTIONS = {
    # "wait" sounds much like "right", which must not stop the model, and so comes often.
    TRAIN: (
        *_INTERRUPTIONS, *_INTERRUPTIONS, "wait", "wait", "wait", "wait", "wait",
        "please stop", "okay stop", "wait a moment", "no stop",
        "stop now", "hang on", "please wait", "no wait", "wait wait", "hold it", "stop it", "stop there", "enough",
        "that will do", "wait please", "okay wait", "wait a second", "wait now", "just wait",
    ),
    DEVELOPMENT: _INTERRUPTIONS,
    HELD_OUT: _INTERRUPTIONS,
}  # fmt: skip
_BACKCHANNELS = ("mm hm", "uh huh", "right", "yeah")
BACKCHANNELS = {
    TRAIN: (*_BACKCHANNELS, *_BACKCHANNELS, "right", "okay", "i see", "sure", "oh yes", "oh right", "right right"),
    DEVELOPMENT: _BACKCHANNELS,
    HELD_OUT: _BACKCHANNELS,
}
CUE_WORDS = ("go", "now")
DELAYS = {"two": 2.0, "three": 3.0, "four": 4.0, "five": 5.0, "six": 6.0, "seven": 7.0}  # seconds
SHAPES = ("ball", "box", "cross", "ring")
GONE = "gone"  # what the model says of an object that is gone, unless asked for a keyword
LISTENING = "mm hm"  # how the model shows that it listens
TRANSLATIONS = {"uno": "one", "dos": "two", "tres": "three", "cuatro": "four", "cinco": "five"}

# How many there are of what the splits share, by split.
_NEAR_AMOUNTS = {
    "delays": ("two", "three", "four"), "repetitions": (2, 3, 4, 5), "objects": (1, 2, 3, 4), "repeated": (3, 4),
    "beats": (1, 2),
}  # fmt: skip
_FAR_AMOUNTS = {
    "delays": ("five", "six", "seven"), "repetitions": (6, 7, 8), "objects": (5, 6), "repeated": (5, 6), "beats": (3,),
}  # fmt: skip
AMOUNTS = {split: _FAR_AMOUNTS if split == EXTRAPOLATION else _NEAR_AMOUNTS for split in SPLITS}

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
    TRAIN: {
        "red": (225, 40, 40), "green": (50, 200, 60), "blue": (60, 90, 235), "white": (240, 240, 240),
        "yellow": (235, 225, 40), "purple": (140, 50, 200),
    },
    HELD_OUT: {"orange": (240, 140, 30), "pink": (240, 120, 190), "cyan": (50, 210, 220)},
}  # fmt: skip


def part_of(split: str) -> str:
    """The part, TRAIN or HELD_OUT, that a split takes its voices and colours from."""
    return TRAIN if split in (TRAIN, DEVELOPMENT) else HELD_OUT


def wordings_of(split: str) -> str:
    """The part, TRAIN, DEVELOPMENT or HELD_OUT, that a split takes its wordings from."""
    return split if split == DEVELOPMENT else part_of(split)
