"""Generated scenes: what the record says is what is heard and seen, and the splits do not mix."""

import collections
import pathlib
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from played import EACH, cues_of, scenes_of, seen, words_of

from tml_jax.config import INPUT_RATE, MICRO_TURN_SECONDS, OUTPUT_RATE
from tml_jax.data.layout import gates
from tml_jax.data.record import MODEL, OTHER, USER, to_bytes
from tml_jax.scenes import scripts, sources
from tml_jax.scenes.families import FAMILIES, draw_family, make_scene
from tml_jax.scenes.grids import GRIDS
from tml_jax.scenes.patterns import patterns
from tml_jax.scenes.phrases import phrases
from tml_jax.scenes.voices import HELD_OUT_VOICES
from tml_jax.signal.pcm import float_audio

MOST_FRAMES = 80  # micro-turns with a picture that a row of the replica holds


def level(audio, rate, start, end):
    """dB re full scale between two times; -120 where there is nothing."""
    samples = float_audio(audio[int(round(start * rate)) : int(round(end * rate))]).astype(np.float64)
    return 10 * np.log10(np.mean(samples**2) + 1e-12) if len(samples) else -120.0


def heard(record, start, end):
    return level(record.model_audio, OUTPUT_RATE, start, end)


def spoken(record, start, end):
    return level(record.user_audio, INPUT_RATE, start, end)


def cue(record, kind):
    (found,) = [item for item in record.cues if item.kind == kind]
    return found


def window(seconds):
    return int(np.floor(seconds / MICRO_TURN_SECONDS + 1e-6))


def test_words_are_where_the_sound_is_and_nowhere_else(records):
    for record in scenes_of(records, *FAMILIES):
        for word in words_of(record, MODEL):
            assert heard(record, word.start, word.end) > -40, (record.id, word)
        silent = np.ones(len(record.model_audio), bool)
        words = words_of(record, MODEL)
        for word, after in zip(words, [*words[1:], words[-1]]) if words else ():
            end = after.start if word.end < after.start < word.end + 0.05 else word.end  # run together, as in "mm hm"
            silent[int(word.start * OUTPUT_RATE) - 2 : int(np.ceil(end * OUTPUT_RATE)) + 2] = False
        assert not record.model_audio[silent].any(), record.id
        if not words_of(record, USER) or words_of(record, OTHER) or not record.meta["near_clean"]:
            continue
        floor = spoken(record, 0.0, words_of(record, USER)[0].start - 0.01)
        for word in words_of(record, USER):
            assert spoken(record, word.start, word.end) > floor + 10, (record.id, word)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_due_has_happened_in_a_micro_turn_that_is_over_when_the_model_speaks(records, family):
    for record in scenes_of(records, family):
        happened = [word.end for word in words_of(record, USER)] + [text.time for text in record.texts]
        happened += [] if record.frame_times is None else record.frame_times.tolist()
        spoken = words_of(record, MODEL)
        if family == "delegation":  # a result that comes while the model speaks is due once it has finished
            happened += [word.end for word in spoken]
        for cue in cues_of(record, "respond"):
            answer = [word for word in spoken if cue.start <= word.start <= cue.end + 1e-6]
            if family == "timed":  # known for seconds by then
                assert cue.start - max(happened) >= 2.0 - 1e-6
            else:
                assert min(abs(cue.start - time) for time in happened) < 1e-6, record.id
                assert window(answer[0].start) > window(cue.start), record.id
            assert " ".join(word.text for word in answer) == cue.text
            assert answer[-1].end == pytest.approx(cue.end)
        due = {word for cue in cues_of(record, "respond") for word in cue.text.split()}
        assert {word.text for word in spoken} == due  # nothing is said that is not due
        for cue in cues_of(record, "hold"):
            assert not [word for word in spoken if word.end > cue.start + 1e-6 and word.start < cue.end - 1e-6], (
                record.id
            )
            assert cue.end <= record.duration + 1e-6
        speaks = np.asarray(gates(record))
        for cue in cues_of(record, "keep"):
            inside = speaks[window(cue.start) : window(cue.end) - 1]
            silent = np.diff(np.flatnonzero(np.concatenate([[True], inside, [True]])))
            assert silent.max() <= 2, record.id  # one micro-turn between numbers at most


