"""Before the first step: only what is missing is made."""

import dataclasses

import pytest

from configs import tiny
from tml_jax.config import ConfigError, from_mapping
from tml_jax.data.record import USER, Conversation, Text, Word
from tml_jax.data.shards import DataError, open_shards, write_shards
from tml_jax.train import prepare


def records(source, count):
    for index in range(count):
        yield Conversation(
            f"{source}-{index}", 1.0, words=(Word(USER, "seven", 0.1, 0.5),), texts=(Text(USER, "typed text", 0.2),)
        )


@pytest.fixture
def made(monkeypatch):
    """Stands in for the voices; lists what was asked for."""
    asked = []

    def generate(source, count, seed, processes, clips):
        asked.append((source, count, seed) if clips is None else (source, count, seed, clips))
        return records(source, count)

    monkeypatch.setattr(prepare.sources, "generate", generate)
    return asked


def config_for(directory, **changes):
    config = from_mapping(tiny.get_config())
    data = dataclasses.replace(config.data, directory=str(directory), seed=3, **changes)
    return dataclasses.replace(config, data=data)


def silent(line):
    pass


def test_only_missing_sources_are_generated(tmp_path, made):
    config = config_for(tmp_path, generate={"scenes": 4, "held_out": 2})
    write_shards(records("mine", 3), tmp_path / "scenes")
    prepare.ensure_data(config, log=silent)
    assert made == [("held_out", 2, 3)]
    assert len(open_shards(tmp_path / "scenes")) == 3 and len(open_shards(tmp_path / "held_out")) == 2
    prepare.ensure_data(config, log=silent)
    assert len(made) == 1


def test_clips_lie_behind_the_sources_that_are_made_of_scenes(tmp_path, made, monkeypatch):
    config = config_for(tmp_path, generate={"scenes": 2, "captioned": 1, "held_out": 1}, clips="films")
    sources = {name: dataclasses.replace(config.data.sources["scenes"], path=name) for name in ("scenes", "captioned")}
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, sources=sources))
    with pytest.raises(DataError, match="films: no such folder"):
        prepare.ensure_data(config, silent)
    assert not made, "it is noticed before anything is made"
    monkeypatch.setattr(prepare, "load_clips", lambda folder, split: ())
    prepare.ensure_data(config, silent)
    assert made == [("scenes", 2, 3, "films"), ("captioned", 1, 3), ("held_out", 1, 3, "films")]
    said = []
    prepare.ensure_data(config, said.append)
    assert [line.split("/")[-1].split()[0] for line in said] == ["scenes", "held_out"] and "changes nothing" in said[0]


@pytest.mark.parametrize("name, message", [("scenez", "no such source"), ("mine", "generated sources are scenes")])
def test_source_that_cannot_be_generated_is_named_before_any_work(tmp_path, made, name, message):
    config = config_for(tmp_path, generate={"held_out": 2, name: 4})
    sources = {"mine": dataclasses.replace(config.data.sources["scenes"], path="mine"), **config.data.sources}
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, sources=sources))
    with pytest.raises(ConfigError, match=message):
        prepare.ensure_data(config, log=silent)
    assert made == []


def test_source_that_is_neither_there_nor_generated_is_an_error(tmp_path, made):
    with pytest.raises(DataError, match="scenes: no such folder"):
        prepare.ensure_data(config_for(tmp_path, generate={"held_out": 2}), log=silent)


def test_tokenizer_is_trained_once_on_words_and_texts(tmp_path, made):
    config = config_for(tmp_path, generate={"scenes": 4, "held_out": 2})
    prepare.ensure_data(config, log=silent)
    first = prepare.ensure_tokenizer(config, tmp_path / "run" / "tokenizer.json", log=silent)
    assert len(first.encode_words("seven")) == 1 and len(first.encode_words("typed")) == 1
    assert first.size <= config.model.text_vocab_size
    write_shards(records("other", 9), tmp_path / "scenes", overwrite=True)
    again = prepare.ensure_tokenizer(config, tmp_path / "run" / "tokenizer.json", log=silent)
    assert again.fingerprint == first.fingerprint


def test_the_first_records_are_made_and_not_kept_where_a_source_is_missing(tmp_path, made):
    config = config_for(tmp_path, generate={"scenes": 40, "held_out": 2})
    ids = lambda found: [record.id for record in found]  # noqa: E731
    assert ids(prepare.first_records(config, "scenes", 5, log=silent)) == [f"scenes-{i}" for i in range(5)]
    assert len(prepare.first_records(config, "scenes", 500, log=silent)) == 40
    assert made == [("scenes", 5, 3), ("scenes", 40, 3)] and not list(tmp_path.iterdir())
    write_shards(records("mine", 3), tmp_path / "scenes")
    assert ids(prepare.first_records(config, "scenes", 2, log=silent)) == ["mine-0", "mine-1"]
    assert ids(prepare.ensure_source(config, "held_out", log=silent)) == ["held_out-0", "held_out-1"]
    assert made[2:] == [("held_out", 2, 3)] and (tmp_path / "held_out").exists()
    with pytest.raises(DataError, match="scenes: no such folder"):
        prepare.first_records(config_for(tmp_path / "elsewhere", generate={"held_out": 2}), "scenes", 2, log=silent)
