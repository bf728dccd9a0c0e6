"""The replica: a talking model trained from nothing on two CPU cores.

  python -m launch.train --config=configs/replica.py

makes its data, trains, evaluates on held-out conversations and leaves a model for `launch.talk`.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The replica's configuration."""
    config = ConfigDict()
    config.name = "replica"
    config.model = dict(
        d_model=192,
        num_layers=4,
        num_dense_layers=1,
        global_every=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=48,
        window=64,
        rel_extent=512,
        dense_ffn=512,
        expert_ffn=192,
        num_experts=8,
        num_shared_experts=1,
        top_k=2,
        route_scale=2.0,
        vocab_size=512,
        text_vocab_size=480,
        vision_stages=((1, 5, 5, 16), (1, 10, 10, 32), (1, 40, 40, 64), (2, 40, 40, 192)),
        flow_width=400,
        flow_blocks=2,
        flow_steps=8,
        flow_temperature=0.0,  # the replica has one voice, and noise only blurs it
    )
    config.data = dict(
        directory="data/replica",
        # Transcribed speech has a word to learn in every second, scenes one in five: it is what teaches words quickly.
        sources={
            "scenes": {"path": "scenes", "weight": 2.0},
            "transcribed": {"path": "transcribed", "weight": 1.0},
            "text": {"path": "text", "weight": 0.05},
            "captioned": {"path": "captioned", "weight": 0.25},
            "named": {"path": "named", "weight": 0.25},
            "sought": {"path": "sought", "weight": 0.5},
            "noted": {"path": "noted", "weight": 0.75},
        },
        held_out="held_out",
        generate={
            "scenes": 15000,
            "transcribed": 6000,
            "text": 300,
            "captioned": 4000,
            "named": 4000,
            "sought": 4000,
            "noted": 4000,
            "held_out": 408,
        },
        packing=dict(elements=512, audio_in=320, video=80, audio_out=112, outputs=160, segments=12),
        batch_size=4,
        workers=1,
    )
    config.train = dict(
        steps=6000,
        learning_rate=3e-3,
        final_rate=0.02,
        warmup_steps=100,
        text_weight=3.0,
        flow_draws=2,
        balance_rate=0.01,
        own_audio_noise=1.0,
        own_audio_drop=0.15,
        checkpoint_every=500,
        eval_every=500,
    )
    # As much context as the rows of training have, which is the reach of the relative bias. A typed request comes in at
    # once for the most part: eight tokens at a time, its last word came after the reply to it was due.
    config.serve = dict(context=512, max_text_in=32)
    return config
