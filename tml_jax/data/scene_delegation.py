"""Scenes in which the model hands a sum over to the background, says so, goes on, and speaks the result when it comes.

It writes the task as `background.grammar` has it ("3 + 4"), says a filler, and reads the result as the session's desk
gives it ("#1. 7"). It says what it reads: the number in words, or that it is sorry where there is none. What the user
says meanwhile comes first: another request, another sum, or that the result is not wanted any more.
"""

import dataclasses
import itertools

from tml_jax.background.calculator import calculate
from tml_jax.background.grammar import Action, Mark, Request, request_text, result_text
from tml_jax.data import scene_scripts as scripts
from tml_jax.data.record import BACKGROUND, MODEL, TASK
from tml_jax.data.scene import Scene

FILLER, SORRY, OKAY = "one moment", "sorry", "okay"  # what the model says besides numbers
CANCELS = ("never mind", "forget it", "leave it")
SIGNS = {"plus": "+", "minus": "-", "times": "*"}

# {sum} is filled in, such as "three plus four".
CARRIERS = {
    scripts.TRAIN: (
        "what is {sum}", "how much is {sum}", "please work out {sum}", "can you tell me what {sum} is",
        "do you know what {sum} is", "tell me what {sum} is", "i want to know what {sum} is",
        "could you work out {sum}", "now what is {sum}", "what is {sum} please",
    ),
    scripts.HELD_OUT: ("would you work out {sum}", "let me know what {sum} is", "what do you get for {sum}"),
}  # fmt: skip
# A second sum, while the first is being worked out.
FOLLOWING = {
    scripts.TRAIN: ("and {sum}", "and what is {sum}", "also {sum}", "and how much is {sum}"),
    scripts.HELD_OUT: ("and now {sum}", "then what is {sum}"),
}
# What a background that is wrong says instead of a number.
NONSENSE = {
    scripts.TRAIN: ("blue paper", "no such thing", "the old door", "it is raining"),
    scripts.HELD_OUT: ("a green hat", "see above"),
}
FAILURES = {scripts.TRAIN: ("unavailable", "late", "error"), scripts.HELD_OUT: ("nothing found", "busy")}

# From the task to its result, seconds; the scenes between them draw from all of `Grids.event`.
EARLY, LATE = 1.05, 1.75
WRITING = 0.4  # seconds from the task to the filler: a task takes two micro-turns to write
GAP = 0.4  # seconds of silence that make an utterance one of its own


def _sums() -> tuple[tuple[str, str], ...]:
    """Every (task, words) of two numbers up to four whose result is a number that the model can say."""
    made = []
    for (first, one), (sign_word, sign), (second, other) in itertools.product(
        enumerate(scripts.NUMBERS[:4], 1), SIGNS.items(), enumerate(scripts.NUMBERS[:4], 1)
    ):
        task = f"{first} {sign} {second}"
        if spoken_result(calculate(task)) != SORRY:
            made.append((task, f"{one} {sign_word} {other}"))
    return tuple(made)


def spoken_result(text: str) -> str:
    """What the model says of the text of a result: a number from one to eight, or that it is sorry."""
    numbers = {str(value): word for value, word in enumerate(scripts.NUMBERS, 1)}
    return numbers.get(text.strip(), SORRY)


SUMS = _sums()


@dataclasses.dataclass(frozen=True)
class PlannedTask:
    """A task as it is noted in `meta["tasks"]` of a record, in the order of asking.

    Attributes:
      text: what the model writes, in the grammar.
      delay: seconds from the task to its result.
      result: what the background says.
      failed: whether that is the reason why it failed.
      faulty: whether `result` stands in place of what the task really comes to.
      due: what the model says of it; "" where nothing may be said.
    """

    text: str
    delay: float
    result: str
    failed: bool = False
    faulty: bool = False
    due: str = ""


@dataclasses.dataclass
class _Play:
    """A delegation while it is played out: the scene, the tasks so far, and when the model is free to speak."""

    scene: Scene
    tasks: list[PlannedTask] = dataclasses.field(default_factory=list)
    free: float = 0.0

    def ask(self, start: float, delay: float, fault: str = "") -> float:
        """The user asks for a sum, the model hands it over and says the filler; returns the time of the task."""
        scene = self.scene
        task, words = scene.draw(SUMS)
        carrier = scene.draw((FOLLOWING if self.tasks else CARRIERS)[scene.part])
        scene.meta["wording"] = scene.meta["wording"] or carrier
        due = scene.timeline.user(carrier.format(sum=words), start)
        asked = due + scene.draw(scene.grids.reply)
        result = {
            "": calculate(task),
            "empty": "",
            "failed": scene.draw(FAILURES[scene.part]),
            "nonsense": scene.draw(NONSENSE[scene.part]),
        }[fault]
        text = request_text(Request(Action.NEW, None, task))
        scene.timeline.text(MODEL, text, asked, TASK)
        self.tasks.append(PlannedTask(text, delay, result, fault == "failed", bool(fault), spoken_result(result)))
        self.free = self.say(FILLER, asked + WRITING)
        scene.timeline.cue("respond", due, self.free, FILLER)
        return asked

    def say(self, words: str, start: float) -> float:
        """The model speaks; returns the end."""
        end = start
        for word in words.split():
            end = self.scene.timeline.model(word, max(end, start))
        return end

    def answer(self, number: int, arrives: float) -> float:
        """The result of a task comes, and is spoken once it is read and the model is free; returns the end."""
        task, scene = self.tasks[number - 1], self.scene
        mark = Mark.FAILED if task.failed else Mark.LAST
        scene.timeline.text(BACKGROUND, result_text(number, mark, task.result), arrives)
        # As after typed text: a result may take two micro-turns to come in.
        due = max(arrives, self.free)
        start = max(arrives + scene.draw(scene.grids.typed_reply), self.free + GAP)
        if arrives > self.free:
            scene.timeline.cue("hold", self.free, arrives)
        self.free = self.say(task.due, start)
        scene.timeline.cue("respond", due, self.free, task.due)
        return self.free

    def drawn_delay(self, low: float = 0.0, high: float = 10.0) -> float:
        """A delay of the split between two bounds, seconds; where extrapolation has none so short, a held-out one."""
        scene = self.scene
        for delays in (scene.grids.event, scripts.GRIDS[scene.part].event):
            if fitting := tuple(delay for delay in delays if low <= delay <= high):
                break
        return scene.draw(fitting)


