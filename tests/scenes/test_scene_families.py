"""The families of scenes with company, pictures and overlap: what is due follows from what is heard and seen."""

import collections

import numpy as np
import pytest
from played import coloured, cues_of, play, scenes_of, seen, words_of
from scipy import ndimage

from tml_jax.config import INPUT_RATE, MICRO_TURN_SECONDS
from tml_jax.data.layout import gates
from tml_jax.data.record import MODEL, OTHER, USER
from tml_jax.scenes import scripts, sights
from tml_jax.signal.pcm import float_audio

EACH = 8  # scenes of each family and split
SPLITS = (scripts.TRAIN, scripts.HELD_OUT)
FAMILIES = (
    "side_talk",
    "background",
    "visual_stop",
    "repetition",
    "count_seen",
    "quiet_until_seen",
    "simultaneous",
    "model_backchannel",
)


@pytest.fixture(scope="module")
def records(synthesizer):
    return play(synthesizer, FAMILIES, SPLITS, EACH, 12)


def window(seconds):
    return int(np.floor(seconds / MICRO_TURN_SECONDS + 1e-6))


def level(record, start, end):
    """dB re full scale of the user's side between two times."""
    samples = float_audio(record.user_audio[int(start * INPUT_RATE) : int(end * INPUT_RATE)]).astype(np.float64)
    return 10 * np.log10(np.mean(samples**2) + 1e-12)


def test_a_hint_of_every_family_is_in_the_cues(records):
    kinds = {family: {cue.kind for record in scenes_of(records, family) for cue in record.cues} for family in FAMILIES}
    assert kinds["side_talk"] == kinds["background"] == {"respond", "hold", "keep"}
    for family in ("visual_stop", "repetition", "quiet_until_seen", "simultaneous", "model_backchannel"):
        assert kinds[family] == {"respond", "hold"}


def test_others_speak_in_another_voice_as_much_softer_than_the_user_as_noted(records):
    judged = collections.Counter()
    for record in scenes_of(records, "side_talk", "background"):
        theirs, users = words_of(record, OTHER), words_of(record, USER)
        assert theirs and record.meta["other_voice"] != record.meta["voice"]
        lowest, highest, name = (-9, -3, "beside_db") if record.family == "side_talk" else (-20, -12, "television_db")
        assert lowest <= record.meta[name] <= highest
        alone = [
            [level(record, word.start, word.end) for word in speaker if not overlapped(word, other)]
            for speaker, other in ((theirs, users), (users, theirs))
        ]
        if min(map(len, alone)) >= 3 and record.meta["near_clean"]:  # single words differ much in level
            judged[record.family] += 1
            theirs_db, users_db = (10 * np.log10(np.mean(10 ** (np.asarray(found) / 10))) for found in alone)
            assert theirs_db - users_db == pytest.approx(record.meta[name], abs=5.0), record.id
    assert min(judged["side_talk"], judged["background"]) >= 2


def overlapped(word, others):
    return any(word.start < other.end and other.start < word.end for other in others)


def test_side_talk_comes_before_during_and_after_what_the_model_does(records):
    assert {record.meta["when"] for record in scenes_of(records, "side_talk")} == {"counting", "before", "after"}
    assert {record.meta["when"] for record in scenes_of(records, "background")} == {"counting", "asking"}
    for record in scenes_of(records, "side_talk", "background"):
        if record.meta["when"] == "counting":
            assert tuple(word.text for word in words_of(record, MODEL)) == scripts.NUMBERS
            (keep,) = cues_of(record, "keep")
            assert min(abs(keep.start - word.start) for word in record.words if word.speaker != MODEL) < 1e-6


def test_an_object_is_seen_from_the_first_reply_due_to_the_second(records):
    for split in SPLITS:
        found = [record for record in records["visual_stop", split] if "event" in record.meta]
        assert found
        for record in found:
            shown, alone = seen(record, split)
            appears, gone = (cue.start for cue in cues_of(record, "respond"))
            expected = (record.frame_times >= appears - 1e-6) & (record.frame_times < gone - 1e-6)
            np.testing.assert_array_equal(shown[alone], expected[alone])
            first, second = words_of(record, MODEL)
            assert (first.text, second.text) == (record.meta["keyword"], record.meta["second"])
            spoke = np.asarray(gates(record))
            assert np.sum(np.diff(spoke.astype(int)) == 1) == 2  # two onsets


