"""One session's micro-turn as each implementation takes it: six text tokens in, then five put out, one by one.

Called, each takes one micro-turn and returns the five tokens, each the likeliest after all that went before.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tml_jax.bench.reference_model import Setting, reference_model
from tml_jax.config import Config, ModelConfig
from tml_jax.data.elements import input_elements
from tml_jax.model.attention import Append, Packed
from tml_jax.model.backbone import init_caches
from tml_jax.model.inputs import ElementArrays
from tml_jax.model.interaction import InteractionModel, init_variables
from tml_jax.serve.program import LoadedModel, Program
from tml_jax.serve.windows import block_sizes, make_block
from tml_jax.tokens import Stream

TOKENS_IN, TOKENS_OUT = 6, 5
OF_A_TURN = TOKENS_IN + TOKENS_OUT


def tokens_in(model: ModelConfig, turn: int) -> np.ndarray:
    """(6,) int32 that come in in a micro-turn; the same for every implementation."""
    return np.random.default_rng(turn).integers(0, model.text_vocab_size, TOKENS_IN).astype(np.int32)


class OwnTurn:
    """Ours: appends to caches of a fixed size, in one compiled call."""

    def __init__(self, model: ModelConfig, variables: dict[str, Any], context: int) -> None:
        """Args: sizes, variables of the text path, and elements that global layers see."""
        module = InteractionModel(model)
        self._model, self._turn = model, 0
        self._variables = jax.device_put(variables)
        self._state = jnp.zeros((1,), jnp.int32), init_caches(model, 1, context, TOKENS_IN, jnp.float32)

        def append(variables: dict, length: jax.Array, caches: Any, tokens: jax.Array) -> tuple:
            where = Append(length, jnp.full((1,), tokens.shape[1]))
            hidden, caches = module.apply(variables, _text(tokens), where, caches, context, method="append")
            return hidden, length + tokens.shape[1], caches

        def turn(variables: dict, state: tuple, tokens: jax.Array) -> tuple:
            def one(carry: tuple, _: None) -> tuple:
                hidden, length, caches = carry
                token = jnp.argmax(module.apply(variables, hidden, method="logits"), axis=-1).astype(jnp.int32)
                return append(variables, length, caches, token[:, None]), token[0]

            (_, *state), out = jax.lax.scan(one, append(variables, *state, tokens[None]), None, TOKENS_OUT)
            return tuple(state), out

        self._step = jax.jit(turn, donate_argnums=1)

    def __call__(self) -> list[int]:
        """One micro-turn."""
        self._state, out = self._step(self._variables, self._state, tokens_in(self._model, self._turn))
        self._turn += 1
        return np.asarray(out).tolist()


class RereadTurn:
    """The plain way, with our model: no cache, so that every token put out costs a pass over the whole context."""

    def __init__(self, model: ModelConfig, variables: dict[str, Any], context: int) -> None:
        """Args: as of `OwnTurn`; here the context is also the length of every pass."""
        module = InteractionModel(model)
        self._model, self._turn = model, 0
        self._variables = jax.device_put(variables)
        self._tokens, self._length = np.zeros((1, context), np.int32), 0

        @jax.jit
        def next_token(variables: dict, tokens: jax.Array, length: jax.Array) -> jax.Array:
            place = jnp.arange(context)[None]
            where = Packed((place < length).astype(jnp.int32), place)
            hidden, _ = module.apply(variables, _text(tokens), where)
            last = jax.lax.dynamic_slice_in_dim(hidden, length - 1, 1, axis=1)[:, 0]
            return jnp.argmax(module.apply(variables, last, method="logits"), axis=-1)[0]

        self._next = next_token

    def __call__(self) -> list[int]:
        """One micro-turn."""
        out: list[int] = []
        for token in tokens_in(self._model, self._turn).tolist():
            self._take(token)
        for _ in range(TOKENS_OUT):
            out.append(int(self._next(self._variables, self._tokens, self._length)))
            self._take(out[-1])
        self._turn += 1
        return out

    def _take(self, token: int) -> None:
        self._tokens[0, self._length] = token
        self._length += 1


class ReferenceTurn:
    """The reference: transformers' Inkling with its cache, which grows with the conversation."""

    def __init__(self, model: ModelConfig, setting: Setting, weights: dict[str, np.ndarray] | None = None) -> None:
        """Args: sizes, implementations, and weights by the reference's names (None: its own initial ones)."""
        self.module = reference_model(model, setting, weights=weights).eval()
        self._model, self._turn, self._cache = model, 0, None

    def __call__(self) -> list[int]:
        """One micro-turn."""
        import torch

        tokens = torch.from_numpy(tokens_in(self._model, self._turn).astype(np.int64))[None]
        self._turn += 1
        chosen: list[int] = []
        with torch.inference_mode():
            for _ in range(TOKENS_OUT):
                tokens = self._append(tokens).argmax(-1)[:, None]
                chosen.append(int(tokens))
            self._append(tokens)
        return chosen

    def _append(self, tokens: Any) -> Any:
        out = self.module(input_ids=tokens, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        self._cache = out.past_key_values
        return out.logits[:, -1]


class WholeTurn:
    """Ours as it serves: sound in; text, gate, four elements of sound by the flow, and the vocoder. Random weights."""

    def __init__(self, config: Config, sessions: int) -> None:
        """Args: the run, and how many sessions speak at once."""
        variables = init_variables(InteractionModel(config.model), jax.random.key(0))
        self._program = Program(LoadedModel(config, None, variables))
        levels = np.random.default_rng(0).integers(0, 16, (4, 80), np.uint8)
        inputs = [input_elements([], None, levels, config.model)] * sessions
        self._block = make_block(inputs, config, block_sizes(config)[-1])
        self._sessions = self._program.start([0] * sessions)

    def __call__(self) -> int:
        """One micro-turn of all sessions. Returns the steps of text that it took."""
        self._sessions, output, samples = self._program.step(self._sessions, self._block)
        jax.block_until_ready(samples)
        return int(np.max(output.count)) + 1

    @property
    def cache_bytes(self) -> int:
        """Bytes of the keys and values of all sessions."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self._sessions.stream.caches))


def _text(tokens: jax.Array) -> ElementArrays:
    """(1, T) tokens as elements without sound and pictures."""
    none = lambda *shape, dtype: jnp.zeros((1, 0, *shape), dtype)  # noqa: E731
    return ElementArrays(
        stream=jnp.full(tokens.shape, Stream.TEXT_IN, jnp.int8),
        token=tokens,
        slot=jnp.zeros_like(tokens),
        audio_in=none(80, dtype=jnp.uint8),
        video=none(2, 40, 40, 3, dtype=jnp.uint8),
        audio_out=none(5, 80, dtype=jnp.float32),
    )
