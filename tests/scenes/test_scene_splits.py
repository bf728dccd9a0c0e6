"""No voice, wording, time, size or colour is in two splits; all that is said can be spoken."""

import collections
import dataclasses
import itertools
import re

import numpy as np
import pytest
from played import play

from tml_jax.data.record import USER
from tml_jax.scenes import acoustics, delegation, scene, scripts
from tml_jax.scenes import patterns as pattern_files
from tml_jax.scenes.carriers import CARRIERS, OPENINGS
from tml_jax.scenes.families import FAMILIES
from tml_jax.scenes.grids import GRIDS, Grids
from tml_jax.scenes.patterns import exchanges, patterns
from tml_jax.scenes.phrases import draw_phrase, phrases, wordings
from tml_jax.scenes.voices import HELD_OUT_VOICES, TRAIN_VOICES

# Kinds of request that a family uses, where that is not its own name.
REQUESTS = {
    "interruption": ("count",),
    "backchannel": ("count",),
    "side_talk": ("count", "answer"),
    "background": ("count", "answer"),
    "simultaneous": ("repeat", "translate"),
    "model_backchannel": ("story",),
    "delegation": ("sum", "following", "refining", "word", "near_remark"),
}
LISTS = {
    **CARRIERS,
    "sum": delegation.CARRIERS,
    "following": delegation.FOLLOWING,
    "refining": delegation.REFINING,
    "word": delegation.NEAR_REQUESTS,
    "near_remark": delegation.NEAR_REMARKS,
}  # kind → wordings of training, besides its patterns
PARTS = (scripts.TRAIN, scripts.DEVELOPMENT, scripts.HELD_OUT)  # of the wordings
TALK = ("filler", "television", "story_piece", "side_talk")  # what asks for nothing, besides `silence`
FIELDS = dict(
    keyword="tiger", second="gone", shape="ball", action="bounces", story="it was closed", cue="go", delay="two",
    sum="one plus two", word="six", one="one", two="two",
)  # fmt: skip


def lines(part, kind):
    """The patterns of a kind, those of exchanges line by line."""
    if kind != "side_talk":
        return patterns(part, kind)
    return tuple(pattern for exchange in exchanges(part) for _, pattern in exchange)


def said(part, kind):
    """Every wording of a kind, not filled in."""
    composed = [phrase for pattern in lines(part, kind) for phrase in phrases(pattern)]
    if part == scripts.TRAIN:
        composed += [wording for carrier in LISTS.get(kind, ()) for wording in wordings(carrier)]
    return composed


def bare(wording):
    """A wording without the words that change nothing."""
    return " ".join(word for word in wording.replace(",", "").split() if word not in ("please", "now", "so", "then"))


def words_apart(text, other):
    """Words from where two texts begin to differ to where they are the same again: below 2 only where one word does."""
    text, other = text.split(), other.split()
    shorter = min(len(text), len(other))
    first = next((at for at, (a, b) in enumerate(zip(text, other)) if a != b), shorter)
    last = next((at for at, (a, b) in enumerate(zip(text[::-1], other[::-1])) if a != b), shorter)
    return max(len(text), len(other)) - first - min(last, shorter - first)


def differ_in_a_word(text, other):
    """Whether two texts have the same words in any order, but for one of each that has four or more."""
    text, other = collections.Counter(text.split()), collections.Counter(other.split())
    return (text - other).total() <= (text.total() > 3) and (other - text).total() <= (other.total() > 3)


def one_place_open(text):
    """A text with each word left out in turn, and with room for a word between any two; and its words in any order, all
    of them, and of four or more all but one: what differs in one word at most has one of these in common."""
    words, anyhow = text.split(), sorted(text.split())
    left_out = (" ".join([*words[:at], "*", *words[at + 1 :]]) for at in range(len(words)))
    between = (" ".join([*words[:at], "*", *words[at:]]) for at in range(len(words) + 1))
    fewer = [tuple(anyhow[:at] + anyhow[at + 1 :]) for at in range(len(anyhow))] if len(words) > 3 else ()
    return {*left_out, *between, tuple(anyhow), *fewer}


def near(texts, heard):
    """(text, other): those of `heard` that are less than two words from a text, or from what follows an opening in it,
    or have all words of it but one.

    A text of one word is near to itself alone.
    """
    known = {}
    for text in texts:
        mine = bare(text)
        openings = [opening for opening in map(bare, OPENINGS) if mine.startswith(f"{opening} ")]
        for part in (mine, *(mine[len(opening) + 1 :] for opening in openings)):
            known |= dict.fromkeys(one_place_open(part) if len(part.split()) > 1 else {part}, text)
    return [(known[key], other) for other in heard for key in {other, *one_place_open(other)} & known.keys()]


