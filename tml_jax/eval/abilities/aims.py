"""The abilities that the suite `interactivity` measures, their targets, and what each figure is made of.

Every figure pools the cases of whole scenes; its interval comes from drawing wordings, each with all its scenes, since
scenes of one wording are right or wrong together. A case is one `Measurement`
entry, as the head of `eval/interactivity.py` defines them, judged by the sound that the model makes.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tml_jax.eval.abilities.ablations import AUDIO_MUTED, TIME_SHUFFLED, VIDEO_FROZEN
from tml_jax.eval.delegation import Delegation
from tml_jax.eval.estimates import Estimate, estimate, for_few_groups, medians, ratio, resample_groups
from tml_jax.eval.interactivity import NEVER_SECONDS, Measurement
from tml_jax.scenes.scripts import HELD_OUT, INTERRUPTIONS

NOTHING_ASKED = "nothing is asked"


@dataclasses.dataclass(frozen=True)
class Seen:
    """What was observed in one scene: of timing and words, and of tasks for the background.

    Attributes:
      measured: of timing and words.
      tasks: for the background.
      noise: behind the scene, a kind of `scenes/acoustics.py`; `faint` where that is little and all, `none` without a
        microphone.
      wording: what is said that decides, before it is filled in: what breaks in where something does, else what the
        user asks, `NOTHING_ASKED` where nobody does.
    """

    measured: Measurement
    tasks: Delegation
    noise: str
    wording: str

    @property
    def family(self) -> str:
        """Of the scene."""
        return self.measured.family


@dataclasses.dataclass(frozen=True)
class Aim:
    """One figure of an ability.

    Attributes:
      name: of the figure.
      families: of the scenes that it is measured on; () for all.
      cases: the cases of a scene: for a share True or False each, for a median seconds.
      target: to be reached; None where the figure is only shown.
      at_most: the target is a limit from above, else from below.
      median: the figure is the median of seconds, else a share.
      counts: the cases judge the number that was counted.
    """

    name: str
    families: tuple[str, ...]
    cases: Callable[[Seen], Sequence[float]]
    target: float | None = None
    at_most: bool = False
    median: bool = False
    counts: bool = False

    @property
    def unit(self) -> str:
        """`s` or `%` (a share, 0 to 1)."""
        return "s" if self.median else "%"

    def reached(self, value: float) -> bool | None:
        """Whether a value reaches the target; None where there is none, or no case."""
        if self.target is None or np.isnan(value):
            return None
        return bool(value <= self.target if self.at_most else value >= self.target)

    def worse(self, found: Estimate, than: Estimate) -> bool:
        """Whether a figure is worse than another, and their 95% intervals lie apart."""
        return bool(found.low > than.high if self.at_most else found.high < than.low)


@dataclasses.dataclass(frozen=True)
class Ability:
    """What a model should be able to do.

    Attributes:
      name: of the ability; "" for figures beyond them.
      own: the ablation under which it must collapse.
      aims: its figures, all of which must reach their targets.
    """

    name: str
    own: str
    aims: tuple[Aim, ...]


def figure(aim: Aim, scenes: Sequence[Seen], seed: int = 0, resamples: int = 1000) -> Estimate:
    """The figure of an aim with its 95% interval over wordings; NaN with a count of 0 where there is no case.

    Args:
      aim: what to measure.
      scenes: of any family; those of other families than the aim's are left out.
      seed: of the bootstrap.
      resamples: of the bootstrap.
    """
    judged = [item for item in scenes if not aim.families or item.family in aim.families]
    rows = [aim.cases(item) for item in judged]
    if not any(len(row) for row in rows):
        return Estimate(np.nan, np.nan, np.nan, 0)
    groups = [item.wording for item in judged]
    weights = resample_groups(groups, seed, resamples)
    counts = np.asarray([len(row) for row in rows])
    if aim.median:
        values = np.asarray([value for row in rows for value in row], np.float64)
        drawn = medians(values, weights[:, np.repeat(np.arange(len(rows)), counts)])
    else:
        drawn = ratio(weights @ np.asarray([sum(row) for row in rows]), weights @ counts)
    found = estimate(drawn, int(counts.sum()))
    return for_few_groups(found, len(set(groups)), (-math.inf, NEVER_SECONDS) if aim.median else (0.0, 1.0))


def with_best_constant(aim: Aim, scenes: Sequence[Seen]) -> Sequence[Seen]:
    """The scenes as if the same number had been counted in each: the one that is right most often in these very scenes.

    Nobody who gives the same number to every scene does better. The smallest, where several are as good.

    Args:
      aim: whose cases say what is right.
      scenes: of any family.

    Returns:
      Those of the aim's families, with that number; all, as they are, where the aim does not judge counts.
    """
    judged = [item for item in scenes if item.family in aim.families] if aim.counts else []
    numbers = [due for item in judged for due, _ in item.measured.counts]
    if not numbers:
        return scenes
    return max(
        ([_with_count(item, number) for item in judged] for number in range(min(numbers), max(numbers) + 1)),
        key=lambda given: sum(sum(aim.cases(item)) for item in given),
    )


def passed(scene: Seen) -> bool:
    """Whether everything in a scene was right: each reply in time with the words due, no take-over, no false start.

    Where the user interrupts it also yielded, where they do not it kept its turn; what it counted was exact; the tasks
    were those due, in their words, and what came of them was said.
    """
    item, tasks = scene.measured, scene.tasks
    right = all(item.timely) and all(item.yields) and all(item.keeps) and all(said == due for due, said in item.counts)
    wrong = any(item.take_overs) or any(item.false_starts)
    handed_over = tasks.due == tasks.asked == tasks.right and all(tasks.result) and all(tasks.cancelled)
    return right and not wrong and handed_over


def collapses(ability: Ability, model: Mapping[str, Estimate], ablated: Mapping[str, Estimate]) -> bool | None:
    """Whether an ability falls under its own ablation: a figure is worse, beyond both intervals, and off its target.

    Args:
      ability: whose aims are looked at.
      model: figure of each aim, by name.
      ablated: the same under the ability's own ablation.

    Returns:
      None where nothing was measured.
    """
    aims = [aim for aim in ability.aims if aim.target is not None and model[aim.name].count]
    if not aims:
        return None
    return any(
        aim.worse(ablated[aim.name], model[aim.name]) and not aim.reached(ablated[aim.name].value) for aim in aims
    )


def _holding(scene: Seen) -> list[bool]:
    """The turn is kept where it is the model's, and not taken where it is not, but for the replies that are due."""
    item = scene.measured
    return [*item.keeps, *(not taken and all(item.on_time) for taken in item.take_overs)]


