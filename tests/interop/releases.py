"""Makes releases of the Inkling family with random weights, in the layout of the open ones."""

import json
import math
import pathlib

import ml_dtypes
import numpy as np

from tml_jax.config import ModelConfig
from tml_jax.data.tokenizer import train_tokenizer
from tml_jax.interop.convert import abstract_parameters
from tml_jax.interop.inkling import RELEASE, counterparts
from tml_jax.interop.tensor_files import TensorFile, plan_files, write_index

BF16, F32 = np.dtype(ml_dtypes.bfloat16), np.dtype(np.float32)
WIDE = ("sconv", "gate.bias", "e_score_correction_bias", "gate.global_scale")  # float32 in the releases
PIECE = 1 << 22  # numbers drawn at a time


def config_json(config: ModelConfig, **changes) -> dict:
    """A config.json in the spelling of the releases on disk."""
    heads, kv_heads, width = config.heads(is_global=False)
    text = dict(
        model_type="inkling_text", vocab_size=config.vocab_size, unpadded_vocab_size=config.text_vocab_size,
        hidden_size=config.d_model, num_hidden_layers=config.num_layers, num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_kv_heads, head_dim=config.head_dim, swa_num_attention_heads=heads,
        swa_num_key_value_heads=kv_heads, swa_head_dim=width, sliding_window_size=config.window, d_rel=config.d_rel,
        rel_extent=config.rel_extent, log_scaling_n_floor=config.log_scaling_floor,
        log_scaling_alpha=config.log_scaling_alpha, rms_norm_eps=config.norm_eps, sconv_kernel_size=config.conv_kernel,
        local_layer_ids=[layer for layer in range(config.num_layers) if not config.is_global(layer)],
        dense_mlp_idx=config.num_dense_layers, dense_intermediate_size=config.dense_ffn,
        intermediate_size=config.expert_ffn, n_routed_experts=config.num_experts, num_experts_per_tok=config.top_k,
        n_shared_experts=config.num_shared_experts, route_scale=config.route_scale,
        logits_mup_width_multiplier=config.logit_divisor,
    )  # fmt: skip
    return {
        "model_type": "inkling_mm_model",
        "text_config": {**text, **changes},
        "audio_config": {"n_mel_bins": 80, "mel_vocab_size": 16},
        "vision_config": {"patch_size": 40, "temporal_patch_size": 2, "n_layers": len(config.vision_stages)},
        "audio_token_id": config.vocab_size - 2,
        "image_token_id": config.vocab_size - 1,
    }


def release_tensors(config: ModelConfig, spelling: str = RELEASE) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """Name → dtype and shape of every tensor."""
    shapes = {path: leaf.shape for path, leaf in abstract_parameters(config).items()}
    return {
        part.tensor: (F32 if any(name in part.tensor for name in WIDE) else BF16, part.shape)
        for part in counterparts(config, shapes, spelling)
    }


def make_release(
    folder: pathlib.Path,
    config: ModelConfig,
    seed: int = 0,
    spelling: str = RELEASE,
    extra: dict | None = None,
    most_bytes: int = 1 << 62,
) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """Writes config.json, tokenizer.json and tensor files.

    Args:
      folder: new folder.
      config: sizes.
      seed: of the weights.
      spelling: of the names.
      extra: further tensors, name → dtype and shape.
      most_bytes: of a tensor file.

    Returns:
      Name → dtype and shape of the tensors written.
    """
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config_json(config)))
    train_tokenizer(["hello there", "say tiger"], min(config.text_vocab_size, 280)).save(folder / "tokenizer.json")
    tensors = {**release_tensors(config, spelling), **(extra or {})}
    files = plan_files(tensors, most_bytes)
    rng = np.random.default_rng(seed)
    for name, entries in files.items():
        with TensorFile(folder / name, entries) as file:
            for _, dtype, shape in entries:
                left, scale = math.prod(shape), np.float32(max(shape[-1], 1) ** -0.5)
                while left:
                    count = min(left, PIECE)
                    file.write((rng.standard_normal(count, np.float32) * scale).astype(dtype))
                    left -= count
    if len(files) > 1:
        write_index(folder, files)
    return tensors
