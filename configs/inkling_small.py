"""The open 276B/12B release that the input design is shared with, plus this project's outputs.

python -m launch.params --config=configs/inkling_small.py
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Sizes of Inkling-Small, trained on a pod."""
    config = ConfigDict()
    config.name = "inkling_small"
    config.model = dict(
        d_model=4096,
        num_layers=42,
        num_dense_layers=2,
        global_every=6,
        num_heads=32,
        num_kv_heads=8,
        head_dim=128,
        window=512,
        rel_extent=1024,
        d_rel=16,
        log_scaling_floor=128_000,
        log_scaling_alpha=0.1,
        dense_ffn=16_384,
        expert_ffn=2048,
        num_experts=256,
        num_shared_experts=2,
        top_k=6,
        route_scale=8.0,
        vocab_size=201_024,
        text_vocab_size=200_058,
        logit_divisor=16.0,
        vision_stages=((1, 5, 5, 128), (1, 10, 10, 320), (1, 40, 40, 4800), (2, 40, 40, 4096)),
        flow_width=1536,
        flow_blocks=6,
    )
    config.data = dict(
        directory="data/pod",
        sources={"conversations": {"path": "conversations", "weight": 1.0}, "text": {"path": "text", "weight": 1.0}},
        packing=dict(elements=8192, audio_in=5120, video=1024, audio_out=2048, outputs=4096, segments=32),
        batch_size=512,
        video_grid=(3, 4),
        workers=8,
    )
    config.train = dict(
        steps=100_000,
        learning_rate=2e-4,
        warmup_steps=2000,
        compute_dtype="bfloat16",
        moment_dtype="bfloat16",
        remat="block",
        checkpoint_every=1000,
        eval_every=1000,
    )
    config.serve = dict(context=32_768)
    config.mesh = dict(fsdp=-1, expert=16)
    return config
