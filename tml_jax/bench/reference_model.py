"""The reference that speed is measured beside: transformers' Inkling in torch. Needs the extra `parity`."""

import dataclasses
from typing import Any

import numpy as np

from tml_jax.config import ModelConfig
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


def reference_model(
    model: ModelConfig, setting: Setting, seed: int = 0, weights: dict[str, np.ndarray] | None = None
) -> Any:
    """Builds InklingForCausalLM at the size of one of our configurations.

    Args:
      model: sizes.
      setting: implementations.
      seed: of its initial weights.
      weights: by the reference's names, in place of initial ones.

    Returns:
      The torch module, float32.
    """
    import torch
    from transformers.models.inkling.configuration_inkling import InklingTextConfig
    from transformers.models.inkling.modeling_inkling import InklingForCausalLM

    sizes = {name: value for name, value in to_backbone(model).items() if name != "architectures"}
    # Ours has logits for control tokens, too.
    sizes |= {"unpadded_vocab_size": model.logits_size, "pad_token_id": None}
    torch.manual_seed(seed)
    config = InklingTextConfig(**sizes, attn_implementation=setting.attention, experts_implementation=setting.experts)
    built = InklingForCausalLM(config).float()
    if weights is not None:
        built.load_state_dict({name: torch.from_numpy(x.copy()) for name, x in weights.items()})
    return built


def reference_weights(built: Any) -> dict[str, np.ndarray]:
    """A copy of a module's weights by name."""
    return {name: tensor.detach().numpy().copy() for name, tensor in built.state_dict().items()}


def versions() -> dict[str, str]:
    """Versions of torch and transformers, and the threads that torch works with."""
    import torch
    import transformers

    return {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads of torch": str(torch.get_num_threads()),
    }
