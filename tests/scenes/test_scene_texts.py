"""Sources in which the model writes: what it writes is what was said or seen, and when."""

import functools
import re

import numpy as np
from played import coloured, words_of

from configs import replica
from tml_jax import shipped
from tml_jax.config import MICRO_TURN_SECONDS, from_mapping
from tml_jax.data.layout import layout, text_in_tokens
from tml_jax.data.record import MODEL, USER
from tml_jax.data.tokenizer import Tokenizer
from tml_jax.scenes import delegation, scripts, sources
from tml_jax.scenes.carriers import CARRIERS
from tml_jax.scenes.patterns import patterns
from tml_jax.scenes.phrases import phrases, wordings
from tml_jax.scenes.render import scene_duration


def test_transcription_shows_each_word_once_right_after_it_ended():
    for record in sources.generate("transcribed", 8, 0, 1):
        assert record.texts[0].speaker == USER and record.texts[0].text == "transcribe" and record.texts[0].time == 0.0
        shown = [(text.time, word) for text in record.texts[1:] for word in text.text.split()]
        said = words_of(record, USER)
        assert [word for _, word in shown] == [word.text for word in said]
        for (begins, _), word in zip(shown, said):
            window, ended = int(begins / MICRO_TURN_SECONDS), int(word.end / MICRO_TURN_SECONDS + 1e-6)
            assert window == ended + 1
        assert not record.model_audio.any() and record.family == "transcribed"


def test_text_has_no_sound_and_captions_name_colour_shape_and_direction():
    for record in sources.generate("text", 5, 0, 1):
        assert record.user_audio is None and record.model_audio is None and record.frames is None
        assert len(record.texts) >= 2 and all(text.speaker == MODEL for text in record.texts[1:])
        assert max(text.time for text in record.texts) < record.duration
    for record in sources.generate("captioned", 12, 0, 1):
        _, colour, kind, _, direction = record.texts[1].text.split()
        assert kind in scripts.SHAPES
        centres = np.asarray([np.argwhere(frame).mean(axis=0) for frame in coloured(record, scripts.TRAIN, colour)])
        moved = centres[6] - centres[0]  # until the caption is due
        axis, sign = {"left": (1, -1), "right": (1, 1), "up": (0, -1), "down": (0, 1)}[direction]
        assert sign * moved[axis] > 3 and abs(moved[1 - axis]) < 1.5, record.id


# Share of the square around it that each kind covers.
COVERED = {"box": (0.85, 1.01), "ball": (0.6, 0.84), "ring": (0.4, 0.64), "cross": (0.3, 0.64)}


def covered(record, turn):
    """Of each frame of a micro-turn, the share of the square around its object that this covers."""
    shares = []
    for frame in record.frames[np.floor(record.frame_times / MICRO_TURN_SECONDS + 1e-6) == turn].astype(int):
        stands_out = frame.max(axis=2) > 155  # no backdrop is as bright
        rows, columns = np.nonzero(stands_out)
        shares.append(stands_out.sum() / (max(np.ptp(rows), np.ptp(columns)) + 1) ** 2)
    return shares


def test_each_object_of_a_video_is_named_in_the_micro_turn_after_it_came():
    for record in sources.generate("named", 6, 0, 1):
        assert record.texts[0].text == "name" and record.user_audio is None
        for text in record.texts[1:]:
            shares, (low, high) = covered(record, int(text.time / MICRO_TURN_SECONDS) - 1), COVERED[text.text]
            assert len(shares) == 2 and all(low <= share <= high for share in shares), (record.id, text, shares)
        kinds = [text.text for text in record.texts[1:]]
        assert len(kinds) >= 7 and all(one != other for one, other in zip(kinds, kinds[1:]))


def test_of_the_objects_that_come_those_looked_for_are_noted_and_no_others():
    spoken = 0
    for record in sources.generate("sought", 20, 0, 1):
        kind, seen = record.meta["shape"], record.meta["seen"].split()
        spoken += record.user_audio is not None
        asked = " ".join(word.text for word in words_of(record, USER))
        typed = [text.text for text in record.texts if text.speaker == USER]
        assert typed == (["find"] if asked else ["find", kind]) and asked in ("", record.meta["wording"])
        noted = [text for text in record.texts if text.speaker == MODEL]
        assert {text.text for text in noted} == {"there"} and len(noted) == seen.count(kind) >= 2
        assert 0.25 < len(noted) / len(seen) < 0.75
        for text in noted:
            assert text.time > max((word.end for word in words_of(record, USER)), default=0.0)
            shares, (low, high) = covered(record, int(text.time / MICRO_TURN_SECONDS) - 1), COVERED[kind]
            assert len(shares) == 2 and all(low <= share <= high for share in shares), (record.id, text, shares)
    assert 8 <= spoken < 19


