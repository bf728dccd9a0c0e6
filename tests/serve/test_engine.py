"""Slots: sessions come and go, and each is, to the bit, what it would be alone."""

import dataclasses

import jax
import numpy as np
import pytest
from small import small_config
from synthetic import tokenizer

from tml_jax.data.record import BACKGROUND, USER, Text
from tml_jax.serve.engine import Engine, FullError
from tml_jax.serve.program import LoadedModel
from tml_jax.serve.session import Talker
from tml_jax.serve.windows import Arrived, Ear, InputError, arrivals, take_in
from tml_jax.tokens import Control, Stream

TURNS = 12


def noise(seed: int, turns: int = TURNS) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(3200 * turns)).astype(np.float32)


def frame(shade: int) -> np.ndarray:
    return np.random.default_rng(shade).integers(0, 256, (40, 40, 3)).astype(np.uint8)


def windows(kind: str, seed: int, turns: int = TURNS) -> list[Arrived]:
    audio = noise(seed, turns) if "audio" in kind else None
    frames = [(0.1 + 0.3 * i, frame(seed + i)) for i in range(turns // 2)] if "video" in kind else []
    texts = [Text(USER, "red green blue box", 0.2 * i) for i in range(turns)] if "text" in kind else []
    return list(arrivals(audio, frames, texts, turns))


def run(engine: Engine, seed: int, session: list[Arrived], others: dict[int, dict] | None = None) -> list:
    """The micro-turns of one session, while at given micro-turns others join, talk and leave."""
    slot, turns, beside = engine.join(seed), [], {}
    for index, window in enumerate(session):
        for change in (others or {}).get(index, {}).items():
            name, given = change
            if given is None:
                engine.leave(beside.pop(name)[0])
            else:
                beside[name] = (engine.join(given[0]), iter(given[1]))
        inputs = {place: next(theirs) for place, theirs in beside.values()}
        turns.append(engine.tick({slot: window, **inputs}).turns[slot])
    engine.leave(slot)
    for place, _ in beside.values():
        engine.leave(place)
    return turns


def same_bits(ours: list, theirs: list) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs):
        assert (one.index, one.gate, one.text, one.display) == (other.index, other.gate, other.text, other.display)
        np.testing.assert_array_equal(one.mel, other.mel)
        np.testing.assert_array_equal(one.samples, other.samples)


@pytest.mark.parametrize("kind", ["audio", "audio+video", "text"])
def test_a_session_gives_the_same_bits_alone_and_beside_others_that_come_and_go(engine, kind):
    session = windows(kind, 5)
    alone = run(engine, 7, session)
    assert {turn.gate for turn in alone} == {"SPEAK", "LISTEN"}
    others = {
        1: {"a": (1, windows("audio+video+text", 20, 20))},
        3: {"b": (2, windows("audio", 30, 20))},
        6: {"a": None},
        8: {"c": (3, windows("text", 40, 20))},
    }
    same_bits(run(engine, 7, session, others), alone)
    ahead = engine.join(9)  # now in another slot
    same_bits(run(engine, 7, session), alone)
    engine.leave(ahead)


def test_a_session_gives_the_same_bits_where_not_all_can_go_on_at_once(optimised, small_variables):
    """With more slots than write and speak at once: alone, it is done with empty ones; in a crowd, with anyone."""
    engine = Engine(LoadedModel(small_config(), tokenizer(), small_variables), slots=11)
    session, kinds = windows("audio", 5, 6), ("audio", "text", "audio+video+text")
    crowd = {f"{i}": (i, windows(kinds[i % 3], 80 + i, 6)) for i in range(10)}
    alone = run(engine, 7, session)
    assert {turn.gate for turn in alone} == {"SPEAK", "LISTEN"}
    same_bits(run(engine, 7, session, {0: crowd}), alone)
    ahead = [engine.join(seed) for seed in range(6)]
    same_bits(run(engine, 7, session), alone)
    for slot in ahead:
        engine.leave(slot)


def test_the_engine_says_to_the_bit_what_a_talker_says_of_the_same_shapes(engine, optimised, small_variables):
    kinds = ("audio", "audio+video", "audio+text")  # one that always types makes the talker's blocks the largest
    talker = Talker.of(small_config(), tokenizer(), small_variables)
    together = list(talker.talk_together([iter(windows(kind, 5)) for kind in kinds], [7, 8, 9]))
    slots = [engine.join(seed) for seed in (7, 8, 9)]
    sessions = [windows(kind, 5) for kind in kinds]
    ours = [engine.tick(dict(zip(slots, inputs))).turns for inputs in zip(*sessions)]
    for row, slot in enumerate(slots):
        same_bits([turns[slot] for turns in ours], [turns[row] for turns in together])


def test_an_idle_session_goes_on_as_if_no_time_had_passed(engine):
    session = windows("audio", 6)
    straight = run(engine, 4, session)
    slot, other, turns = engine.join(4), engine.join(5), []
    for window in session:
        for beside in windows("audio+text", 50, 2):
            assert slot not in engine.tick({other: beside}).turns
        turns.append(engine.tick({slot: window}).turns[slot])
    same_bits(turns, straight)


def test_a_new_session_finds_nothing_of_the_one_before_it(engine):
    slot = engine.join(1)
    for window in windows("audio+video+text", 60):
        engine.tick({slot: window})
    engine.leave(slot)
    assert engine.join(1) == slot
    for leaf in jax.tree.leaves(engine._sessions.stream.caches):
        assert leaf.shape[0] == engine.slots and not np.asarray(leaf)[slot].any()
    assert not np.asarray(engine._sessions.vocoder.hops)[slot].any()
    assert np.asarray(engine._sessions.stream.length)[slot] == 0


def test_nothing_compiles_once_it_is_warm(engine):
    assert engine.recompilations == 0
    run(engine, 2**31 - 1, windows("audio+video+text", 70), {2: {"a": (0, windows("text", 71))}, 5: {"a": None}})
    assert engine.recompilations == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_refused_before_the_batch(engine, bad):
    session = windows("audio", 8)
    alone = run(engine, 3, session)
    slot, other, turns = engine.join(3), engine.join(4), []
    for window in session:
        poisoned = window.audio.copy()
        poisoned[17] = bad
        with pytest.raises(InputError, match=f"slot {other}: audio holds NaN or infinity"):
            engine.tick({slot: window, other: Arrived(poisoned)})
        turns.append(engine.tick({slot: window, other: window}).turns[slot])
    same_bits(turns, alone)


def test_a_full_engine_and_an_empty_slot_are_errors(engine):
    slots = [engine.join(seed) for seed in range(engine.slots)]
    with pytest.raises(FullError, match="all 3 slots"):
        engine.join(0)
    engine.leave(slots[1])
    assert engine.join(5) == slots[1]
    engine.leave(slots[0])
    with pytest.raises(KeyError):
        engine.tick({slots[0]: Arrived(None)})
    with pytest.raises(RuntimeError, match="before the first join"):
        engine.warm_up()
    with pytest.raises(ValueError, match="slots = 0"):
        Engine(LoadedModel(small_config(), tokenizer(), {}), 0)


def test_a_session_whose_numbers_break_ends_and_others_go_on(engine):
    session = windows("audio", 8)
    alone = run(engine, 3, session)
    slot, doomed, turns = engine.join(3), engine.join(4), []
    for index, window in enumerate(session):
        if index == 4:
            stream = engine._sessions.stream
            poisoned = jax.tree.map(lambda x: x, stream.caches)
            layer = poisoned["layer_0"]
            conv = layer.attention.key_conv.at[doomed].set(np.nan)
            poisoned["layer_0"] = layer.replace(attention=layer.attention.replace(key_conv=conv))
            engine._sessions = engine._sessions.replace(stream=stream.replace(caches=poisoned))
        tick = engine.tick({slot: window} | ({doomed: window} if doomed in engine.taken else {}))
        assert tick.broken == ((doomed,) if index == 4 else ())
        turns.append(tick.turns[slot])
    assert doomed not in engine.taken
    same_bits(turns, alone)


def test_lost_audio_is_marked_before_what_else_came():
    config = small_config()
    lost = config.model.text_vocab_size + Control.LOST_AUDIO
    heard = np.ones(3200, np.float32)
    for audio, count in ((None, 0), (heard, 4)):
        _, elements = take_in(
            Ear(), Arrived(audio, texts=[Text(BACKGROUND, "red", 0.0)], lost=True), tokenizer(), config
        )
        assert elements.token[1] == lost and elements.stream[1] == Stream.TEXT_IN
        assert elements.token[2] == config.model.text_vocab_size + Control.FROM_BACKGROUND
        assert np.sum(elements.stream == Stream.AUDIO_IN) == count
    # Nothing of the sound before the gap is heard in the one after it.
    ear, _ = take_in(Ear(samples=heard[:800]), Arrived(None, lost=True), tokenizer(), config)
    assert not ear.samples.any()
    full = dataclasses.replace(config, serve=dataclasses.replace(config.serve, max_text_in=1))
    ear, elements = take_in(Ear(), Arrived(None, texts=[Text(USER, "red", 0.0)], lost=True), tokenizer(), full)
    assert elements.token[1:].tolist() == [lost] and len(ear.waiting) > 0
