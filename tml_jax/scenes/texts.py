"""Sources in which the model writes instead of speaking: transcription, plain text, captions and what comes."""

import numpy as np

from tml_jax.config import MICRO_TURN_SECONDS
from tml_jax.data.record import MODEL, USER, Conversation
from tml_jax.scenes import scripts
from tml_jax.scenes.acoustics import draw_acoustics
from tml_jax.scenes.grids import GRIDS
from tml_jax.scenes.pictures import Shape, draw_video, frame_at, frame_times, vary_colour
from tml_jax.scenes.render import Timeline, scene_duration
from tml_jax.scenes.voices import TRAIN_VOICES, Synthesizer, Voice, vary

# What the user types to ask for each kind of writing.
TRANSCRIBE, WRITE, DESCRIBE, NAME, SEEK = "transcribe", "write", "describe", "name", "find"
SEEN = "there"  # what the model writes of an object that it was to look for
# What the user says to have an object looked for.
_SEEK = (
    "find the {shape}", "look for the {shape}", "watch for a {shape}", "wait for the {shape}", "a {shape}", "{shape}",
    "when the {shape} comes", "when you see a {shape}", "if there is a {shape}", "as soon as the {shape} appears",
    "tell me when there is a {shape}", "show me the {shape}", "the {shape} please", "say when you see the {shape}",
)  # fmt: skip
_SPOKEN_SHARE = 0.7  # of these requests
# Shown text stands well inside its micro-turn's window, so that no rounding can move it into a neighbour.
INSIDE = MICRO_TURN_SECONDS / 4
# Words that scenes turn on.
_TURNED_ON = (
    *scripts.KEYWORDS, *scripts.NUMBERS, *scripts.SHAPES, *scripts.CUE_WORDS, *scripts.TRANSLATIONS, "say", "please",
    "word", "stop", "wait", "seconds", "count", "see", "gone", "plus", "minus", "times", "what", "is",
    "right", "yeah", "enough",
)  # fmt: skip
_NAMED_MICRO_TURNS = 20  # of a video with objects to be named
_CHARACTERS = 8  # of plain text in a micro-turn: about four tokens of a small vocabulary


def random_sentence(rng: np.random.Generator) -> str:
    """A sentence such as "the old dog found a boat near the river"."""

    def draw(words: tuple[str, ...]) -> str:
        return words[int(rng.integers(len(words)))]

    things = scripts.NOUNS + ("tiger", "river", "garden", "window", "doctor", "bridge", "kitchen", "pencil")
    subject = f"the {draw(scripts.ADJECTIVES)} {draw(things)}" if rng.random() < 0.6 else f"the {draw(things)}"
    sentence = f"{subject} {draw(scripts.VERBS)} the {draw(things)}"
    if rng.random() < 0.5:
        sentence += f" {draw(scripts.PREPOSITIONS)} the {draw(things)}"
    if rng.random() < 0.4:
        sentence += f" {draw(scripts.TIMES)}"
    return sentence


def _spoken_words(rng: np.random.Generator) -> str:
    """A sentence, or (mostly) a few keywords and numbers in a row: the words that the scenes turn on."""
    if rng.random() < 0.2:
        return random_sentence(rng)
    return " ".join(str(word) for word in rng.choice(_TURNED_ON, int(rng.integers(2, 7))))


def _speaker(rng: np.random.Generator) -> tuple[Voice, float]:
    """A voice and a speed of training."""
    voice, speeds = vary(TRAIN_VOICES[int(rng.integers(len(TRAIN_VOICES)))], rng), GRIDS[scripts.TRAIN].speed
    return voice, speeds[int(rng.integers(len(speeds)))]


