"""Text to tokens: byte-level BPE, trained here for replicas or read from a release's `tokenizer.json`.

Control tokens are not in the tokenizer: their ids follow the text vocabulary (see `tml_jax.tokens.Control`).
"""

import hashlib
import os
import pathlib
from collections.abc import Iterable, Sequence

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from tml_jax.files import write_whole

BYTES = 256  # a byte-level vocabulary holds every byte, so that any text can be written


class Tokenizer:
    """Byte-level BPE over the `tokenizers` library. Picklable; equal files give equal tokens."""

    def __init__(self, bpe: tokenizers.Tokenizer):
        self._bpe = bpe
        # Typed text must not become a special token of a release's vocabulary by spelling it out.
        self._bpe.encode_special_tokens = True
        # A release's file may leave ids out, so its entries are not counted.
        self._size = max(bpe.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    def __reduce__(self) -> tuple:
        # Through the constructor: the library's own pickle forgets `encode_special_tokens`.
        return type(self), (self._bpe,)

    @property
    def size(self) -> int:
        """One more than the largest id of a text token."""
        return self._size

    def encode(self, text: str) -> list[int]:
        """Tokens of `text` as it stands; for words and typed text see `encode_words`."""
        return self._bpe.encode(text, add_special_tokens=False).ids

    def encode_words(self, text: str) -> list[int]:
        """Tokens of `text` with a space before it, so that a word has the same tokens wherever it stands."""
        return self.encode(" " + text.strip())

    def decode(self, ids: Sequence[int]) -> str:
        """The inverse of `encode`; half a character (a cut UTF-8 sequence) becomes U+FFFD.

        Args:
          ids: text tokens.

        Returns:
          Their text.

        Raises:
          ValueError: an id is not a text token.
        """
        ids = [int(token) for token in ids]
        wrong = [token for token in ids if not 0 <= token < self.size]
        if wrong:
            raise ValueError(f"tokens {wrong} are not text: expected 0 … {self.size - 1}, control tokens taken out")
        return self._bpe.decode(ids, skip_special_tokens=False)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the tokenizer file, in hexadecimal: changes when any token does."""
        return hashlib.sha256(self._bpe.to_str().encode()).hexdigest()

    def save(self, path: str | os.PathLike) -> None:
        """Writes the plain `tokenizers` JSON to `path`, whole or not at all."""
        write_whole(path, self._bpe.to_str(pretty=True))

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Tokenizer":
        """Reads a `tokenizer.json`.

        Args:
          path: the file, from `save` or from a release.

        Returns:
          The tokenizer.

        Raises:
          ValueError: there is no such file, or it is no tokenizer.
        """
        path = pathlib.Path(path)
        if not path.is_file():
            raise ValueError(f"{path}: no tokenizer file there; prepare the data first, or give a tokenizer.json")
        try:
            return cls(tokenizers.Tokenizer.from_file(str(path)))
        except Exception as error:  # the library raises bare Exception
            raise ValueError(f"{path}: not a tokenizers JSON file ({error})") from error


def train_tokenizer(texts: Iterable[str], size: int) -> Tokenizer:
    """Trains a byte-level BPE. Deterministic: the order of `texts` does not matter.

    Args:
      texts: whatever the model will read or say: words, sentences.
      size: most tokens, at least 256. Fewer come out where the texts offer too few pairs to merge.

    Returns:
      The tokenizer.

    Raises:
      ValueError: `size` is too small.
    """
    if size < BYTES:
        raise ValueError(f"size = {size}: a byte-level vocabulary needs at least {BYTES} tokens")
    bpe = tokenizers.Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=size, min_frequency=2, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator((" " + text.strip() for text in texts), trainer)
    return Tokenizer(bpe)
