"""The reference with weights of `inkling_inputs`. Needs the extra `parity`."""

import torch
from inkling_inputs import random_weights
from transformers.models.inkling.configuration_inkling import InklingConfig
from transformers.models.inkling.modeling_inkling import InklingForConditionalGeneration

from tml_jax.config import ModelConfig
from tml_jax.eval import parity
from tml_jax.interop.inkling_config import to_release


def make(config: ModelConfig, seed: int) -> InklingForConditionalGeneration:
    """The reference's module in float32, at the size of one of our configurations."""
    made = InklingConfig(
        **{name: value for name, value in to_release(config).items() if name.endswith("_config")},
        audio_token_id=config.vocab_size - 2,
        image_token_id=config.vocab_size - 1,
        attn_implementation="eager",
        experts_implementation="eager",
    )
    model = InklingForConditionalGeneration(made).eval()
    state = random_weights({name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}, seed)
    model.load_state_dict({name: torch.from_numpy(x) for name, x in state.items()})
    return model


class Reference(parity.Reference):
    """The reference with random weights, which it keeps by name: `state`."""

    def __init__(self, config: ModelConfig, seed: int):
        super().__init__(make(config, seed))
        self.state = {name: tensor.numpy() for name, tensor in self.model.state_dict().items()}
        self.shapes = {name: tensor.shape for name, tensor in self.state.items()}