def _counted(scene: Seen, tolerance: int) -> list[bool]:
    """Whether the last number is near enough, and nothing was said before there was anything to count nor after it.

    Without the latter, who counts at a pace of their own until the scene ends is within one in all of them.
    """
    item = scene.measured
    quiet = not any(item.take_overs)
    return [quiet and said is not None and abs(said - due) <= tolerance for due, said in item.counts]


def _with_count(scene: Seen, number: int) -> Seen:
    counts = tuple((due, number) for due, _ in scene.measured.counts)
    return dataclasses.replace(scene, measured=dataclasses.replace(scene.measured, counts=counts, take_overs=()))


def _hits(hits: int, cases: int) -> list[bool]:
    return [True] * hits + [False] * (cases - hits)


def _timely(scene: Seen) -> Sequence[bool]:
    return scene.measured.timely


def _in_time(scene: Seen) -> list[bool]:
    """A reply is right if it comes in time with its word, and nothing was said while it was not due yet.

    Where none is due at all, the scene is one case: right if nothing was said.
    """
    item = scene.measured
    if not item.timely:
        return [not any((*item.take_overs, *item.false_starts))]
    early = item.take_overs if len(item.take_overs) == len(item.timely) else [any(item.take_overs)] * len(item.timely)
    return [timely and not before for timely, before in zip(item.timely, early)]


