"""Our model beside the reference, transformers' Inkling, on the same weights and inputs, in float32.

`compare` is what `launch.eval --suite=parity` does with a checkpoint. Its parts serve the tests too: inputs of every
mix of streams, our model over packed rows and appended to a cache, and the reference over the same. Needs the extra
`parity` (torch and transformers), which is imported only where the reference is run.
"""

import dataclasses
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tml_jax.config import MEL_BINS, OWN_FRAMES, PATCH, ModelConfig
from tml_jax.interop.to_transformers import to_transformers
from tml_jax.model.attention import Append, Packed
from tml_jax.model.backbone import init_caches, layer_plan
from tml_jax.model.inputs import PIXEL_MEAN, PIXEL_STD, ElementArrays
from tml_jax.model.interaction import InteractionModel
from tml_jax.tokens import Stream
from tml_jax.train.checkpoint import restore_params_for_inference

TOLERANCE = 1e-4  # of `relative_error`
BLOCK = 8  # most elements appended at once
_KINDS = {"text": (Stream.TEXT_IN, 3), "audio": (Stream.AUDIO_IN, 4), "image": (Stream.VIDEO, 2)}


@dataclasses.dataclass(frozen=True)
class Sequence:
    """One conversation: streams and tokens (n,), audio levels (a, 80) uint8, patches (v, 2, 40, 40, 3) uint8."""

    stream: np.ndarray
    token: np.ndarray
    audio: np.ndarray
    video: np.ndarray

    def __len__(self) -> int:
        return len(self.stream)

    def part(self, start: int, stop: int) -> "Sequence":
        """The elements from `start` to `stop`."""
        audio, video = (
            slice(*(int(np.sum(self.stream[:end] == kind)) for end in (start, stop)))
            for kind in (Stream.AUDIO_IN, Stream.VIDEO)
        )
        return Sequence(self.stream[start:stop], self.token[start:stop], self.audio[audio], self.video[video])


def random_sequence(config: ModelConfig, kinds: str, length: int, seed: int) -> Sequence:
    """Elements in mixed runs, as a micro-turn has them. `kinds`: of `text`, `audio`, `image`, joined by `+`."""
    random = np.random.RandomState(seed)  # its streams never change (NEP 19), so golden files need not hold them
    chosen = [_KINDS[kind] for kind in kinds.split("+")]
    stream: list[int] = []
    while len(stream) < length:
        for kind, most in chosen:
            stream += [kind] * (1 + random.randint(most))
    streams = np.asarray(stream[:length], np.int8)
    token = np.where(streams == Stream.TEXT_IN, random.randint(0, config.text_vocab_size, length), 0)
    audio = random.randint(0, 16, (int(np.sum(streams == Stream.AUDIO_IN)), MEL_BINS)).astype(np.uint8)
    # Smooth and noisy patches, bright and dark.
    coarse = random.randint(0, 256, (int(np.sum(streams == Stream.VIDEO)), 2, 8, 8, 3))
    noise = random.randint(-20, 21, PATCH)
    video = np.clip(coarse.repeat(5, 2).repeat(5, 3) + noise, 0, 255).astype(np.uint8)
    return Sequence(streams, token.astype(np.int32), audio, video)


def random_chunks(length: int, most: int, seed: int) -> list[int]:
    """Sizes of the pieces in which a sequence is streamed: a prompt, single elements, and runs of up to `most`."""
    random, chunks = np.random.RandomState(seed), [most - 1]
    while sum(chunks) < length:
        chunks.append(min(length - sum(chunks), 1 if random.rand() < 0.5 else random.randint(2, most + 1)))
    return chunks


def relative_error(ours: np.ndarray, reference: np.ndarray) -> float:
    """Largest difference over the largest magnitude of the reference.

    Raises:
      ValueError: the shapes differ, or a number of ours is not finite.
    """
    ours, reference = np.asarray(ours), np.asarray(reference)
    if ours.shape != reference.shape or not np.all(np.isfinite(ours)):
        finite = bool(np.all(np.isfinite(ours)))
        raise ValueError(f"ours of shape {ours.shape}, finite: {finite}; the reference has shape {reference.shape}")
    return float(np.max(np.abs(ours - reference)) / np.max(np.abs(reference)))


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
    own = np.zeros((1, 0, OWN_FRAMES, MEL_BINS), np.float32)
    elements = ElementArrays(
        row(stream, np.int8), row(token, np.int32), row(slot, np.int32), side("audio"), side("video"), own
    )
    return elements, Packed(row(segment, np.int32), row(position, np.int32))


