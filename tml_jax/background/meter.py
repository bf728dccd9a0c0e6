"""How results get into micro-turns: a few tokens each, only where typed text leaves room, so that nothing waits.

A result may go over many micro-turns; its tag stands before its first word alone. Where typed text comes between, the
tag is said again and the word that was cut begins anew, so that nothing the background said looks typed.
"""

import dataclasses

from tml_jax.background.grammar import Mark, result_tag, result_text
from tml_jax.background.tasks import Chunk, TaskBook, release, told
from tml_jax.config import Config
from tml_jax.data.layout import control_token, results_room, text_in_tokens
from tml_jax.data.record import BACKGROUND, Text
from tml_jax.data.tokenizer import Tokenizer
from tml_jax.tokens import Control


@dataclasses.dataclass(frozen=True)
class Meter:
    """What is on its way into a session.

    Attributes:
      most: tokens of results in one micro-turn.
      typed: tokens of typed text that the session has not taken in yet; as `windows.Ear` counts them.
      chunk: what is being given.
      words: tokens of its words that are not given, word by word; of the first, the tokens before `begun` are.
      begun: see `words`.
    """

    most: int
    typed: int = 0
    chunk: Chunk | None = None
    words: tuple[tuple[int, ...], ...] = ()
    begun: int = 0


def meter_of(config: Config) -> Meter:
    """A meter that leaves half of the text of each micro-turn free, as training does."""
    return Meter(most=results_room(config, config.serve.max_text_in))


def drop(meter: Meter, number: int) -> Meter:
    """Gives no more of a task: it was cancelled, refined or has expired."""
    if meter.chunk is None or meter.chunk.number != number:
        return meter
    return dataclasses.replace(meter, chunk=None, words=(), begun=0)


def give(
    meter: Meter,
    book: TaskBook,
    texts: tuple[Text, ...],
    lost: bool,
    now: int,
    tokenizer: Tokenizer,
    config: Config,
) -> tuple[Meter, TaskBook, tuple[int, ...], tuple[Chunk, ...]]:
    """What one micro-turn takes in of the results.

    Args:
      meter: so far.
      book: the session's tasks.
      texts: typed text of the window.
      lost: whether the window is marked as lost, which takes a token.
      now: micro-turn.
      tokenizer: of the text.
      config: most text of a micro-turn.

    Returns:
      The meter and the book after it, the tokens, and the chunks that began in it. A task is told once its last word
      is among the tokens.
    """
    typed = sum(len(text_in_tokens(text.speaker, text.text, tokenizer, config.model)) for text in texts)
    waiting, most = meter.typed + typed + lost, config.serve.max_text_in
    meter = dataclasses.replace(meter, typed=max(0, waiting - most))
    if waiting > lost:  # typed text comes between
        meter = _tagged_again(meter, tokenizer, config)
    room, tokens, begun = min(meter.most, max(0, most - waiting)), [], []
    while room > len(tokens):
        if not meter.words:
            book, chunk = release(book, now)
            if chunk is None:
                break
            meter = dataclasses.replace(meter, chunk=chunk, words=_chunk_words(chunk, tokenizer, config), begun=0)
            begun.append(chunk)
        word = meter.words[0][meter.begun : meter.begun + room - len(tokens)]
        tokens += word
        done = meter.begun + len(word) == len(meter.words[0])
        words = meter.words[1:] if done else meter.words
        meter = dataclasses.replace(meter, words=words, begun=0 if done else meter.begun + len(word))
        if not words and meter.chunk.mark == Mark.LAST:
            book = told(book, meter.chunk.number)
    return meter, book, tuple(tokens), tuple(begun)


def _chunk_words(chunk: Chunk, tokenizer: Tokenizer, config: Config) -> tuple[tuple[int, ...], ...]:
    """Tokens of a chunk, word by word: the source and the tag are the first."""
    tag, *words = result_text(chunk.number, chunk.mark, chunk.text).split()
    source = text_in_tokens(BACKGROUND, tag, tokenizer, config.model)
    return (tuple(source), *(tuple(tokenizer.encode_words(word)) for word in words))


def _tagged_again(meter: Meter, tokenizer: Tokenizer, config: Config) -> Meter:
    if not meter.words or meter.words[0][0] == control_token(Control.FROM_BACKGROUND, config.model):
        return dataclasses.replace(meter, begun=0)
    tag = text_in_tokens(BACKGROUND, result_tag(meter.chunk.number, meter.chunk.mark), tokenizer, config.model)
    return dataclasses.replace(meter, words=(tuple(tag), *meter.words), begun=0)