def _yields(scene: Seen, shared: bool | None = None) -> Sequence[bool]:
    """Whether the model yielded; of the scenes alone whose words training has (`shared`), or has not."""
    return scene.measured.yields if shared in (None, scene.wording in INTERRUPTIONS[HELD_OUT]) else ()


def _take_overs(scene: Seen) -> Sequence[bool]:
    return scene.measured.take_overs


def _responses(scene: Seen) -> Sequence[float]:
    return scene.measured.responses


ABILITIES = (
    Ability(
        "end of turn",
        AUDIO_MUTED,
        (
            Aim(
                "time to the reply",
                ("answer", "pause"),
                _responses,
                0.40,
                True,
                median=True,
            ),
            Aim("takes over in a pause", ("pause",), _take_overs, 0.02, True),
        ),
    ),
    Ability(
        "yielding and holding",
        AUDIO_MUTED,
        (
            Aim("yields to an interruption within 0.4 s", ("interruption",), _yields, 0.95),
            Aim("the same, to words that training has", ("interruption",), lambda scene: _yields(scene, True)),
            Aim("the same, to other words", ("interruption",), lambda scene: _yields(scene, False)),
            Aim("holds its turn under backchannels", ("backchannel",), _holding, 0.95),
            Aim("holds under side talk", ("side_talk",), _holding, 0.95),
            Aim("holds under background speech", ("background",), _holding, 0.95),
        ),
    ),
    Ability(
        "TimeSpeak",
        TIME_SHUFFLED,
        (Aim("right word after so many seconds", ("timed",), _in_time, 0.90),),
    ),
    Ability("CueSpeak", AUDIO_MUTED, (Aim("right word at the cue", ("cue",), _in_time, 0.90),)),
    Ability(
        "visual start and stop",
        VIDEO_FROZEN,
        (
            Aim("right word when it appears", ("visual",), _in_time, 0.90),
            Aim("right words when it comes and goes", ("visual_stop",), _in_time, 0.90),
        ),
    ),
    Ability(
        "counting",
        VIDEO_FROZEN,
        (
            Aim(
                "repetitions, off by one at most", ("repetition",), lambda scene: _counted(scene, 1), 0.90, counts=True
            ),
            Aim("repetitions, exact", ("repetition",), lambda scene: _counted(scene, 0), counts=True),
        ),
    ),
    Ability(
        "delegation",
        AUDIO_MUTED,
        (
            Aim("precision, over all scenes", (), lambda scene: _hits(scene.tasks.found, scene.tasks.asked), 0.95),
            Aim("recall", ("delegation",), lambda scene: _hits(scene.tasks.found, scene.tasks.due), 0.95),
            Aim("tasks in the words due", ("delegation",), lambda scene: _hits(scene.tasks.right, scene.tasks.found)),
            Aim("says what comes back", ("delegation",), lambda scene: scene.tasks.result),
        ),
    ),
    Ability(
        "",
        AUDIO_MUTED,
        (
            Aim("right word after a request", ("answer", "pause"), _timely),
            Aim("speaks though nobody asked", ("silence",), lambda scene: scene.measured.false_starts, at_most=True),
            Aim("objects counted, exact", ("count_seen",), lambda scene: _counted(scene, 0), counts=True),
            Aim("says what comes into the picture", ("quiet_until_seen",), _timely),
            Aim("repeats while the user goes on", ("simultaneous",), _timely),
            Aim("backchannels in a pause", ("model_backchannel",), _timely),
            Aim("has sound when its gate is SPEAK", (), lambda scene: _hits(*reversed(scene.measured.sounding))),
        ),
    ),
)
PASSED = Aim("everything right", (), lambda scene: [passed(scene)])  # of each family
