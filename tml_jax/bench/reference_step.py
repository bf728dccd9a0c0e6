"""The train step of the reference on text tokens. Needs the extra `parity`."""

import numpy as np

from tml_jax.bench.reference_model import Setting, reference_model, reference_weights
from tml_jax.config import ModelConfig, TrainConfig

MOST_FETCHED = 1e9  # bytes
SETTINGS = tuple(
    Setting(experts, attention, compiled)
    for compiled in (False, True)
    for attention in ("eager", "sdpa")
    for experts in ("eager", "grouped_mm", "batched_mm")
)


class ReferenceStep:
    """One run of the reference: InklingForCausalLM at the size of one of our configurations, AdamW, clipping.

    Called, it takes one step and returns its loss. The optimiser is torch's fused AdamW, the fastest of its forms on a
    CPU; its numbers are those of our `make_optimizer` at a constant rate.
    """

    def __init__(
        self,
        model: ModelConfig,
        train: TrainConfig,
        tokens: np.ndarray,
        setting: Setting,
        weights: dict[str, np.ndarray] | None = None,
    ) -> None:
        """Builds the model.

        Args:
          model: sizes.
          train: rate, decay, second moment and clipping of the optimiser.
          tokens: (B, T) int, one conversation of text in each row.
          setting: implementations.
          weights: by the reference's names; None draws the reference's own initial weights.
        """
        import torch

        self._model = reference_model(model, setting, train.seed, weights).train()
        matrices = [x for x in self._model.parameters() if x.ndim >= 2]
        others = [x for x in self._model.parameters() if x.ndim < 2]
        self._optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": train.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=train.learning_rate,
            betas=(0.9, train.beta2),
            fused=True,
        )
        self._clip, self._clip_norm = torch.nn.utils.clip_grad_norm_, train.clip_norm
        self._tokens = torch.from_numpy(tokens.astype(np.int64))
        self._forward = torch.compile(self._model) if setting.compiled else self._model

    def __call__(self) -> float:
        """Forward and backward pass, clipping and optimiser. Returns the mean loss before the step."""
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._forward(input_ids=self._tokens, labels=self._tokens, use_cache=False).loss
        loss.backward()
        self._clip(self._model.parameters(), self._clip_norm)
        self._optimizer.step()
        return loss.item()

    def weights(self) -> dict[str, np.ndarray]:
        """A copy of the weights by name."""
        return reference_weights(self._model)

    @property
    def parameters(self) -> int:
        """Numbers that the optimiser moves."""
        return sum(x.numel() for x in self._model.parameters())


def fetched_bytes(model: ModelConfig, tokens: int, setting: Setting) -> int:
    """Bytes of weights that `batched_mm` copies in each sparse layer: all of an expert for every choice of a token."""
    if setting.experts != "batched_mm":
        return 0
    return tokens * model.top_k * 3 * model.d_model * model.expert_ffn * 4
