"""A larger replica, for one GPU; too slow to talk to on a small machine's CPU.

  python -m launch.train --config=configs/replica_large.py

It learns from the data of `configs/replica_gpu.py`.
"""

from ml_collections import ConfigDict

from configs import replica_gpu


def get_config() -> ConfigDict:
    """Wider and deeper, and with more to see by."""
    config = replica_gpu.get_config()
    config.name = "replica_large"
    config.model.update(
        d_model=288,
        num_layers=6,
        num_heads=6,
        num_kv_heads=3,
        dense_ffn=768,
        expert_ffn=256,
        vision_stages=((1, 5, 5, 32), (1, 10, 10, 64), (1, 40, 40, 128), (2, 40, 40, 288)),
        flow_width=512,
    )
    config.data.batch_size = 16
    config.train.steps = 5800
    config.train.learning_rate = 2.5e-3
    return config