def make_transcribed(synthesizer: Synthesizer, name: str, rng: np.random.Generator) -> Conversation:
    """The user speaks and the model writes down each word as soon as it has ended.

    Args:
      synthesizer: speaks for the user.
      name: id of the record.
      rng: every draw.

    Returns:
      The conversation. A word that ends within [0.2 t, 0.2 (t + 1)) is shown in the next window, which is the output of
      micro-turn t; words of one window are shown together.
    """
    grids = GRIDS[scripts.TRAIN]
    voice, speed = _speaker(rng)
    timeline = Timeline(synthesizer, rng, voice, speed)
    timeline.text(USER, TRANSCRIBE, 0.0)
    said = _spoken_words(rng)
    speech = timeline.speak(said)
    start = float(rng.choice(grids.lead))
    end = timeline.user(speech, start)
    shown: dict[int, list[str]] = {}
    for word in speech.words:
        window = int(np.floor((start + word.end) / MICRO_TURN_SECONDS + 1e-6)) + 1
        shown.setdefault(window, []).append(word.text)
    for window, words in shown.items():
        timeline.text(MODEL, " ".join(words), round(window * MICRO_TURN_SECONDS + INSIDE, 6))
    meta = {"voice": voice.name, "speed": speed, "wording": said, "split": scripts.TRAIN}
    return timeline.conversation(name, "transcribed", end + 0.8, meta, draw_acoustics(rng, scripts.TRAIN))