def test_noise_lies_as_far_below_the_users_speech_as_noted(records):
    below, near_clean = [], 0
    for record in scenes_of(records, "answer", "timed", "pause", "cue"):
        if words_of(record, USER) and record.meta["noise"] in ("white", "pink", "hum"):
            words = words_of(record, USER)
            noise = spoken(record, 0.0, words[0].start)  # no echo of the room yet
            below.append(spoken(record, words[0].start, words[-1].end) - noise)
            assert abs(below[-1] - record.meta["noise_below_speech_db"]) < 6, record.id
            near_clean += record.meta["near_clean"]
    assert len(below) >= 12 and 0.25 < near_clean / len(below) < 0.85
    assert min(below) < 33 and max(below) > 38


@pytest.mark.parametrize("split", [scripts.TRAIN, scripts.HELD_OUT])
def test_replies_are_the_words_due_and_come_in_time(records, split):
    bounds = {
        "answer": (0.25, 0.45),
        "pause": (0.25, 0.45),
        "timed": (0.0, 0.0),
        "cue": (0.2, 0.4),
        "visual": (0.3, 0.5),
    }
    for family, (low, high) in bounds.items():
        found = [record for record in records[family, split] if cues_of(record, "respond")]
        assert len(found) == EACH or (family == "visual" and found)
        for record in found:
            due, (word,) = cue(record, "respond"), words_of(record, MODEL)
            assert word.text == due.text == record.meta["keyword"]
            extra = 0.2 if record.meta.get("typed") else 0.0
            assert low + extra - 1e-6 <= word.start - due.start <= high + extra + 1e-6, record.id
            assert due.end == pytest.approx(word.end)
            assert heard(record, 0.0, word.start - 0.001) == -120
            assert heard(record, word.start, word.start + 0.1) > -50


def test_the_user_is_silent_during_hold_and_the_request_ends_after_it(records):
    for record in scenes_of(records, "pause"):
        hold, words = cue(record, "hold"), words_of(record, USER)
        assert 0.5 - 1e-6 <= hold.end - hold.start <= 1.65 and hold.end - hold.start == pytest.approx(
            record.meta["pause"]
        )
        assert words[-1].start == pytest.approx(hold.end) and words[-1].text == record.meta["keyword"]
        speech = spoken(record, words[0].start, words[-2].end)
        assert not record.meta["near_clean"] or spoken(record, hold.start + 0.02, hold.end - 0.02) < speech - 25
        assert heard(record, hold.start, hold.end) == -120


def test_the_model_is_silent_soon_after_an_interruption_and_was_speaking_before(records):
    for record in scenes_of(records, "interruption"):
        stop, words = cue(record, "yield"), words_of(record, MODEL)
        last = [word for word in words_of(record, USER) if word.end <= stop.start + 1e-6][-1]
        assert last.end == pytest.approx(stop.start) and stop.end - stop.start == pytest.approx(0.4)
        assert last.text == record.meta["break_in"].split()[-1]
        begun = [word for word in words_of(record, USER)][-len(record.meta["break_in"].split())].start
        assert any(word.start < begun for word in words), record.id
        # Nothing is known before the micro-turn is over in which the interruption ends.
        boundary = np.ceil(stop.start / MICRO_TURN_SECONDS - 1e-6) * MICRO_TURN_SECONDS
        assert all(word.start < boundary and word.end <= boundary + MICRO_TURN_SECONDS + 1e-3 for word in words)
        assert heard(record, stop.end, record.duration) == -120 and record.duration - stop.end > 0.35
        assert cue(record, "respond").text == " ".join(word.text for word in words)
        assert len(words) < len(scripts.NUMBERS)