class Ours:
    """Our model with given variables."""

    def __init__(self, config: ModelConfig, variables: dict[str, Any], logits: int | None = None) -> None:
        """Args: the model, its variables, and how many of its logits are compared; by default those of text."""
        self.config, self.model, self.variables = config, InteractionModel(config), variables
        self.count = config.text_vocab_size if logits is None else logits

    def run(self, sequences: list[Sequence], length: int = 0) -> tuple[list[np.ndarray], dict[int, np.ndarray]]:
        """Logits (n, `count`) of every sequence, from one packed row; layer → (experts,) load of the row."""

        @jax.jit
        def run(variables: Any, elements: ElementArrays, where: Packed) -> tuple:
            hidden, extras = self.model.apply(variables, elements, where)
            return self.model.apply(variables, hidden, method="logits"), extras

        logits, extras = run(self.variables, *pack(sequences, length))
        logits = np.asarray(logits)[0, :, : self.count]
        return np.split(logits, np.cumsum([len(s) for s in sequences]))[: len(sequences)], self._load(extras)

    def chosen_experts(self, sequence: Sequence) -> dict[int, np.ndarray]:
        """Layer → (n, experts) bool: which experts each element chose.

        The model gives the load of a whole row; an element's choice is the load up to it less the load before it.
        """
        elements, where = pack([sequence])

        @jax.jit
        def loads(variables: Any, elements: ElementArrays, where: Packed) -> Any:
            def up_to(last: jax.Array) -> Any:
                segment = (jnp.arange(len(sequence)) <= last).astype(jnp.int32)[None]
                return self.model.apply(variables, elements, where.replace(segment=segment))[1]

            return jax.lax.map(up_to, jnp.arange(len(sequence)))

        load = self._load(loads(self.variables, elements, where))
        return {layer: np.diff(x, axis=0, prepend=0) > 0.5 for layer, x in load.items()}

    def _load(self, extras: dict[str, Any]) -> dict[int, np.ndarray]:
        before, periods, after = layer_plan(self.config)
        load = {layer: extras[f"layer_{layer}"].get("load") for layer in before + after}
        for period in range(periods):
            for offset in range(self.config.global_every):
                layer = len(before) + period * self.config.global_every + offset
                load[layer] = extras["periods"][f"layer_{offset}"]["load"][..., period, :]
        return {layer: np.asarray(x) for layer, x in sorted(load.items()) if x is not None}

    def appended(self, sequence: Sequence, chunks: list[int], block: int = BLOCK) -> np.ndarray:
        """Logits (chunks, `count`) after each chunk, appended in blocks padded on the right."""
        context = len(sequence)

        @jax.jit
        def step(variables: Any, elements: ElementArrays, where: Append, caches: Any) -> tuple:
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
            logits.append(np.asarray(last)[0, : self.count])
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


class Reference:
    """The reference in float32 over the same sequences.

    Attributes:
      model: a torch module, InklingForConditionalGeneration or, for text alone, InklingForCausalLM.
      whole: whether it has the towers for audio and pictures.
    """

    def __init__(self, model: Any) -> None:
        """Args: the torch module, in evaluation mode; its audio and image token ids mark places only."""
        import torch

        torch.set_num_threads(1)
        self.model, self.whole = model, hasattr(model.config, "text_config")
        self.config = model.config.text_config if self.whole else model.config
        if self.whole:
            audio, image = model.config.audio_token_id, model.config.image_token_id
            self._placeholder = {Stream.AUDIO_IN: audio, Stream.VIDEO: image}
        layers = model.model.language_model.layers if self.whole else model.model.layers
        self._chosen: dict[int, Any] = {}
        for layer, block in enumerate(layers):
            if hasattr(block.mlp, "gate"):
                block.mlp.gate.register_forward_hook(
                    lambda _, inputs, out, layer=layer: self._chosen.update({layer: out[2]})
                )

    @classmethod
    def load(cls, folder: str | pathlib.Path) -> "Reference":
        """Loads a folder with `from_pretrained`, in float32."""
        import torch
        from transformers import AutoConfig, InklingForConditionalGeneration
        from transformers.models.inkling.modeling_inkling import InklingForCausalLM

        if not (pathlib.Path(folder) / "config.json").is_file():
            raise ValueError(f"--reference={folder}: no such folder with a config.json")
        kind = AutoConfig.from_pretrained(folder).model_type
        made = InklingForCausalLM if kind == "inkling_text" else InklingForConditionalGeneration
        # The grouped product over experts wants widths of a multiple of 16 bytes; the plain one takes any.
        model = made.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager"
        )
        return cls(model.eval())

    def _inputs(self, sequence: Sequence) -> dict[str, Any]:
        import torch

        token = sequence.token.astype(np.int64)
        if not self.whole:
            return {"input_ids": torch.from_numpy(token)[None]}
        for kind, placeholder in self._placeholder.items():
            token = np.where(sequence.stream == kind, placeholder, token)
        inputs = {"input_ids": torch.from_numpy(token)[None]}
        if len(sequence.audio):
            inputs["audio_input_ids"] = torch.from_numpy(sequence.audio.astype(np.int64))[None]
        if len(sequence.video):
            inputs["pixel_values"] = self._pixels(sequence.video)
        return inputs

    @staticmethod
    def _pixels(video: np.ndarray) -> Any:
        import torch

        scaled = torch.from_numpy(video).float() / 255
        return (scaled - torch.tensor(PIXEL_MEAN)) / torch.tensor(PIXEL_STD)

    def run(self, sequence: Sequence) -> tuple[np.ndarray, dict[int, np.ndarray]]:
        """Logits (n, text_vocab_size); layer → (n, experts) bool: which experts each element chose."""
        import torch
        from torch.nn.functional import one_hot

        with torch.no_grad():
            logits = self.model(**self._inputs(sequence), use_cache=False).logits[0].numpy()
        count = self.config.n_routed_experts
        return logits, {layer: one_hot(x, count).sum(1).bool().numpy() for layer, x in sorted(self._chosen.items())}

    def audio(self, levels: np.ndarray) -> np.ndarray:
        """(a, 80) → (a, D)."""
        import torch

        with torch.no_grad():
            features = self.model.model.get_audio_features(torch.from_numpy(levels.astype(np.int64))[None])
        return features.last_hidden_state.numpy()

    def images(self, video: np.ndarray) -> np.ndarray:
        """(v, 2, 40, 40, 3) → (v, D)."""
        import torch

        with torch.no_grad():
            return self.model.get_image_features(self._pixels(video)).pooler_output[:, 0].numpy()

    def cached_logits(self, sequence: Sequence, chunks: list[int]) -> np.ndarray:
        """Logits after each chunk (chunks, text_vocab_size), decoded with the reference's cache."""
        import torch
        from transformers import DynamicCache

        cache, start, logits = DynamicCache(config=self.config), 0, []
        for chunk in chunks:
            inputs = self._inputs(sequence.part(start, start + chunk))
            with torch.no_grad():
                out = self.model(**inputs, past_key_values=cache, use_cache=True)
            logits.append(out.logits[0, -1].numpy())
            start += chunk
        return np.stack(logits)


