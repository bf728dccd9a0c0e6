"""What a run needs before its first step: the generated sources and a tokenizer."""

import contextlib
import functools
import os
import pathlib
from collections.abc import Callable, Generator, Iterator, Sequence

from tml_jax.config import Config, ConfigError
from tml_jax.data.lengths import source_lengths
from tml_jax.data.record import Conversation
from tml_jax.data.shards import DataError, open_shards, write_shards
from tml_jax.data.tokenizer import BYTES, Tokenizer, train_tokenizer
from tml_jax.data.workers import in_parts
from tml_jax.scenes import sources
from tml_jax.scenes.clips import load_clips

HELD_OUT = "held_out"  # its name in `config.data.generate`
_PROCESS_PAYS = 20  # conversations that are worth a process of their own


def ensure_data(config: Config, log: Callable[[str], None] = print) -> None:
    """Generates every source of `config.data.generate` that is not there yet, and checks that the others are.

    Args:
      config: the configuration.
      log: takes a line of progress.

    Raises:
      ConfigError: `config.data.generate` names a source that the mixture lacks or that cannot be generated.
      DataError: a source that is not generated is missing or broken.
    """
    check_generated(config, log)
    for name in dict.fromkeys((*config.data.generate, *config.data.sources, HELD_OUT)):
        ensure_source(config, name, log)


def check_generated(config: Config, log: Callable[[str], None] = print) -> None:
    """Makes sure that what `config.data.generate` and `config.data.clips` name can be generated, and writes nothing.

    Raises:
      ConfigError: `config.data.generate` names a source that the mixture lacks or that cannot be generated.
      DataError: there are no clips where they should be.
    """
    for name in config.data.generate:
        source_directory(config, name)
    unknown = [name for name in config.data.generate if name not in sources.SOURCES]
    if unknown:
        raise ConfigError(f"config.data.generate[{unknown[0]!r}]: generated sources are {', '.join(sources.SOURCES)}")
    for name in config.data.generate if config.data.clips else ():
        if name not in sources.SPLITS:
            continue
        if (directory := source_directory(config, name)).exists():
            log(f"{directory} is there and stays as it is: config.data.clips changes nothing")
        else:
            load_clips(config.data.clips, sources.SPLITS[name])


def ensure_source(config: Config, name: str, log: Callable[[str], None] = print) -> Sequence[Conversation]:
    """The records of one source, or of `held_out`; generated where they are missing and the configuration says so.

    Raises:
      ConfigError: there is no such source.
      DataError: it is broken, or missing and not generated.
    """
    directory = source_directory(config, name)
    if not directory.exists() and name in config.data.generate:
        log(f"generating {config.data.generate[name]} conversations of {name} into {directory}")
        with contextlib.closing(_generated(config, name, config.data.generate[name])) as made:
            write_shards(made, directory)
    return open_shards(directory)


def first_records(config: Config, name: str, count: int, log: Callable[[str], None] = print) -> list[Conversation]:
    """The first records of a source, at most `count`, which are made and not kept where the source is not there.

    Raises:
      ConfigError: there is no such source.
      DataError: it is broken, or missing and not generated.
    """
    directory = source_directory(config, name)
    if not directory.exists() and name in config.data.generate:
        count = min(count, config.data.generate[name])
        log(f"generating the first {count} conversations of {name}")
        return list(_generated(config, name, count))
    records = open_shards(directory)
    return [records[index] for index in range(min(count, len(records)))]


def _generated(config: Config, name: str, count: int) -> Generator[Conversation, None, None]:
    processes = min(os.cpu_count() or 1, -(-count // _PROCESS_PAYS))
    clips = config.data.clips if name in sources.SPLITS else ""
    return sources.generate(name, count, config.data.seed, processes, clips=clips or None)


def source_directory(config: Config, name: str) -> pathlib.Path:
    """Folder of a source of the mixture, or of the held-out conversations where `name` is `held_out`.

    Raises:
      ConfigError: there is no such source.
    """
    if name == HELD_OUT:
        return pathlib.Path(config.data.directory) / config.data.held_out
    if name not in config.data.sources:
        known = ", ".join((*config.data.sources, HELD_OUT))
        raise ConfigError(f"config.data.generate[{name!r}]: no such source; there are {known}")
    return pathlib.Path(config.data.directory) / config.data.sources[name].path


def ensure_tokenizer(config: Config, path: str | os.PathLike, log: Callable[[str], None] = print) -> Tokenizer:
    """Loads the tokenizer at `path`, or trains one on the words and texts of the sources and saves it there.

    Raises:
      ConfigError: the model has too few rows for a tokenizer.
      DataError: a source is missing or broken.
    """
    path, rows = pathlib.Path(path), config.model.text_vocab_size
    if not path.exists():
        if rows < BYTES:
            raise ConfigError(f"config.model.text_vocab_size = {rows}: must be at least {BYTES}, one row for each byte")
        log(f"training a tokenizer of at most {config.model.text_vocab_size} tokens")
        train_tokenizer(_texts(config), config.model.text_vocab_size).save(path)
    try:
        return Tokenizer.load(path)
    except ValueError as error:
        raise DataError(str(error)) from error


def ensure_lengths(config: Config, tokenizer: str | os.PathLike, log: Callable[[str], None] = print) -> None:
    """Measures the records of every source where that was not done before, and keeps the lengths beside them.

    Raises:
      DataError: a source is missing or broken.
    """
    loaded = Tokenizer.load(tokenizer)
    for name in (*config.data.sources, HELD_OUT):
        source_lengths(open_shards(source_directory(config, name)), loaded, config, name, log)


def _texts(config: Config) -> Iterator[str]:
    for name in config.data.sources:
        records = open_shards(source_directory(config, name))
        for texts in in_parts(functools.partial(_texts_of, records), records):
            yield from texts


def _texts_of(records: Sequence[Conversation], part: range) -> list[str]:
    return [item.text for record in map(records.__getitem__, part) for item in (*record.words, *record.texts)]