def _plain(play: _Play, fault: str = "", low: float = 0.0, high: float = 10.0) -> float:
    """One sum, whose result comes after a delay between `low` and `high`."""
    delay = play.drawn_delay(low, high)
    asked = play.ask(play.scene.lead(), delay, fault)
    return play.answer(1, asked + delay)


def _moved_on(play: _Play) -> float:
    """The user asks for a plain word meanwhile: that comes first, then the result."""
    scene = play.scene
    asked = play.ask(scene.lead(), 0.0)
    keyword = scene.keyword()
    request = scene.draw(scripts.CARRIERS["answer"][scene.part]).format(keyword=keyword)
    begins = play.free + scene.lead()
    ends = scene.timeline.user(request, begins)
    play.free = scene.reply(keyword, ends, scene.draw(scene.grids.reply))
    scene.meta["keyword"] = keyword
    # It comes at any time from the middle of the request on.
    arrives = (begins + ends) / 2 + scene.draw(scene.grids.break_in) - min(scene.grids.break_in)
    play.tasks[0] = dataclasses.replace(play.tasks[0], delay=round(arrives - asked, 4))
    return play.answer(1, arrives)


def _cancelled(play: _Play) -> float:
    """The user does not want to know any more: the model cancels the task and says so, and no result comes."""
    scene = play.scene
    asked = play.ask(scene.lead(), 0.0)
    words = scene.draw(CANCELS)
    scene.meta["break_in"] = words
    ends = scene.timeline.user(words, play.free + scene.lead())
    stopped = ends + scene.draw(scene.grids.reply)
    scene.timeline.text(MODEL, request_text(Request(Action.CANCEL, 1)), stopped, TASK)
    done = play.say(OKAY, stopped + WRITING)
    scene.timeline.cue("respond", ends, done, OKAY)
    wait = play.drawn_delay(high=EARLY)
    # Were it not cancelled, the result would come.
    play.tasks[0] = dataclasses.replace(play.tasks[0], delay=round(done + GAP - asked, 4), due="")
    scene.timeline.cue("hold", done, done + GAP + wait)
    return done + GAP + wait


def _followed(play: _Play) -> float:
    """The user asks for another sum meanwhile, so two run at once; each result is spoken as it comes."""
    scene = play.scene
    first = play.ask(scene.lead(), 0.0)
    second = play.ask(play.free + scene.lead(), 0.0)
    arrivals = [play.free - GAP + scene.draw(scene.grids.lead), 0.0]
    play.tasks[0] = dataclasses.replace(play.tasks[0], delay=round(arrivals[0] - first, 4))
    end = play.answer(1, arrivals[0])
    arrivals[1] = max(end - GAP + scene.draw(scene.grids.lead), second + EARLY)
    play.tasks[1] = dataclasses.replace(play.tasks[1], delay=round(arrivals[1] - second, 4))
    return play.answer(2, arrivals[1])


# Variant → (how it plays out, share of the family).
VARIANTS = {
    "usual": (_plain, 0.26),
    "early": (lambda play: _plain(play, high=EARLY), 0.1),
    "late": (lambda play: _plain(play, low=LATE), 0.1),
    "failed": (lambda play: _plain(play, "failed"), 0.08),
    "nonsense": (lambda play: _plain(play, "nonsense"), 0.08),
    "empty": (lambda play: _plain(play, "empty"), 0.08),
    "moved_on": (_moved_on, 0.1),
    "cancelled": (_cancelled, 0.1),
    "followed": (_followed, 0.1),
}


def delegation(scene: Scene) -> float:
    """Plays out one scene; `meta` notes the `variant`, and the `tasks` as `PlannedTask` has them.

    Args:
      scene: a scene that has not begun.

    Returns:
      The time of its last event, seconds.
    """
    shares = [share for _, share in VARIANTS.values()]
    variant = str(scene.rng.choice(list(VARIANTS), p=shares))
    play = _Play(scene)
    end = VARIANTS[variant][0](play)
    scene.meta.update(variant=variant, tasks=[dataclasses.asdict(task) for task in play.tasks])
    return end
