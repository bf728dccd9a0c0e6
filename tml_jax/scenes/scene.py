"""What a family of scenes plays with: the timeline, the draws of its split, and what all families have in common."""

import dataclasses

import numpy as np

from tml_jax.data.record import USER
from tml_jax.scenes import scripts
from tml_jax.scenes.carriers import CARRIERS, OPENINGS
from tml_jax.scenes.clips import Clip
from tml_jax.scenes.flite import OTHER_VOICES
from tml_jax.scenes.grids import GRIDS, Grids
from tml_jax.scenes.patterns import patterns
from tml_jax.scenes.phrases import draw_phrase, draw_wording
from tml_jax.scenes.render import Timeline
from tml_jax.scenes.voices import HELD_OUT_VOICES, TRAIN_VOICES, Synthesizer, Voice, vary

_OPENED_SHARE = 0.25  # of the requests of training
_PATTERN_SHARE = 0.7  # of the same, for kinds that have patterns
_PATTERN_INTERRUPTIONS = 0.6  # share, of those of training, that are of patterns; others are what everybody says
_NEW_INTERRUPTIONS = 0.5  # share, of those held out, that training does not have
COUNT_PACE = 0.6  # seconds from number to number when the model counts


@dataclasses.dataclass
class Scene:
    """What a family needs while it is played out.

    Attributes:
      timeline: where things are placed.
      rng: every draw of the scene.
      split: one of `scripts.SPLITS`.
      meta: facts to note in the record.
      microphone: whether the user has a sound channel at all.
      clips: real clips, one of which lies behind what is drawn; none for a pattern.
    """

    timeline: Timeline
    rng: np.random.Generator
    split: str
    meta: dict
    microphone: bool = True
    clips: tuple[Clip, ...] = ()

    @property
    def grids(self) -> Grids:
        """Times, sizes, levels and speeds of the split."""
        return GRIDS[self.split]

    @property
    def part(self) -> str:
        """The part of the scripts, TRAIN or HELD_OUT, that holds the split's colours."""
        return scripts.part_of(self.split)

    @property
    def wordings(self) -> str:
        """The part of the scripts, TRAIN, DEVELOPMENT or HELD_OUT, that holds what is said."""
        return scripts.wordings_of(self.split)

    def draw(self, values: tuple) -> object:
        """One of the values, each as likely."""
        return values[int(self.rng.integers(len(values)))]

    def amount(self, kind: str) -> object:
        """How many, of the split's `scripts.AMOUNTS`."""
        return self.draw(scripts.AMOUNTS[self.split][kind])

    def said(self, kind: str, count: int = 1) -> list[str]:
        """So many phrases of the split's patterns of a kind, not filled in, each of another pattern."""
        found = patterns(self.wordings, kind)
        return [draw_phrase(found[at], self.rng) for at in self.rng.choice(len(found), count, replace=False)]

    def carrier(self, kind: str, carriers: tuple[str, ...]) -> str:
        """A wording, not filled in, of the split: of its patterns, and in training as well of one of the carriers."""
        others = self.wordings != scripts.TRAIN
        if others or (patterns(self.wordings, kind) and self.rng.random() < _PATTERN_SHARE):
            return self.said(kind)[0]
        return draw_wording(self.draw(carriers), self.rng)

    def wording(self, kind: str, note: str = "wording", **fields: str) -> str:
        """A filled-in carrier of the split; the carrier (in meta, as `note`) and the fields are noted.

        In training an opening may come before it: people begin so, and it moves what is asked away from the beginning.
        """
        text = self.fill(self.carrier(kind, CARRIERS[kind]), note, **fields)
        if self.wordings == scripts.TRAIN and self.rng.random() < _OPENED_SHARE:
            return f"{self.draw(OPENINGS)} {text}"
        return text

    def keyword(self) -> str:
        """A keyword."""
        return self.draw(scripts.KEYWORDS)

    def fill(self, carrier: str, note: str = "wording", **fields: str) -> str:
        """A carrier filled in; it (in meta, as `note`) and the fields are noted."""
        self.meta.update({note: carrier}, **fields)
        return carrier.format(**fields)

    def interruption(self) -> str:
        """Words that stop the model; of those held out, half are shared with training, as everybody says them."""
        if self.rng.random() < (_PATTERN_INTERRUPTIONS if self.wordings == scripts.TRAIN else _NEW_INTERRUPTIONS):
            return self.said("interruption")[0]
        return self.draw(scripts.INTERRUPTIONS[self.wordings])

    def lead(self) -> float:
        """When the user begins."""
        return self.draw(self.grids.lead)

    def another_voice(self) -> Voice:
        """A speaker of the split who is not the user."""
        voices = tuple(voice for voice in split_voices(self.split) if voice.name != self.meta["voice"])
        voice = vary(self.draw(voices), self.rng)
        self.meta["other_voice"] = voice.name
        return voice

    def reply(self, words: str, due: float, delay: float) -> float:
        """The model says the words `delay` seconds after they became due; returns the end."""
        end = self.timeline.model(words, due + delay)
        self.timeline.cue("respond", due, end, words)
        return end

    def ask_to_count(self) -> tuple[float, list[float]]:
        """The user asks the model to count; returns when that is due and when each number begins."""
        due = self.timeline.user(self.wording("count"), self.lead())
        first = due + self.draw(self.grids.reply)
        return due, [first + COUNT_PACE * index for index in range(len(scripts.NUMBERS))]

    def count_on(self, due: float, starts: list[float], disturbed: float) -> float:
        """The model counts to the end, whatever begins at `disturbed`; returns when it is done."""
        end = due
        for number, time in zip(scripts.NUMBERS, starts):
            end = self.timeline.model(number, time)
        self.timeline.cue("respond", due, end, " ".join(scripts.NUMBERS))
        self.timeline.cue("keep", disturbed, end)
        return end

    def exchange(self, lines: tuple[tuple[str, str], ...], other: Voice, level: float, start: float) -> float:
        """The user and somebody else say their lines in turn; returns the end.

        Args:
          lines: (speaker, pattern) of each; what is not the USER's is the other's.
          other: the other's voice.
          level: dB of the other's speech relative to the user's.
          start: seconds.
        """
        end = start
        for index, (speaker, pattern) in enumerate(lines):
            text = draw_phrase(pattern, self.rng)
            begins = end + (self.rng.uniform(0.15, 0.35) if index else 0.0)
            if speaker == USER:
                end = self.timeline.user(text, begins)
            else:
                end = self.timeline.other(text, begins, other, level)
        return end


def split_voices(split: str) -> tuple[Voice, ...]:
    """The voices that may be heard in a split, but for the model's."""
    if split == scripts.OTHER_VOICES:
        return OTHER_VOICES
    return TRAIN_VOICES if scripts.part_of(split) == scripts.TRAIN else HELD_OUT_VOICES


def new_scene(synthesizer: Synthesizer, rng: np.random.Generator, split: str, clips: tuple[Clip, ...] = ()) -> Scene:
    """An empty scene with a user of the split. Every draw comes from `rng`; `synthesizer` speaks for all."""
    voices = split_voices(split)
    voice = vary(voices[int(rng.integers(len(voices)))], rng)
    speeds = GRIDS[split].speed
    speed = speeds[int(rng.integers(len(speeds)))]
    meta = {"voice": voice.name, "speed": speed, "split": split, "wording": ""}
    return Scene(Timeline(synthesizer, rng, voice, speed), rng, split, meta, clips=clips)
