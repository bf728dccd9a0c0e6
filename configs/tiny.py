"""A tiny model, to try every part of a run in a minute. It learns nothing worth hearing.

  python -m launch.train --config=configs/tiny.py

makes three dozen scenes, trains 40 steps and evaluates.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The tiny configuration."""
    config = ConfigDict()
    config.name = "tiny"
    config.model = dict(
        d_model=64,
        num_layers=5,
        num_dense_layers=1,
        global_every=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=16,
        window=32,
        rel_extent=64,
        dense_ffn=128,
        expert_ffn=64,
        num_experts=4,
        num_shared_experts=1,
        top_k=2,
        route_scale=2.0,
        vocab_size=512,
        text_vocab_size=480,
        vision_stages=((1, 5, 5, 8), (1, 10, 10, 16), (1, 40, 40, 32), (2, 40, 40, 64)),
        flow_width=400,
        flow_blocks=1,
    )
    config.data = dict(
        directory="data/tiny",
        sources={"scenes": {"path": "scenes", "weight": 1.0}},
        held_out="held_out",
        generate={"scenes": 28, "held_out": 8},
        packing=dict(elements=512, audio_in=320, video=16, audio_out=160, outputs=160, segments=4),
        batch_size=2,
        workers=0,
    )
    config.train = dict(
        steps=40, learning_rate=2e-3, warmup_steps=5, checkpoint_every=10, eval_every=20, eval_batches=2, log_every=5
    )
    config.serve = dict(context=512)
    return config
