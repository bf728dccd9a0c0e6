import dataclasses

import numpy as np
import pytest

from tml_jax.data.record import MODEL, USER, Conversation, Cue, Word
from tml_jax.eval import baselines, interactivity
from tml_jax.eval.activity import of_sound


def sound(rate, duration, spans, level=0.3):
    """Noise at −80 dBFS, with a tone in each span. Returns int16."""
    times = np.arange(round(rate * duration)) / rate
    samples = 1e-4 * np.random.default_rng(0).normal(size=times.size)
    for start, end in spans:
        inside = (times >= start) & (times < end)
        samples[inside] += level * np.sin(2 * np.pi * 200 * times[inside])
    return (32767 * samples).astype(np.int16)


def conversation(reply="all right then", speech=((0.4, 1.0), (1.2, 2.0)), due=2.6, duration=6.0):
    asked = [Word(USER, "word", start, end) for start, end in speech]
    said = [Word(MODEL, word, due + 0.4 * i, due + 0.4 * (i + 1)) for i, word in enumerate(reply.split())]
    cues = (Cue("hold", speech[0][1], speech[1][0]), Cue("respond", due, said[-1].end, reply))
    return Conversation(
        f"{reply} {due}",
        duration,
        user_audio=sound(16_000, duration, speech),
        model_audio=sound(24_000, duration, [(due, said[-1].end)]),
        words=(*asked, *said),
        cues=cues,
    )


TRAINING = [conversation(), conversation(due=2.8), conversation("no"), conversation("never mind")]


@pytest.fixture(scope="module")
def params():
    return baselines.fit(TRAINING)


def speaking(turns):
    return [turn.index for turn in turns if turn.gate == "SPEAK"]


def test_fit_finds_the_majority_reply_its_length_and_a_threshold_between_noise_and_speech(params):
    assert params.reply == "all right then"
    assert params.pieces == (" all", "", " right", "", " then", "")  # 1.2 s
    assert -78 < params.threshold < -15
    assert params.samples.shape == (6, 4800) and params.mel.shape == (6, 20, 80)
    assert np.sqrt(np.mean(params.samples**2)) == pytest.approx(0.3 / np.sqrt(2), rel=0.05)


@pytest.mark.parametrize("name", sorted(baselines.POLICIES))
def test_every_policy_puts_out_one_well_formed_micro_turn_for_each_of_the_conversation(params, name):
    turns = baselines.run(baselines.POLICIES[name], params, conversation())
    assert [turn.index for turn in turns] == list(range(30))
    assert [turn.start for turn in turns] == pytest.approx(np.arange(30) * 0.2)
    assert all(turn.samples.shape == (4800,) and turn.mel.shape == (20, 80) for turn in turns)
    silent = [turn for turn in turns if turn.gate == "LISTEN"]
    assert all(not turn.text and not turn.samples.any() for turn in silent)


@pytest.mark.parametrize("name", sorted(baselines.POLICIES))
def test_every_policy_answers_a_window_before_it_gets_the_next(params, name):
    taken = []

    def windows():
        for index, window in enumerate(baselines.input_windows(conversation())):
            taken.append(index)
            yield window

    for turn in baselines.POLICIES[name](params, windows()):
        assert taken[-1] == turn.index


def test_listening_never_speaks_and_speaking_never_stops(params):
    assert speaking(baselines.run(baselines.always_listening, params, conversation())) == []
    turns = baselines.run(baselines.always_speaking, params, conversation())
    assert speaking(turns) == list(range(30))
    assert "".join(turn.text for turn in turns).split() == 5 * params.reply.split()


def test_speaking_never_stops_by_its_sound_where_the_reply_has_pauses(params):
    tone = 0.1 * np.sin(np.arange(4800) / 10).astype(np.float32)
    samples = np.stack([tone if step in (0, 3) else np.zeros(4800, np.float32) for step in range(len(params.pieces))])
    turns = baselines.run(baselines.always_speaking, dataclasses.replace(params, samples=samples), conversation())
    assert of_sound(np.stack([turn.samples for turn in turns])).active.all() and len(turns) == 30


def test_the_threshold_speaks_half_a_second_after_the_speech_for_the_length_of_the_reply(params):
    # Speech ends at 2.0 s, 0.5 s later is 2.5 s, in the window of micro-turn 12, which is heard from 2.6 s.
    turns = baselines.run(baselines.energy_threshold, params, conversation())
    assert speaking(turns) == [12, 13, 14, 15, 16, 17]
    assert "".join(turn.text for turn in turns) == " all right then"


def test_the_threshold_waits_for_enough_speech(params):
    assert (
        speaking(baselines.run(baselines.energy_threshold, params, conversation(speech=((0.4, 0.5), (1.2, 1.4))))) == []
    )


def test_the_threshold_is_fooled_by_a_long_pause_and_stops_when_the_user_goes_on(params):
    paused = conversation(speech=((0.4, 1.0), (1.8, 2.6)), due=3.2)
    turns = baselines.run(baselines.energy_threshold, params, paused)
    # Half a second of silence by 1.5 s starts the reply, the user's going on from 1.8 s stops it.
    assert speaking(turns) == [7, 8, 15, 16, 17, 18, 19, 20]


def test_a_record_played_back_is_perfect_by_every_metric():
    items = [conversation(), conversation("no", due=3.2)]
    frequency = interactivity.reply_frequency(items)
    result = interactivity.aggregate(
        [interactivity.measure(item, baselines.as_recorded(item), frequency) for item in items]
    )
    assert result.gate.value == result.words.value == result.keyword.value == result.on_time.value == 1.0
    assert result.take_over.value == 0.0
    assert result.latency.value == pytest.approx(0.0)


def test_a_record_played_back_is_heard_when_it_was_said():
    item = conversation()
    heard = np.concatenate([turn.samples for turn in baselines.as_recorded(item)])
    loud = np.flatnonzero(np.abs(heard) > 0.1) / 24_000 + 0.2
    assert loud[0] == pytest.approx(2.6, abs=0.01) and loud[-1] == pytest.approx(3.8, abs=0.01)


def test_fit_says_what_is_missing():
    with pytest.raises(ValueError, match="respond"):
        baselines.fit([Conversation("empty", 1.0)])
    with pytest.raises(ValueError, match="timed words"):
        baselines.fit([Conversation("text", 2.0, cues=(Cue("respond", 1.0, 1.4, "hi"),))])