@pytest.mark.parametrize(
    "before, after, told",
    [
        ("[cue]", "[cu]", "kind 'cu' is not known"),
        ("[side_talk]", "[answer]", "kind 'answer' is there twice"),
        ("at {cue} say", "at {queue} say", "cue is filled in with cue keyword: 'at {queue}"),
        ("at {cue} say", "at noon say", "cue is filled in with cue keyword"),
        ("[it is|]", "[it is|", "closed and not within one another"),
        ("[it is|]", "[it is|[a]]", "closed and not within one another"),
        ("at {cue}", "At {cue}!", "small letters"),
        ("other: busy", "usr: busy", "expected lines of both speakers, such as `user: … / other: …`"),
        ("other: busy", "busy", "expected lines of both speakers, such as `user: … / other: …`"),
        (" / user: no", "", "expected lines of both speakers, such as `user: … / other: …`"),
    ],
)
def test_a_damaged_file_of_wordings_is_refused_with_the_line(before, after, told):
    others = (*LISTS, "interruption", "filler", "television", "story_piece")
    rest = "".join(f"[{kind}]\n{patterns(scripts.HELD_OUT, kind)[0]}\n" for kind in others if kind != "cue")
    whole = "[cue]\nat {cue} say [it is|] {keyword}\n# a comment\n\n" + rest + "[side_talk]\nother: busy / user: no\n"
    assert pattern_files.read_kinds(whole, "w.txt")["cue"] == ("at {cue} say [it is|] {keyword}",)
    assert whole.count(before) == 1
    with pytest.raises(ValueError, match=rf"^w\.txt:\d+: .*{told}"):
        pattern_files.read_kinds(whole.replace(before, after), "w.txt")
    with pytest.raises(ValueError, match="^w.txt: kind 'cue' has no pattern"):
        pattern_files.read_kinds(whole.replace("at {cue} say [it is|] {keyword}\n", ""), "w.txt")


def test_choices_of_nothing_leave_no_space_behind():
    composed = {"say, {keyword}", "please say, {keyword}", "say this, {keyword}", "please say this, {keyword}"}
    pattern = "[please|] say [|this], {keyword}"
    assert set(phrases(pattern)) == composed
    assert {draw_phrase(pattern, np.random.default_rng(seed)) for seed in range(40)} == composed


def test_no_wording_is_twice_in_a_kind():
    for part, kind in itertools.product(PARTS, (*LISTS, *TALK)):
        each = [(pattern, phrases(pattern)) for pattern in patterns(part, kind)] if kind != "side_talk" else []
        each += [(carrier, wordings(carrier)) for carrier in LISTS.get(kind, ()) if part == scripts.TRAIN]
        for line, composed in each:
            assert len(set(composed)) == len(composed), (kind, line)
        written = [line for line, _ in each] or exchanges(part)
        assert len(set(written)) == len(written) >= (16 if part == scripts.TRAIN else 3), (part, kind)
        if part != scripts.TRAIN:  # each stands for itself, so that figures can be told by wording
            assert not any("[" in line for line in lines(part, kind))


@pytest.mark.parametrize(
    "part, other",
    [
        (scripts.HELD_OUT, scripts.TRAIN),
        (scripts.DEVELOPMENT, scripts.TRAIN),
        (scripts.DEVELOPMENT, scripts.HELD_OUT),
    ],
)
def test_what_is_held_out_is_two_words_from_anything_that_another_part_says(part, other):
    talk = {bare(text) for kind in ("silence", *TALK) for text in said(other, kind)}
    for kind in (*LISTS, *TALK, "interruption"):
        heard = talk if kind in ("silence", *TALK) else {bare(text) for text in said(other, kind)}
        if kind == "interruption" and other == scripts.TRAIN:
            heard |= set(scripts.INTERRUPTIONS[scripts.TRAIN])
        assert not (found := near(said(part, kind), heard)), (kind, found[:3])


def test_what_is_held_out_of_requests_for_a_word_is_near_to_none_of_training_whatever_its_kind():
    kinds = ("answer", "pause", "word")  # which are worded alike
    texts = {
        part: {bare(text) for kind in kinds for text in said(part, kind)} for part in (scripts.TRAIN, scripts.HELD_OUT)
    }
    named = {part: {re.sub(r"{(keyword|word)}", "{it}", text) for text in found} for part, found in texts.items()}
    assert len(named[scripts.HELD_OUT]) == 30
    assert not (found := near(named[scripts.HELD_OUT], named[scripts.TRAIN])), found[:3]


@pytest.mark.parametrize("split", [scripts.DEVELOPMENT, scripts.HELD_OUT, scripts.EXTRAPOLATION])
def test_all_that_is_heard_in_held_out_scenes_is_of_their_own_file(synthesizer, split, monkeypatch):
    asked, carriers = set(), set()

    def of_a_part(part, kind):
        asked.add((part, kind))
        return patterns(part, kind)

    for module in (scene, acoustics, pattern_files):
        monkeypatch.setattr(module, "patterns", of_a_part)
    pattern_files.exchanges.cache_clear()
    monkeypatch.setattr(scene, "draw_wording", lambda carrier, rng: carriers.add(carrier) or "say tiger")
    play(synthesizer, FAMILIES, (split,), 8, 11)
    for seed in range(200):
        acoustics.draw_acoustics(np.random.default_rng(seed), split)
    assert {part for part, _ in asked} == {scripts.wordings_of(split)} and not carriers
    assert {kind for _, kind in asked} >= {"cue", "sum", "silence", "interruption", *TALK}
    pattern_files.exchanges.cache_clear()


