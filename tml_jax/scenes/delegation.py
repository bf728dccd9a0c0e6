"""Scenes in which the model hands a sum over to the background, says so, goes on, and speaks the result when it comes.

It writes the task as `background.grammar` has it ("3 + 4"), says a filler, and reads the result as the session's desk
gives it ("#1. 7"). It says what it reads: the number in words, or that it is sorry where there is none. What the user
says meanwhile comes first: another request, another sum, another one instead of the first, or that the result is not
wanted any more. Some users ask for no sum at all, in words that are near to those of who does.
"""

import dataclasses
import itertools

from tml_jax.background.calculator import calculate
from tml_jax.background.grammar import Action, Mark, Request, request_text, result_text
from tml_jax.data.record import BACKGROUND, MODEL, TASK, USER
from tml_jax.scenes import scripts
from tml_jax.scenes.carriers import CARRIERS as REQUESTS
from tml_jax.scenes.grids import GRIDS
from tml_jax.scenes.scene import Scene

FILLER, SORRY, OKAY = "one moment", "sorry", "okay"  # what the model says besides numbers
CANCELS = ("never mind", "forget it", "leave it")
SIGNS = {"plus": "+", "minus": "-", "times": "*"}

# {sum} is filled in, such as "three plus four".
CARRIERS = (
    "what is {sum}+", "how much is {sum}+", "*work out {sum}+", "*tell me what {sum} is",
    "*tell me how much {sum} is", "do you know what {sum} is", "i want to know what {sum} is", "now what is {sum}",
    "i need to know what {sum} is", "*tell me {sum}", "how much do i get for {sum}",
    "do you know how much {sum} is", "{sum} is how much",
    "what does {sum} make", "*give me {sum}", "*find out what {sum} is", "i wonder what {sum} is",
    "*say what {sum} is", "what is the sum {sum}", "*do {sum}+", "*do the sum {sum}", "*find out how much {sum} is",
    "and how much is {sum}", "so what is {sum}", "how much does {sum} make", "what comes out of {sum}",
    "{sum} what is that", "{sum} makes how much", "i want to know how much {sum} is", "*look at this sum {sum}",
    "let me know what {sum} is", "what do you get for {sum}",
    "i'd like to know what {sum} is", "i'm looking for {sum}", "let's work out {sum}", "let's see {sum}",
    "it's {sum} that i need", "what's {sum}", "how about {sum}", "my sum is {sum}", "here is a sum {sum}",
    "a sum for you {sum}", "{sum} please", "{sum} what does it make", "{sum} do you know it",
    "could it be that you know {sum}", "i never know what {sum} is", "help me with {sum}", "i have to know {sum}",
    "for me {sum} please", "count together {sum}", "use your head what is {sum}", "if i take {sum} what do i get",
    "the teacher asks what {sum} is", "{sum} is what", "say how much {sum} makes", "my son wants to know {sum}",
)  # fmt: skip
# A second sum, while the first is being worked out.
FOLLOWING = tuple(
    f"{more} {asked}"
    for more in (
        "and", "also", "next", "one more", "and after that", "and please", "the next one", "another one", "and now",
        "then", "besides", "and one more", "when you are done", "after this one", "i also need", "here is another",
    )
    for asked in ("{sum}", "what is {sum}", "how much is {sum}", "tell me {sum}", "work out {sum}", "i need {sum}")
)  # fmt: skip
# Another sum in place of the first, while that is being worked out.
REFINING = tuple(
    f"{but}{meant}"
    for but in ("no ", "sorry ", "oh ", "no no ", "oh no ", "i am sorry ", "wait ", "well no ", "i got it wrong ")
    for meant in (
        "i meant {sum}", "i mean {sum}", "make that {sum}", "make it {sum}", "change it to {sum}",
        "it should be {sum}", "not that but {sum}", "i wanted {sum}", "it is {sum}", "i want {sum}",
        "i should have said {sum}", "it's {sum}", "do {sum}", "the sum is {sum}", "tell me {sum}", "i need {sum}",
    )
) + (
    "no {sum}", "i mean {sum}", "i meant {sum}", "change it to {sum}", "not that but {sum}", "actually {sum}",
    "actually i want {sum}", "no wait i want {sum}", "i should have said {sum}",
)  # fmt: skip
# Kind of request for a sum → its wordings.
ASKED = {"sum": CARRIERS, "following": FOLLOWING, "refining": REFINING}
# Requests for a word that is to be said, not worked out.
NEAR_REQUESTS = (
    "*say the word {word}", "*say {word}+", "*tell me the word {word}", "*tell me {word}",
    "*give me the word {word}",
    "*repeat the word {word}", "*repeat {word}", "*say the number {word}", "do you know how to say {word}",
    "what i want to hear is {word}", "do you know the word {word} say it", "the word is {word} say it",
    "i need to hear {word}", "how do you say {word}", "*work on this word {word}",
    "what comes next is {word} say it", "how much do i like the word {word} say it",
    "let me know how you say {word}", "what you say is {word}",
    "i'd like to hear {word}", "it's your turn say {word}", "let's hear the word {word}", "please {word}",
    "{word} please say it", "what i need to hear is {word}", "{word} now you say it", "{word} *repeat that",
    "use your voice and say {word}", "the thing to say is {word}", "i'm waiting for the word {word}",
    "i bet you can say {word}", "how about saying {word}",
)  # fmt: skip
# What is told with numbers, or in words of questions, and asks for nothing.
NEAR_REMARKS = (
    "that is what i wanted to know", "i worked it out last night", "you know how much i like it",
    "the bus came {one} minutes late", "my son learns {one} times {two}", "he is {one} and she is {two}",
    "what is done is done", "it was minus {one} today", "there were {one} or {two} people",
    "i called him {one} times", "i could not work it out", "it takes {one} times as long",
    *(
        f"{who} {what}"
        for who in (
            "i know", "i do not know", "he asked me", "they told me", "nobody knows", "i forgot", "we found out",
            "my teacher said", "i told them", "he knows", "you do not know", "i wanted to know", "she asked",
        )
        for what in (
            "how much it is", "what it is", "what it costs", "what {one} times {two} is", "how much is in the box",
            "how much {one} plus {two} is", "what {one} minus {two} is",
        )
    ),
    *(
        f"{who} {what}"
        for who in (
            "we have", "i saw", "they bought", "my son lost", "there are", "he wants", "i ate", "you gave me",
            "she made", "i had", "we found",
        )
        for what in (
            "{one} lamps", "{one} cups of coffee", "{one} birds near the river", "{one} plus {two} at home",
            "{one} minus {two} left", "{one} or {two} apples", "{one} times {two} apples", "{one} old shoes",
        )
    ),
    # A sum that somebody has written or said is none to be worked out.
    *(
        f"{there} {{one}} {sign} {{two}} {where}"
        for there in ("it says", "there is", "this is", "i read", "she wrote", "the book says", "that was")
        for sign in ("plus", "minus", "times")
        for where in (
            "in the book", "on the wall", "in my letter", "on the table", "over there", "in the news", "at school",
        )
    ),
    "we need {one} chairs", "he would not say how much it was", "it is {one} plus {two} on the paper",
    "she knows what it is", "we met {one} times",
)  # fmt: skip
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
_TYPED_SHARE = 0.2  # of scenes with one sum
_SIGNS_SHARE = 0.5  # of typed sums, in figures
_REMARKS_SHARE = 0.5  # of near misses
_FOLLOWING_SHARE = 0.5  # of second sums, in words that go on from the first
_KEYWORDS_SHARE = 0.3  # of words to be said; others are numbers


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
    """A task, or one refined, as it is noted in `meta["tasks"]` of a record, in the order of asking.

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

    def ask(self, start: float, delay: float, fault: str = "", typed: bool = False, kind: str = "sum") -> float:
        """The user asks for a sum, the model hands it over and says the filler; returns the time of the task.

        Args:
          start: when the user begins, seconds.
          delay: of the result.
          fault: what is wrong with it, if anything.
          typed: whether the user types.
          kind: of request, a key of `ASKED`; "refining" asks in place of the only task, the others for a new one.
        """
        scene, refines = self.scene, 1 if kind == "refining" else None
        task, words = scene.draw([each for each in SUMS if refines is None or each[0] != self.tasks[0].text])
        carrier = scene.carrier(kind, ASKED[kind])
        scene.meta["wording"] = scene.meta["wording"] or carrier
        if typed:
            written = task if scene.rng.random() < _SIGNS_SHARE else words
            scene.timeline.text(USER, carrier.format(sum=written), start)
            due, asked = start, start + scene.draw(scene.grids.typed_reply)
        else:
            due = scene.timeline.user(carrier.format(sum=words), start)
            asked = due + scene.draw(scene.grids.reply)
        result = {
            "": calculate(task),
            "empty": "",
            "failed": scene.draw(FAILURES[scene.part]),
            "nonsense": scene.draw(NONSENSE[scene.part]),
        }[fault]
        text = request_text(Request(Action.REFINE if refines else Action.NEW, refines, task))
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

    def answer(self, number: int, arrives: float, task: PlannedTask | None = None) -> float:
        """The result of a task comes, and is spoken once it is read and the model is free; returns the end."""
        task, scene = task or self.tasks[number - 1], self.scene
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
        for delays in (scene.grids.event, GRIDS[scene.part].event):
            if fitting := tuple(delay for delay in delays if low <= delay <= high):
                break
        return scene.draw(fitting)


def _plain(play: _Play, fault: str = "", low: float = 0.0, high: float = 10.0) -> float:
    """One sum, by voice or (meta `typed`) in writing, whose result comes after a delay between `low` and `high`."""
    scene, delay = play.scene, play.drawn_delay(low, high)
    scene.meta["typed"] = typed = bool(scene.rng.random() < _TYPED_SHARE)
    if typed:
        scene.microphone = bool(scene.rng.random() < 0.5)
    asked = play.ask(scene.lead(), delay, fault, typed)
    return play.answer(1, asked + delay)


def _moved_on(play: _Play) -> float:
    """The user asks for a plain word meanwhile: that comes first, then the result."""
    scene = play.scene
    asked = play.ask(scene.lead(), 0.0)
    keyword = scene.keyword()
    request = scene.carrier("answer", REQUESTS["answer"]).format(keyword=keyword)
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
    second = play.ask(play.free + scene.lead(), 0.0, kind=_second(scene))
    arrivals = [play.free - GAP + scene.draw(scene.grids.lead), 0.0]
    play.tasks[0] = dataclasses.replace(play.tasks[0], delay=round(arrivals[0] - first, 4))
    end = play.answer(1, arrivals[0])
    arrivals[1] = max(end - GAP + scene.draw(scene.grids.lead), second + EARLY)
    play.tasks[1] = dataclasses.replace(play.tasks[1], delay=round(arrivals[1] - second, 4))
    return play.answer(2, arrivals[1])


def _again(play: _Play) -> float:
    """The user asks for another sum when the first is done."""
    scene, delays = play.scene, [play.drawn_delay(high=EARLY) for _ in range(2)]
    end = play.answer(1, play.ask(scene.lead(), delays[0]) + delays[0])
    asked = play.ask(end + scene.lead(), delays[1], kind=_second(scene))
    return play.answer(2, asked + delays[1])


def _second(scene: Scene) -> str:
    """How a second sum is asked for."""
    return "following" if scene.rng.random() < _FOLLOWING_SHARE else "sum"


def _refined(play: _Play) -> float:
    """The user wants another sum instead: the model refines the task, and only the result of the new one comes."""
    scene = play.scene
    first = play.ask(scene.lead(), 0.0)
    delay = play.drawn_delay(high=EARLY)
    again = play.ask(play.free + scene.lead(), delay, kind="refining")
    # Were it not refined, the first result would come.
    play.tasks[0] = dataclasses.replace(play.tasks[0], delay=round(play.free + GAP - first, 4), due="")
    return play.answer(1, again + delay, play.tasks[1])


def _near_miss(play: _Play) -> float:
    """The user asks for a word, or tells something, in words that are near to those that ask for a sum."""
    scene = play.scene
    if scene.rng.random() < _REMARKS_SHARE:
        end = scene.timeline.user(near_remark(scene), scene.lead())
        end += scene.draw(scene.grids.event)
        scene.timeline.cue("hold", 0.0, end)
        return end
    word = scene.draw(scripts.KEYWORDS if scene.rng.random() < _KEYWORDS_SHARE else scripts.NUMBERS)
    scene.meta["wording"] = request = scene.carrier("word", NEAR_REQUESTS)
    scene.meta["keyword"] = word
    ends = scene.timeline.user(request.format(word=word), scene.lead())
    return scene.reply(word, ends, scene.draw(scene.grids.reply))


def near_remark(scene: Scene) -> str:
    """What is told with numbers and asks for nothing; the carrier is noted in meta."""
    one, two = (str(word) for word in scene.rng.permutation(scripts.NUMBERS[:5])[:2])
    scene.meta["wording"] = carrier = scene.carrier("near_remark", NEAR_REMARKS)
    return carrier.format(one=one, two=two, sum=f"{one} {scene.draw(tuple(SIGNS))} {two}")


def remark(scene: Scene, kind: str) -> str:
    """What asks for nothing: `near` (`near_remark`), `silence` (noted in meta), or talk of another kind."""
    if kind == "near":
        return near_remark(scene)
    return scene.wording(kind) if kind == "silence" else scene.said(kind)[0]


# Variant → (how it plays out, share of the family).
VARIANTS = {
    "usual": (_plain, 0.12),
    "early": (lambda play: _plain(play, high=EARLY), 0.06),
    "late": (lambda play: _plain(play, low=LATE), 0.06),
    "failed": (lambda play: _plain(play, "failed"), 0.06),
    "nonsense": (lambda play: _plain(play, "nonsense"), 0.06),
    "empty": (lambda play: _plain(play, "empty"), 0.06),
    "moved_on": (_moved_on, 0.08),
    "cancelled": (_cancelled, 0.08),
    "followed": (_followed, 0.08),
    "again": (_again, 0.08),
    "refined": (_refined, 0.11),
    "near_miss": (_near_miss, 0.15),
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
