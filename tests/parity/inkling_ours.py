"""Our side of the comparison with the reference."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from inkling_inputs import Sequence

from tml_jax.interop.inkling import from_torch_state
from tml_jax.model.attention import Append, Packed
from tml_jax.model.backbone import init_caches, layer_plan
from tml_jax.model.inputs import ElementArrays
from tml_jax.model.interaction import InteractionModel, init_variables
from tml_jax.tokens import Stream


def empty_variables(config) -> dict:
    """Zeros in the shapes of the model's variables."""
    shapes = jax.eval_shape(functools.partial(init_variables, InteractionModel(config)), jax.random.key(0))
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)


def pack(sequences: list[Sequence], length: int = 0) -> tuple[ElementArrays, Packed]:
    """Sequences one after another in one row, padded to `length`."""
    used = sum(map(len, sequences))
    padding = max(0, length - used)
    segment = np.repeat(np.arange(1, len(sequences) + 1), [len(s) for s in sequences])
    position = np.concatenate([np.arange(len(s)) for s in sequences])
    stream, token = (np.concatenate([getattr(s, name) for s in sequences]) for name in ("stream", "token"))
    slot = np.zeros(used, np.int32)
    for kind in (Stream.AUDIO_IN, Stream.VIDEO):
        slot[stream == kind] = np.arange(np.sum(stream == kind))
    row = lambda x, dtype: np.pad(x, (0, padding)).astype(dtype)[None]  # noqa: E731
    side = lambda name: np.concatenate([getattr(s, name) for s in sequences])[None]  # noqa: E731
    own = np.zeros((1, 0, 5, 80), np.float32)
    elements = ElementArrays(
        row(stream, np.int8), row(token, np.int32), row(slot, np.int32), side("audio"), side("video"), own
    )
    return elements, Packed(row(segment, np.int32), row(position, np.int32))


class Ours:
    """Our model with the reference's weights."""

    def __init__(self, config, state: dict[str, np.ndarray]):
        self.config, self.model = config, InteractionModel(config)
        self.variables, self.report = from_torch_state(state, config, empty_variables(config))

    def run(self, sequences: list[Sequence], length: int = 0) -> tuple[list[np.ndarray], dict[int, np.ndarray]]:
        """Logits (n, text_vocab_size) of every sequence, from one packed row; layer → (experts,) load of the row."""

        @jax.jit
        def run(variables, elements, where):
            hidden, extras = self.model.apply(variables, elements, where)
            return self.model.apply(variables, hidden, method="logits"), extras

        logits, extras = run(self.variables, *pack(sequences, length))
        logits = np.asarray(logits)[0, :, : self.config.text_vocab_size]
        return np.split(logits, np.cumsum([len(s) for s in sequences]))[: len(sequences)], self._load(extras)

    def chosen_experts(self, sequence: Sequence) -> dict[int, np.ndarray]:
        """Layer → (n, experts) bool: which experts each element chose.

        The model gives the load of a whole row; an element's choice is the load up to it less the load before it.
        """
        elements, where = pack([sequence])

        @jax.jit
        def loads(variables, elements, where):
            def up_to(last):
                segment = (jnp.arange(len(sequence)) <= last).astype(jnp.int32)[None]
                return self.model.apply(variables, elements, where.replace(segment=segment))[1]

            return jax.lax.map(up_to, jnp.arange(len(sequence)))

        load = self._load(loads(self.variables, elements, where))
        return {layer: np.diff(x, axis=0, prepend=0) > 0.5 for layer, x in load.items()}

    def _load(self, extras: dict) -> dict[int, np.ndarray]:
        before, periods, after = layer_plan(self.config)
        load = {layer: extras[f"layer_{layer}"].get("load") for layer in before + after}
        for period in range(periods):
            for offset in range(self.config.global_every):
                layer = len(before) + period * self.config.global_every + offset
                load[layer] = extras["periods"][f"layer_{offset}"]["load"][..., period, :]
        return {layer: np.asarray(x) for layer, x in sorted(load.items()) if x is not None}

    def appended(self, sequence: Sequence, chunks: list[int], block: int) -> np.ndarray:
        """Logits (chunks, text_vocab_size) after each chunk, appended in blocks padded on the right."""
        context = len(sequence)

        @jax.jit
        def step(variables, elements, where, caches):
            hidden, caches = self.model.apply(variables, elements, where, caches, context, method="append")
            return self.model.apply(variables, hidden, method="logits"), caches

        caches = init_caches(self.config, 1, context, block, np.float32)
        start, logits = 0, []
        for chunk in chunks:
            part = sequence.part(start, start + chunk)
            room = lambda rows: np.pad(rows, [(0, block - len(rows))] + [(0, 0)] * (rows.ndim - 1))[None]  # noqa: E731
            elements = pack([part], block)[0].replace(audio_in=room(part.audio), video=room(part.video))
            where = Append(np.asarray([start], np.int32), np.asarray([chunk], np.int32))
            last, caches = step(self.variables, elements, where, caches)
            logits.append(np.asarray(last)[0, : self.config.text_vocab_size])
            start += chunk
        return np.stack(logits)

    def audio(self, levels: np.ndarray) -> np.ndarray:
        """(a, 80) → (a, D)."""
        return self._embed(levels, "heard")

    def images(self, video: np.ndarray) -> np.ndarray:
        """(v, 2, 40, 40, 3) → (v, D)."""
        return self._embed(video, "seen")

    def _embed(self, x: np.ndarray, method: str) -> np.ndarray:
        embed = lambda model, x: getattr(model.inputs, method)(x)  # noqa: E731
        return np.asarray(jax.jit(lambda variables, x: self.model.apply(variables, x, method=embed))(self.variables, x))