def test_the_model_counts_on_through_a_backchannel_at_a_steady_pace(records):
    for record in scenes_of(records, "backchannel"):
        keep, words = cue(record, "keep"), words_of(record, MODEL)
        assert tuple(word.text for word in words) == scripts.NUMBERS
        np.testing.assert_allclose(np.diff([word.start for word in words]), 0.6, atol=1e-6)
        assert words[0].start < keep.start < keep.end == pytest.approx(words[-1].end)
        gaps = [after.start - before.end for before, after in zip(words, words[1:])]
        assert max(gaps) < 0.35
        steps = np.arange(keep.start, keep.end - 0.4, 0.1)
        assert all(heard(record, step, step + 0.4) > -45 for step in steps), record.id
        assert words_of(record, USER)[-1].end < keep.end


def test_timed_replies_come_exactly_as_long_after_the_request_as_asked(records):
    for record in scenes_of(records, "timed"):
        delay = scripts.DELAYS[record.meta["delay"]]
        assert record.meta["delay"] in [word.text for word in words_of(record, USER)]
        assert words_of(record, MODEL)[0].start - words_of(record, USER)[-1].end == pytest.approx(delay, abs=1e-6)


def test_cued_replies_run_over_the_users_speech(records):
    for record in scenes_of(records, "cue"):
        reply, due = words_of(record, MODEL)[0], cue(record, "respond").start
        given = [word for word in words_of(record, USER) if abs(word.end - due) < 1e-6]
        assert [word.text for word in given] == [record.meta["cue"]]
        after = [word for word in words_of(record, USER) if word.start > due]
        assert after and after[0].start < reply.end and after[-1].end > reply.start, record.id


def test_the_object_comes_into_sight_when_the_cue_says_so(records):
    for (family, split), found in records.items():
        for record in found if family == "visual" else ():
            assert record.frames.shape[1:] == (40, 40, 3)
            np.testing.assert_allclose(np.diff(record.frame_times), 0.1, atol=1e-6)
            if "event" not in record.meta:
                assert not cues_of(record, "respond")
                continue
            shown, alone = seen(record, split)
            due = cue(record, "respond").start
            np.testing.assert_array_equal(shown[alone], record.frame_times[alone] >= due - 1e-6)
            assert record.frame_times[shown & alone][0] == pytest.approx(due) and not shown.all()
            assert due > words_of(record, USER)[-1].end


def test_nobody_speaks_for_the_model_when_nothing_is_asked(records):
    for record in scenes_of(records, "silence"):
        assert not record.model_audio.any() and not words_of(record, MODEL)
        assert [item.kind for item in record.cues] == ["hold"] and record.cues[0].end <= record.duration + 1e-6


def test_where_nothing_is_asked_users_make_remarks_and_say_nothing_else(records):
    remarks = [text for pattern in patterns(scripts.HELD_OUT, "silence") for text in phrases(pattern)]
    said = [" ".join(word.text for word in words_of(record, USER)) for record in records["silence", scripts.HELD_OUT]]
    assert any(said) and all(re.fullmatch(rf"(({'|'.join(remarks)})( |$))*", text) for text in said), said


def test_typed_requests_have_no_user_speech(synthesizer):
    found = [
        make_scene(synthesizer, str(index), np.random.default_rng([8, index]), scripts.TRAIN, "answer")
        for index in range(60)
    ]
    typed = [record for record in found if record.meta["typed"]]
    assert 4 <= len(typed) <= 24
    for record in typed:
        (text,) = record.texts
        assert text.speaker == USER and record.meta["keyword"] in text.text.split() and not words_of(record, USER)
        assert record.user_audio is None or spoken(record, 0, record.duration) < (
            -50 if record.meta["near_clean"] else -25
        )
    assert len({record.user_audio is None for record in typed}) == 2


def test_scenes_are_short_and_begin_and_end_in_silence(records):
    for record in scenes_of(records, *FAMILIES):
        assert record.duration <= 12.0 and record.duration / MICRO_TURN_SECONDS == pytest.approx(record.micro_turns)
        if record.frame_times is not None:
            assert len({window(time) for time in record.frame_times}) <= MOST_FRAMES, record.id
        first = min((w.start for w in record.words), default=0.1)
        assert first <= 0.9 or record.meta.get("typed")
        last = max((w.end for w in record.words), default=0.0)
        assert record.duration - last >= 0.4, record.id


