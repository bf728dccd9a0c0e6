"""The reference: transformers' Inkling with weights and inputs of `inkling_inputs`. Needs the extra `parity`."""

import numpy as np
import torch
from inkling_inputs import Sequence, random_weights
from torch.nn.functional import one_hot
from transformers import DynamicCache
from transformers.models.inkling.configuration_inkling import InklingConfig
from transformers.models.inkling.modeling_inkling import InklingForConditionalGeneration
from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from tml_jax.interop.inkling import inkling_config
from tml_jax.tokens import Stream


class Reference:
    """The reference in float32, at the size of one of our configurations."""

    def __init__(self, config, seed: int):
        torch.set_num_threads(1)
        self.config = config
        # Placeholders only mark places; their rows of the text table are overwritten by what they stand for.
        self.placeholder = {Stream.AUDIO_IN: config.vocab_size - 2, Stream.VIDEO: config.vocab_size - 1}
        audio, video = self.placeholder.values()
        made = InklingConfig(
            **inkling_config(config),
            audio_token_id=audio,
            image_token_id=video,
            attn_implementation="eager",
            experts_implementation="eager",  # the grouped product wants widths of a multiple of 16 bytes
        )
        self.model = InklingForConditionalGeneration(made).eval()
        self.shapes = {name: tuple(tensor.shape) for name, tensor in self.model.state_dict().items()}
        self.state = random_weights(self.shapes, seed)
        self.model.load_state_dict({name: torch.from_numpy(x) for name, x in self.state.items()})
        self._chosen: dict[int, torch.Tensor] = {}
        for layer, block in enumerate(self.model.model.language_model.layers):
            if not config.is_dense(layer):
                block.mlp.gate.register_forward_hook(
                    lambda _, inputs, out, layer=layer: self._chosen.update({layer: out[2]})
                )

    def _inputs(self, sequence: Sequence) -> dict[str, torch.Tensor]:
        token = sequence.token.astype(np.int64)
        for kind, placeholder in self.placeholder.items():
            token = np.where(sequence.stream == kind, placeholder, token)
        inputs = {"input_ids": torch.from_numpy(token)[None]}
        if len(sequence.audio):
            inputs["audio_input_ids"] = torch.from_numpy(sequence.audio.astype(np.int64))[None]
        if len(sequence.video):
            inputs["pixel_values"] = self._pixels(sequence.video)
        return inputs

    @staticmethod
    def _pixels(video: np.ndarray) -> torch.Tensor:
        scaled = torch.from_numpy(video).float() / 255
        return (scaled - torch.tensor(OPENAI_CLIP_MEAN)) / torch.tensor(OPENAI_CLIP_STD)

    @torch.no_grad()
    def run(self, sequence: Sequence) -> tuple[np.ndarray, dict[int, np.ndarray]]:
        """Logits (n, text_vocab_size); layer → (n, experts) bool: which experts each element chose."""
        logits = self.model(**self._inputs(sequence), use_cache=False).logits[0].numpy()
        count = self.config.num_experts
        return logits, {layer: one_hot(x, count).sum(1).bool().numpy() for layer, x in sorted(self._chosen.items())}

    @torch.no_grad()
    def audio(self, levels: np.ndarray) -> np.ndarray:
        """(a, 80) → (a, D)."""
        features = self.model.model.get_audio_features(torch.from_numpy(levels.astype(np.int64))[None])
        return features.last_hidden_state.numpy()

    @torch.no_grad()
    def images(self, video: np.ndarray) -> np.ndarray:
        """(v, 2, 40, 40, 3) → (v, D)."""
        return self.model.get_image_features(self._pixels(video)).pooler_output[:, 0].numpy()

    @torch.no_grad()
    def cached_logits(self, sequence: Sequence, chunks: list[int]) -> np.ndarray:
        """Logits after each chunk (chunks, text_vocab_size), decoded with the reference's cache."""
        cache, start, logits = DynamicCache(config=self.model.config.get_text_config()), 0, []
        for chunk in chunks:
            inputs = self._inputs(sequence.part(start, start + chunk))
            logits.append(self.model(**inputs, past_key_values=cache, use_cache=True).logits[0, -1].numpy())
            start += chunk
        return np.stack(logits)