def make_text(synthesizer: Synthesizer, name: str, rng: np.random.Generator) -> Conversation:
    """The model writes a few plain sentences, without any sound."""
    timeline = Timeline(synthesizer, rng, TRAIN_VOICES[0])
    timeline.text(USER, WRITE, 0.0)
    window = 1
    for _ in range(int(rng.integers(1, 4))):
        sentence = random_sentence(rng)
        timeline.text(MODEL, sentence, round(window * MICRO_TURN_SECONDS + INSIDE, 6))
        window += -(-len(sentence) // _CHARACTERS) + 1
    end = window * MICRO_TURN_SECONDS
    return timeline.conversation(name, "text", end, {"split": scripts.TRAIN}, None, speaker=False)


def make_captioned(synthesizer: Synthesizer, name: str, rng: np.random.Generator) -> Conversation:
    """The model writes what it sees: colour, shape and direction of an object."""
    timeline = Timeline(synthesizer, rng, TRAIN_VOICES[0])
    colours = scripts.COLOURS[scripts.TRAIN]
    colour = str(rng.choice(list(colours)))
    kind = str(rng.choice(scripts.SHAPES))
    moves = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
    direction = str(rng.choice(list(moves)))
    down, right = moves[direction]
    speed = rng.uniform(9, 14)
    radius = float(rng.choice(GRIDS[scripts.TRAIN].size))
    duration = scene_duration(1.6)
    # It starts far enough from the edge it moves to, so that it keeps its direction until it has been described.
    room = 39 - 2 * radius
    travel = min(speed * 1.2, room)
    across = rng.uniform(0, room - travel)
    along = rng.uniform(0, room)
    towards = {1: across, -1: room - across, 0: along}
    centre = (radius + towards[down], radius + towards[right])
    times = frame_times(rng, duration)
    shape = Shape(kind, vary_colour(colours[colour], rng), radius, centre, (down * speed, right * speed))
    timeline.video(draw_video(rng, times, (shape,)), times)
    timeline.text(USER, DESCRIBE, 0.0)
    caption = f"a {colour} {kind} moving {direction}"
    timeline.text(MODEL, caption, round(3 * MICRO_TURN_SECONDS + INSIDE, 6))
    meta = {"wording": caption, "split": scripts.TRAIN}
    return timeline.conversation(name, "captioned", duration, meta, None, speaker=False)


def make_named(synthesizer: Synthesizer, name: str, rng: np.random.Generator) -> Conversation:
    """Objects come and go one after the other, and the model writes what each is in the micro-turn after it came.

    Twelve names in four seconds: a caption has one name of a shape among five words, and replicas that had seen 24,000
    of them told no shape from another. Each object comes with a micro-turn, so that both its frames show it: of 28,000
    names of objects that came with either frame nothing was learned, of 15,000 of these enough to go on from.
    """
    timeline = Timeline(synthesizer, rng, TRAIN_VOICES[0])
    timeline.text(USER, NAME, 0.0)
    named = _parade(timeline, rng, 1, _NAMED_MICRO_TURNS, {kind: kind for kind in scripts.SHAPES})
    meta = {"wording": " ".join(named), "split": scripts.TRAIN}
    end = _NAMED_MICRO_TURNS * MICRO_TURN_SECONDS
    return timeline.conversation(name, "named", end, meta, None, speaker=False)


def make_sought(synthesizer: Synthesizer, name: str, rng: np.random.Generator) -> Conversation:
    """The user asks for one kind of object, by voice or in writing; of those that come, the model notes each such one.

    As dense as `named`: from scenes that wait for an object among others, two or three in ten seconds, replicas learned
    to speak at the first that came, whatever it was.
    """
    kind = str(rng.choice(scripts.SHAPES))
    timeline = Timeline(synthesizer, rng, *_speaker(rng))
    request = _SEEK[int(rng.integers(len(_SEEK)))].format(shape=kind)
    timeline.text(USER, SEEK, 0.0)
    asked, spoken = 0.0, rng.random() < _SPOKEN_SHARE
    if spoken:
        asked = timeline.user(request, float(rng.choice(GRIDS[scripts.TRAIN].lead)))
    else:
        timeline.text(USER, kind, MICRO_TURN_SECONDS)
    first = int(np.ceil(asked / MICRO_TURN_SECONDS)) + int(rng.integers(2, 5))
    seen = _parade(timeline, rng, first, first + _NAMED_MICRO_TURNS, {kind: SEEN}, kind)
    acoustics = draw_acoustics(rng, scripts.TRAIN) if spoken else None
    meta = {"wording": request, "shape": kind, "seen": " ".join(seen), "split": scripts.TRAIN}
    end = (first + _NAMED_MICRO_TURNS) * MICRO_TURN_SECONDS
    return timeline.conversation(name, "sought", end, meta, acoustics, speaker=False)


def _parade(
    timeline: Timeline,
    rng: np.random.Generator,
    first: int,
    end: int,
    written: dict[str, str],
    often: str = "",
) -> list[str]:
    """Objects come and go one after the other; returns their kinds.

    Args:
      timeline: gets the frames, and what the model writes.
      rng: every draw.
      first: micro-turn with which the first object comes.
      end: the micro-turn after the last.
      written: kind → what the model writes in the micro-turn after one came; nothing of other kinds.
      often: a kind that every second object is, or "".
    """
    colours = tuple(scripts.COLOURS[scripts.TRAIN].values())
    times = frame_times(rng, (end + 1) * MICRO_TURN_SECONDS)  # the last may go with the end
    shapes, kinds, turn = [], [], first
    while turn < end - 1:
        others = [kind for kind in scripts.SHAPES if not kinds or kind != kinds[-1]]
        kind = others[int(rng.integers(len(others)))]
        if often in others and rng.random() < 0.5:
            kind = often
        kinds.append(kind)
        stays = 1 if rng.random() < 0.7 else 2
        appears, gone = (frame_at(times, at * MICRO_TURN_SECONDS) for at in (turn, turn + stays))
        colour = vary_colour(colours[int(rng.integers(len(colours)))], rng)
        radius = float(rng.choice(GRIDS[scripts.TRAIN].size))
        start, velocity = tuple(rng.uniform(10, 29, 2)), tuple(rng.uniform(-8, 8, 2))
        shapes.append(Shape(kind, colour, radius, start, velocity, appears, gone))
        if kind in written:
            timeline.text(MODEL, written[kind], round((turn + 1) * MICRO_TURN_SECONDS + INSIDE, 6))
        turn += stays + int(rng.random() < 0.2)
    timeline.video(draw_video(rng, times, shapes), times)
    return kinds
