"""The train step of the reference, transformers' Inkling in torch, on text tokens. Needs the extra `parity`."""

import dataclasses

import numpy as np

from tml_jax.config import ModelConfig, TrainConfig
from tml_jax.interop.inkling_config import to_backbone


@dataclasses.dataclass(frozen=True)
class Setting:
    """What transformers and torch let a user choose.

    Attributes:
      experts: `experts_implementation`: `eager` (a loop over experts), `grouped_mm` or `batched_mm`.
      attention: `attn_implementation`: `eager` or `sdpa`.
      compiled: whether the model goes through `torch.compile`.
    """

    experts: str
    attention: str
    compiled: bool = False

    def __str__(self) -> str:
        return f"{self.experts} experts, {self.attention} attention{', torch.compile' if self.compiled else ''}"


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
        from transformers.models.inkling.configuration_inkling import InklingTextConfig
        from transformers.models.inkling.modeling_inkling import InklingForCausalLM

        sizes = {name: value for name, value in to_backbone(model).items() if name != "architectures"}
        # Ours has logits for control tokens, too.
        sizes |= {"unpadded_vocab_size": model.logits_size, "pad_token_id": None}
        torch.manual_seed(train.seed)
        config = InklingTextConfig(
            **sizes, attn_implementation=setting.attention, experts_implementation=setting.experts
        )
        self._model = InklingForCausalLM(config).float().train()
        if weights is not None:
            self._model.load_state_dict({name: torch.from_numpy(x.copy()) for name, x in weights.items()})
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
        return {name: tensor.detach().numpy().copy() for name, tensor in self._model.state_dict().items()}

    @property
    def parameters(self) -> int:
        """Numbers that the optimiser moves."""
        return sum(x.numel() for x in self._model.parameters())


def fetched_bytes(model: ModelConfig, tokens: int, setting: Setting) -> int:
    """Bytes of weights that `batched_mm` copies in each sparse layer: all of an expert for every choice of a token."""
    if setting.experts != "batched_mm":
        return 0
    return tokens * model.top_k * 3 * model.d_model * model.expert_ffn * 4


def versions() -> dict[str, str]:
    """Versions of torch and transformers, and the threads that torch works with."""
    import torch
    import transformers

    return {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads of torch": str(torch.get_num_threads()),
    }