def compare(
    checkpoint: str | pathlib.Path,
    reference: str | pathlib.Path | None = None,
    length: int = 96,
    log: Callable[[str], None] = print,
) -> dict[str, float]:
    """Compares a checkpoint with the reference on random inputs, in float32.

    Both models are held in memory in float32, beside the numbers as they were saved: ten to twelve bytes a parameter.

    Args:
      checkpoint: RUN or RUN/checkpoints/STEP.
      reference: a folder that transformers loads, or None: the checkpoint is exported to a temporary one.
      length: elements of each sequence.
      log: takes a line for each comparison.

    Returns:
      What was compared → largest difference over the largest magnitude; at most `TOLERANCE` where the two agree.
    """
    config, _, variables = restore_params_for_inference(checkpoint)
    variables = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), variables)
    with tempfile.TemporaryDirectory(prefix="parity-") as folder:
        if reference is None:
            reference = pathlib.Path(folder) / "hf"
            to_transformers(checkpoint, reference, log=log)
        theirs = Reference.load(reference)
    ours = Ours(config.model, variables, theirs.config.unpadded_vocab_size)
    errors = {}

    def note(what: str, found: np.ndarray, expected: np.ndarray) -> None:
        try:
            errors[what] = relative_error(found, expected)
        except ValueError as error:
            raise ValueError(f"{what}: {error}; expected a reference of the checkpoint's sizes") from error
        verdict = "equal" if errors[what] <= TOLERANCE else f"DIFFERENT (more than {TOLERANCE:g})"
        log(f"{what:<40} {errors[what]:.2e}  {verdict}")

    if theirs.whole:
        both = random_sequence(config.model, "audio+image", length, seed=2)
        note("audio embeddings", ours.audio(both.audio), theirs.audio(both.audio))
        note("image embeddings", ours.images(both.video), theirs.images(both.video))
    for kinds in ("text", "audio+text", "image+text", "audio+image+text") if theirs.whole else ("text",):
        sequence = random_sequence(config.model, kinds, length, seed=1)
        expected, chosen = theirs.run(sequence)
        (logits,), load = ours.run([sequence])
        note(f"logits, {kinds}, at once", logits, expected)
        for layer in chosen:
            if not np.array_equal(load[layer], chosen[layer].sum(0)):
                errors[f"experts of layer {layer}, {kinds}"] = float("inf")
                log(f"layer {layer} chose other experts")
        chunks = random_chunks(length, BLOCK, seed=4)
        note(f"logits, {kinds}, with a cache", ours.appended(sequence, chunks), theirs.cached_logits(sequence, chunks))
    return errors
