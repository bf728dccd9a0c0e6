"""The replica of `configs/replica.py`, trained for longer, on one GPU: what the shipped model was trained on from.

  python -m launch.train --config=configs/replica_gpu.py

One GPU takes larger batches, so it sees more and other conversations in less time; 16 CPU cores make the data and the
batches.
"""

from ml_collections import ConfigDict

from configs import replica


def get_config() -> ConfigDict:
    """The replica's configuration, with more data, larger batches, more steps and more to see by."""
    config = replica.get_config()
    config.name = "replica_gpu"
    config.model.vision_stages = ((1, 5, 5, 24), (1, 10, 10, 48), (1, 40, 40, 96), (2, 40, 40, 192))
    config.data.directory = "data/replica_gpu"
    config.data.generate = dict(
        scenes=36000, transcribed=10000, text=300, captioned=4000, named=10000, sought=10000, noted=12000, held_out=408
    )
    config.data.sources.transcribed.weight = 0.75
    config.data.sources.named.weight = 0.75
    config.data.batch_size = 16
    config.data.workers = 14
    config.train.steps = 8000
    config.train.learning_rate = 4e-3
    config.train.warmup_steps = 300
    config.train.flow_draws = 4
    config.train.checkpoint_every = 2000
    config.train.eval_every = 2000
    config.train.log_every = 100
    return config