def test_others_come_and_go_before_the_object_that_is_waited_for_or_in_its_place(synthesizer):
    records = play(synthesizer, ("visual", "visual_stop"), SPLITS, 12, 21)
    replies, others = collections.Counter(), collections.Counter()
    for record in scenes_of(records, "visual", "visual_stop"):
        meta, hold = record.meta, cues_of(record, "hold")[0]
        comes = "event" in meta
        replies[comes] += 1
        others[len(meta["decoys"])] += 1
        assert len(cues_of(record, "respond")) == comes * (2 if record.family == "visual_stop" else 1)
        if not comes:
            assert meta["decoys"] and not words_of(record, MODEL) and hold.end > meta["decoys_seen"][-1][1] + 0.5
        came = hold.start
        for kind, (appears, gone) in zip(meta["decoys"], meta["decoys_seen"], strict=True):
            assert came < appears < gone < hold.end, "the model must be silent while another object is seen"
            assert kind in scripts.SHAPES and kind != meta["shape"]
            during = (record.frame_times >= appears - 1e-6) & (record.frame_times < gone - 1e-6)
            bright = record.frames[during].max(axis=3) > 155  # no backdrop is as bright
            assert during.sum() >= 6 and np.all(bright.reshape(during.sum(), -1).sum(axis=1) > 15), record.id
            came = gone
    assert replies[False] >= 4 < replies[True] and min(others[count] for count in (0, 1, 2)) >= 3


def test_an_object_that_comes_first_or_second_is_as_often_another_as_the_one_that_is_waited_for():
    for place in (0, 1):
        comes = [coming[place] for coming in sights._COMINGS if len(coming) > place]
        assert np.mean(comes) == 0.5


@pytest.mark.parametrize("family", ["visual", "visual_stop"])
def test_when_an_object_comes_does_not_tell_what_it_is_and_either_kind_comes_first_or_second(synthesizer, family):
    """Delays of objects that are waited for beside those of others, first and second ones apart."""
    came = collections.defaultdict(lambda: ([], []))  # place → delays of others, of those waited for
    for record in play(synthesizer, (family,), (scripts.TRAIN,), 120, 22)[family, scripts.TRAIN]:
        since = cues_of(record, "hold")[0].start
        for place, (appears, gone) in enumerate(record.meta["decoys_seen"]):
            came[place][0].append(appears - since)
            since = gone
        if "event" in record.meta:
            came[len(record.meta["decoys_seen"])][1].append(record.meta["event"] - since)
    assert set(came) == {0, 1}
    for others, asked in came.values():
        share = len(asked) / (len(asked) + len(others))
        assert 0.25 < share < 0.85 and min(len(asked), len(others)) >= 8
        spread = np.std(others + asked)
        error = spread * np.sqrt(1 / len(others) + 1 / len(asked))
        assert abs(np.mean(others) - np.mean(asked)) < 3 * error and spread > 0.1


def test_each_repetition_is_counted_at_the_frame_that_completes_it(records):
    actions = set()
    for split in SPLITS:
        for record in records["repetition", split]:
            actions.add(record.meta["action"])
            pixels = coloured(record, split, record.meta["colour"])
            shown = pixels.reshape(len(pixels), -1).any(axis=1)
            if record.meta["action"] == "flashes":
                away = shown
            else:
                assert shown.all()
                centres = np.asarray([np.argwhere(frame).mean(axis=0) for frame in pixels])
                away = np.abs(centres - np.median(centres[:5], axis=0)).max(axis=1) > 0.3
            ended = record.frame_times[1:][away[:-1] & ~away[1:]]
            due = [cue.start for cue in cues_of(record, "respond")]
            assert len(due) == record.meta["repetitions"] in scripts.AMOUNTS[split]["repetitions"]
            # An action may come to rest a frame before the model is to know it, never after.
            assert len(ended) == len(due) and np.all((due - ended > -1e-6) & (due - ended < 0.11)), record.id
            assert [word.text for word in words_of(record, MODEL)] == list(scripts.NUMBERS[: len(due)])
    assert actions == {"bounces", "flashes", "moves"}