def utterances(record):
    """(words of anyone, what is noted of them, whether they were spoken, when they ended, when it is noted) of each."""
    begins, found = 0.0, []
    typed = [text for text in record.texts[1:] if text.speaker == USER]
    for note in (text for text in record.texts if text.speaker == MODEL):
        words = [word for word in record.words if begins <= word.start < note.time]
        wrote = [text for text in typed if begins <= text.time < note.time]
        assert bool(words) != bool(wrote), "one utterance, spoken or typed"
        ended = max([word.end for word in words] or [wrote[-1].time])
        said = " ".join(word.text for word in words) or wrote[-1].text
        found.append((said, note.text, bool(words), ended, note.time))
        begins = note.time
    return found


@functools.cache
def corrections():
    """Every wording that puts another sum in place of the one asked for."""
    composed = [text for carrier in delegation.REFINING for text in wordings(carrier)]
    return {*composed, *(text for pattern in patterns(scripts.TRAIN, "refining") for text in phrases(pattern))}


def note_due(asked):
    """What is to be noted of a wording that was filled in."""
    if set(asked) == {"wording", "sum"}:
        return f"{'instead' if asked['wording'] in corrections() else 'sum'} {asked['sum']}"
    forms = ("{delay} {keyword}", "{cue} {keyword}", "{shape} {keyword}", "{shape} {keyword} {second}", "count {shape}")
    for form in (*forms, "{keyword}", "{word}"):
        if set(re.findall(r"{(\w+)}", form)) == set(asked) - {"wording", "action"}:
            return form.format(**asked)
    return None


def test_what_each_utterance_asks_for_is_noted_soon_after_it():
    noted, stops = set(), 0
    for record in sources.generate("noted", 80, 0, 2):
        assert record.texts[0].text == "note" and record.model_audio is None
        notes, asked = record.meta["notes"], record.meta["asked"]
        assert [text.text for text in record.texts if text.speaker == MODEL] == notes
        assert 3 <= len(notes) == len(asked) <= 5
        for (words, note, spoken, ended, time), facts in zip(utterances(record), asked, strict=True):
            if spoken and note == "stop":  # at the micro-turn from which on a model that counts begins no number
                stops += 1
                assert scene_duration(ended) <= time < scene_duration(ended) + MICRO_TURN_SECONDS, (record.id, words)
            else:
                later = int(time / MICRO_TURN_SECONDS) - np.floor(ended / MICRO_TURN_SECONDS + 1e-6)
                assert later == 2, (record.id, note)
            if due := note_due(facts):
                assert note == due, (words, note)
                said = facts["wording"].replace(",", "").format(**facts)
                assert words.replace(",", "").endswith(said), (words, facts)
                noted.add(frozenset(facts) | {"instead"} & {note.split()[0]})
            else:
                noted.add(note)
                assert note in ("nothing", "stop", "count", "how many", "what", "repeat", "translate")
                kind = {"how many": "count_seen", "what": "quiet_until_seen"}.get(note, note)
                if note not in ("nothing", "stop"):
                    assert any(facts["wording"] in wordings(carrier) for carrier in CARRIERS[kind]) or any(
                        facts["wording"] in phrases(pattern) for pattern in patterns(scripts.TRAIN, kind)
                    ), (note, words)
    assert len(noted) == 9 + 7, "of requests that are filled in, and of all else"
    assert stops > 15


def test_some_utterances_are_typed_and_some_records_have_no_microphone():
    records = list(sources.generate("noted", 80, 0, 2))
    silent = [record for record in records if record.user_audio is None]
    typed = [sum(text.speaker == USER for text in record.texts[1:]) for record in records if record.words]
    assert 1 <= len(silent) <= 18 and 10 <= sum(typed) <= 60
    assert all(not record.words for record in silent)


def test_what_is_typed_has_been_read_before_anything_is_put_out_because_of_it():
    config, tokenizer = from_mapping(replica.get_config()), Tokenizer.load(shipped.path() / "tokenizer.json")
    answers = [record for record in sources.generate("scenes", 80, 0, 2, "answer") if record.meta["typed"]]
    notes = [record for record in sources.generate("noted", 80, 0, 2) if record.user_audio is None]
    assert len(answers) > 8 and len(notes) > 1
    for record in [*answers, *notes]:
        read = np.cumsum([len(tokens) for tokens in layout(record, tokenizer, config).text_in])
        put_out = [word.start for word in words_of(record, MODEL)[:1]]
        for time in put_out or [text.time for text in record.texts if text.speaker == MODEL]:
            typed = [text.text for text in record.texts if text.speaker == USER and text.time < time - 0.4 + 1e-6]
            expected = sum(len(text_in_tokens(USER, text, tokenizer, config.model)) for text in typed)
            # What is heard or shown in window w is put out by micro-turn w - 1.
            assert read[int(time / MICRO_TURN_SECONDS) - 1] >= expected, (record.id, typed)


def test_what_is_noted_fits_into_a_row_of_training():
    most = 0.05 * replica.get_config().data.packing.audio_in  # seconds
    lengths = [record.duration for record in sources.generate("noted", 120, 1, 2)]
    assert max(lengths) <= most and np.mean(lengths) > 8.0