def test_what_is_said_around_a_cue_is_no_cue():
    for part in PARTS:
        for phrase in said(part, "filler"):
            assert not set(scripts.CUE_WORDS) & set(phrase.split()), phrase


@pytest.mark.parametrize("part", PARTS)
def test_what_the_user_says_to_others_or_of_their_day_is_not_what_stops_the_model_in_any_part(part):
    stops = {bare(words) for other in PARTS for words in (*scripts.INTERRUPTIONS[other], *said(other, "interruption"))}
    spoken = {bare(phrase) for talk in exchanges(part) for who, line in talk if who == USER for phrase in phrases(line)}
    assert len(spoken) >= 8 and not stops & spoken
    for kind in ("silence", "filler", "story_piece", "near_remark"):
        assert not stops & set(map(bare, said(part, kind))), kind


def test_the_measure_of_nearness_knows_what_is_near():
    heard = {"say it when i call", "hold your tongue", "stop", "stop it"}
    assert set(near(["please say it now when i call"], heard)) == {
        ("please say it now when i call", "say it when i call")
    }  # these words change nothing
    for text in ("say that when i call", "okay say it when i call", "say it when i should call", "say it when call"):
        assert near([text], heard), text
    assert not near(["speak up when i call", "keep your mouth shut", "halt", "do hold that tongue"], heard)
    assert set(near(["stop"], heard)) == {("stop", "stop")}


def test_near_is_what_differs_in_one_place_or_in_one_word_of_any_order():
    rng = np.random.default_rng(3)
    texts = {" ".join(rng.choice(("a", "b", "c"), rng.integers(2, 6))) for _ in range(60)}
    found = {(text, other) for text in texts for _, other in near([text], texts)}
    apart = {(text, other) for text in texts for other in texts if words_apart(text, other) < 2}
    assert found == apart | {(text, other) for text in texts for other in texts if differ_in_a_word(text, other)}
    assert len(texts) < len(found) < len(texts) ** 2 / 2


def test_the_splits_share_no_voice_time_size_or_colour(records):
    assert not set(TRAIN_VOICES) & set(HELD_OUT_VOICES)
    for field in dataclasses.fields(Grids):
        for one, other in itertools.combinations((scripts.TRAIN, scripts.HELD_OUT, scripts.EXTRAPOLATION), 2):
            values, others = (getattr(GRIDS[split], field.name) for split in (one, other))
            assert values and others and min(abs(a - b) for a in values for b in others) > 1e-3, (
                field.name,
                one,
                other,
            )
    assert not set(scripts.COLOURS[scripts.TRAIN]) & set(scripts.COLOURS[scripts.HELD_OUT])
    for table in (scripts.INTERRUPTIONS, scripts.BACKCHANNELS):  # shared, but that training has more
        assert set(table[scripts.TRAIN]) > set(table[scripts.HELD_OUT])
    voices = {scripts.TRAIN: TRAIN_VOICES, scripts.HELD_OUT: HELD_OUT_VOICES}
    texts = {(kind, split): {"", *said(split, kind)} for kind in LISTS for split in (scripts.TRAIN, scripts.HELD_OUT)}
    for (family, split), found in records.items():
        for record in found:
            assert record.meta["voice"] in [voice.name for voice in voices[split]] and record.meta["split"] == split
            kinds = REQUESTS.get(family, (family,))
            assert any(record.meta["wording"] in texts[kind, split] for kind in kinds), (family, record.meta["wording"])


def test_all_that_is_said_can_be_spoken(synthesizer):
    written = [line for part in PARTS for kind in (*LISTS, *TALK, "interruption") for line in lines(part, kind)]
    written += [line for carriers in LISTS.values() for line in carriers]
    written += [*OPENINGS, *wordings("*say"), *wordings("say+")]
    written += [scripts.GONE, scripts.LISTENING, *scripts.TRANSLATIONS, *scripts.SHAPES]
    written += [text for table in (scripts.INTERRUPTIONS, scripts.BACKCHANNELS) for text in table[scripts.TRAIN]]
    words = {word for line in written for word in re.sub(r"[][|,*+]", " ", line.format(**FIELDS)).split()}
    assert len(words) > 1500
    for word in sorted(words):
        speech = synthesizer.say(word)
        assert [spoken.text for spoken in speech.words] == [word] and speech.duration > 0.1
    together = "no i'm on the phone, it is three"
    assert [word.text for word in synthesizer.say(together).words] == together.replace(",", "").split()