def test_as_many_objects_are_seen_as_the_model_says(records):
    counts = set()
    for split in SPLITS:
        for record in records["count_seen", split]:
            pixels = coloured(record, split, record.meta["colour"])
            for frame in (pixels[0], pixels[-1]):
                _, found = ndimage.label(frame, np.ones((3, 3)))
                assert found == record.meta["objects"], record.id
            (word,) = words_of(record, MODEL)
            assert word.text == scripts.NUMBERS[record.meta["objects"] - 1]
            counts.add(record.meta["objects"])
    assert len(counts) >= 3


def test_the_model_names_what_appears_and_not_talk_or_light(records):
    distractors = set()
    for split in SPLITS:
        for record in records["quiet_until_seen", split]:
            shown = coloured(record, split, record.meta["colour"]).reshape(len(record.frames), -1).sum(axis=1) > 15
            (due,) = cues_of(record, "respond")
            np.testing.assert_array_equal(shown, record.frame_times >= due.start - 1e-6)
            assert due.text == record.meta["shape"]
            distractors.add(record.meta["distractor"])
            brightness = record.frames.mean(axis=(1, 2, 3))
            bright = brightness > np.median(brightness) + 40
            assert bright.any() == (record.meta["distractor"] == "light"), record.id
            assert not bright[shown].any()
            talked = [word for word in words_of(record, USER) if word.start > cues_of(record, "hold")[0].start]
            assert bool(talked) == (record.meta["distractor"] == "talk")
    assert distractors == {"none", "talk", "light"}


def test_the_model_repeats_or_translates_each_word_while_the_user_goes_on(records):
    tasks, overlaps = set(), 0
    for record in scenes_of(records, "simultaneous"):
        said = words_of(record, MODEL)
        asked = words_of(record, USER)[-len(said) :]
        meaning = scripts.TRANSLATIONS if record.meta["task"] == "translate" else {}
        assert [word.text for word in said] == [meaning.get(word.text, word.text) for word in asked]
        for word, source in zip(said, asked):
            assert 0.2 - 1e-6 <= word.start - source.end <= 0.75, record.id
        assert all(before.end <= after.start for before, after in zip(said, said[1:]))
        overlaps += sum(overlapped(word, asked) for word in said)
        tasks.add(record.meta["task"])
    assert tasks == {"repeat", "translate"} and overlaps >= 2 * EACH


def test_the_model_shows_that_it_listens_in_the_pauses_of_a_story_only(records):
    for record in scenes_of(records, "model_backchannel"):
        said, heard = words_of(record, MODEL), words_of(record, USER)
        sounds = [word for word in said if word.text in scripts.LISTENING.split()]
        assert len(sounds) in (2, 4) and said[-1].text == record.meta["keyword"] and len(said) == len(sounds) + 1
        assert not any(overlapped(word, heard) for word in said)
        assert said[-1].start > heard[-1].end


def test_where_nobody_asks_something_is_seen_in_half_of_the_scenes_and_nothing_is_due(synthesizer):
    found = scenes_of(play(synthesizer, ("silence",), SPLITS, 20, 23), "silence")
    kinds = collections.Counter(record.meta.get("seen", "nothing") for record in found)
    assert set(kinds) == {"nothing", "repeats", "comes", "is there"}
    assert len(found) / 4 <= kinds["nothing"] <= 3 * len(found) / 4
    for record in found:
        assert not words_of(record, MODEL) and not cues_of(record, "respond")
        assert (record.frames is None) == ("seen" not in record.meta)
        if "seen" in record.meta:  # something is brighter than any backdrop, at some time
            bright = (record.frames.max(axis=3) > 155).reshape(len(record.frames), -1).sum(axis=1)
            assert bright.max() > 15, record.id