def test_held_out_families_are_equally_frequent_and_all_families_are_trained():
    held_out = collections.Counter(record.family for record in sources.generate("held_out", 2 * len(FAMILIES), 3, 1))
    assert held_out == {family: 2 for family in FAMILIES}
    rng = np.random.default_rng(0)
    trained = collections.Counter(draw_family(rng) for _ in range(2000))
    shares = {name: family.share for name, family in FAMILIES.items()}
    assert sum(shares.values()) == pytest.approx(1.0) and min(shares.values()) >= 0.02
    for family, share in shares.items():
        assert trained[family] / 2000 == pytest.approx(share, abs=0.03), family


def test_generation_does_not_depend_on_the_number_of_processes_and_keeps_order():
    alone = list(sources.generate("scenes", 5, 11, 1))
    shared = list(sources.generate("scenes", 5, 11, 2))
    assert [to_bytes(record) for record in alone] == [to_bytes(record) for record in shared]
    assert [record.id for record in alone] == [f"scenes-11-{index:06d}" for index in range(5)]
    other = next(sources.generate("scenes", 1, 12, 1))
    assert other.words != alone[0].words


def test_a_family_can_be_asked_for_by_name_with_any_seed_and_index(synthesizer):
    asked = list(sources.generate("held_out", 3, 3, 1, "timed"))
    assert [record.family for record in asked] == ["timed"] * 3
    assert [record.id for record in asked] == [f"held_out-timed-3-{index:06d}" for index in range(3)]
    again = sources.make_conversation(synthesizer, "held_out", 3, 2, "timed")
    assert to_bytes(again) == to_bytes(asked[2])
    trained = sources.make_conversation(synthesizer, "scenes", 3, 0, "repetition")
    assert trained.family == "repetition" and trained.meta["split"] == scripts.TRAIN


def test_extrapolation_begins_where_training_ends(synthesizer):
    made = [
        (family, make_scene(synthesizer, family, np.random.default_rng([13, index]), scripts.EXTRAPOLATION, family))
        for family in FAMILIES
        for index in range(2)
    ]
    train = GRIDS[scripts.TRAIN]
    for family, record in made:
        meta = record.meta
        assert meta["split"] == scripts.EXTRAPOLATION and meta["speed"] > max(train.speed)
        assert meta["voice"] in [voice.name for voice in HELD_OUT_VOICES]
        assert record.user_audio is None or meta["noise_below_speech_db"] < min(train.noise)
        for name, longest in (("pause", 1.6), ("objects", 4), ("repetitions", 5)):
            assert name not in meta or meta[name] > longest, record.id
        if family == "timed":
            assert scripts.DELAYS[meta["delay"]] > 4.0
        spoken_count = len(words_of(record, MODEL))
        assert family != "repetition" or spoken_count == meta["repetitions"] >= 6
    source = list(sources.generate("extrapolation", len(FAMILIES), 1, 1))
    assert [record.family for record in source] == list(FAMILIES) and not any(record.gaps for record in source)


def test_bad_arguments_are_refused_at_the_call():
    for source, family, message in (
        ("scenes", "timid", "family 'timid': expected one of answer"),
        (
            "text",
            "timed",
            "family 'timed' of source 'text': only scenes, development, held_out, extrapolation, other_voices have "
            "families",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            sources.generate(source, 1, 0, 1, family)
    with pytest.raises(ValueError, match="'speech': expected one of scenes"):
        sources.generate("speech", 1, 0, 1)
    with pytest.raises(ValueError, match="count 0"):
        sources.generate("scenes", 0, 0, 1)


ORPHANS = """
import os, sys, time
from tml_jax.scenes import sources
made = sources.generate("text", 10_000, 0, 2)
next(made)
import multiprocessing
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
time.sleep(600)
"""


def test_workers_end_soon_after_a_generator_that_was_killed():
    process = subprocess.Popen([sys.executable, "-c", ORPHANS], stdout=subprocess.PIPE, text=True)
    workers = [int(number) for number in process.stdout.readline().split()]
    assert len(workers) == 2
    process.kill()
    process.wait()
    deadline = time.monotonic() + 60
    while alive := [number for number in workers if pathlib.Path(f"/proc/{number}/environ").exists()]:
        assert time.monotonic() < deadline, f"{alive} live on"
        time.sleep(0.5)
