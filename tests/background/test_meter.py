"""Results go in beside what is typed, never before it, and what the model reads is always tagged."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import small_config
from synthetic import tokenizer

from tml_jax.background.grammar import Action, Mark, Request, parse_result, result_text
from tml_jax.background.meter import drop, give, meter_of
from tml_jax.background.tasks import Result, TaskBook, arrive, request
from tml_jax.data.layout import control_token, text_in_tokens
from tml_jax.data.record import BACKGROUND, USER, Text
from tml_jax.serve.windows import Arrived, Ear, take_in
from tml_jax.tokens import Control

SOURCES = {Control.FROM_USER, Control.FROM_BACKGROUND}


def config(max_text_in: int = 8):
    return small_config(max_text_in=max_text_in)


def done(*texts: str) -> TaskBook:
    """A book whose tasks are all done, with these results."""
    book = TaskBook()
    for number, text in enumerate(texts, 1):
        book = request(book, Request(Action.NEW, None, "x"), 0).book
        book = arrive(book, Result(number, 1, text, last=True), 0).book
    return book


def play(book, typed: dict[int, str], turns: int, config, lost=frozenset()):
    """Micro-turns of the text that a session takes in, through the meter and the ear."""
    meter, ear, turned = meter_of(config), Ear(), []
    for now in range(turns):
        texts = (Text(USER, typed[now], 0.0),) if now in typed else ()
        meter, book, tokens, _ = give(meter, book, texts, now in lost, now, tokenizer(), config)
        ear, elements = take_in(ear, Arrived(None, (), texts, now in lost, tokens), tokenizer(), config)
        turned.append([int(token) for token in elements.token[1:]])
    return meter, ear, turned


def read(turns, config) -> list[tuple[Control, str]]:
    """What a reader of the tokens makes of them: runs of one source."""
    names = {control_token(control, config.model): control for control in SOURCES}
    runs = []
    for token in (token for turn in turns for token in turn):
        if token in names:
            runs.append((names[token], []))
        elif token != control_token(Control.LOST_AUDIO, config.model):
            runs[-1][1].append(token)
    return [(source, tokenizer().decode(tokens).strip()) for source, tokens in runs]


def test_a_burst_is_spread_a_few_tokens_at_a_time():
    cfg = config()
    book = done("the red box is here and what do you see now", "blue", "please tell me more")
    _, ear, turns = play(book, {}, 60, cfg)
    assert max(map(len, turns)) == 4 and not ear.waiting
    assert read(turns, cfg) == [
        (Control.FROM_BACKGROUND, "#1. the red box is here and what do you see now"),
        (Control.FROM_BACKGROUND, "#2. blue"),
        (Control.FROM_BACKGROUND, "#3. please tell me more"),
    ]
    whole = text_in_tokens(BACKGROUND, "#1. the red box is here and what do you see now", tokenizer(), cfg.model)
    assert [token for turn in turns for token in turn][: len(whole)] == whole  # as training lays it out


def test_typed_text_is_taken_in_as_if_there_were_no_results_and_the_result_goes_on_with_its_tag():
    cfg = config()
    book, typed = done("the red box is here"), {2: "tell me now what"}
    _, _, alone = play(TaskBook(), typed, 20, cfg)
    _, _, both = play(book, typed, 20, cfg)
    source = control_token(Control.FROM_USER, cfg.model)
    taken = [turn[turn.index(source) :] if source in turn else None for turn in alone]
    for turn, theirs in zip(both, taken):
        assert theirs is None or turn[: len(theirs)] == theirs
    runs = read(both, cfg)
    assert runs[0][1].startswith("#1.") and runs[1] == (Control.FROM_USER, "tell me now what")
    assert runs[2][1].startswith("#1. ")
    first, second = (parse_result(text)[2].split() for _, text in (runs[0], runs[2]))
    sentence = "the red box is here".split()
    assert sentence in (first + second, first[:-1] + second)  # a word that was cut is said again


@settings(max_examples=60, deadline=None)
@given(
    results=st.lists(st.text(max_size=40), max_size=4),
    typed=st.dictionaries(st.integers(0, 15), st.text(min_size=1, max_size=20), max_size=6),
    lost=st.frozensets(st.integers(0, 15), max_size=5),
    room=st.integers(1, 12),
)
def test_nothing_waits_for_results_and_they_never_spill(results, typed, lost, room):
    cfg = config(room)
    _, ear_alone, alone = play(TaskBook(), typed, 16, cfg, lost)
    meter, ear, both = play(done(*results), typed, 16, cfg, lost)
    assert ear.waiting == ear_alone.waiting and meter.typed == len(ear.waiting)
    for ours, theirs in zip(both, alone):
        assert ours[: len(theirs)] == theirs  # typed text stands where it would, and as early
        assert len(ours) - len(theirs) <= max(1, room // 2)
    if room < 4 or len(ear.waiting):
        return
    _, _, long = play(done(*results), typed, 400, cfg, lost)
    heard = [text for source, text in read(long, cfg) if source == Control.FROM_BACKGROUND]
    # A tag that was cut, as often as typed text came between, is said again.
    tags = [result_text(number, Mark.LAST, "") for number in range(1, len(results) + 1)]
    heard = [text for text in heard if not any(tag.startswith(text) and tag != text for tag in tags)]
    assert {parse_result(text)[:2] for text in heard} == {(n + 1, Mark.LAST) for n in range(len(results))}


def test_what_is_dropped_is_said_no_further():
    cfg = config()
    meter, book, first, begun = give(meter_of(cfg), done("the red box"), (), False, 0, tokenizer(), cfg)
    assert len(first) == 4 and [chunk.number for chunk in begun] == [1]
    assert drop(meter, 2) == meter
    _, _, rest, _ = give(drop(meter, 1), book, (), False, 1, tokenizer(), cfg)
    assert rest == ()


@pytest.mark.parametrize("max_text_in", [1, 2, 3])
def test_a_very_narrow_way_in_still_lets_results_through(max_text_in):
    cfg = config(max_text_in)
    _, _, turns = play(done("red box"), {}, 40, cfg)
    assert read(turns, cfg) == [(Control.FROM_BACKGROUND, result_text(1, Mark.LAST, "red box"))]
