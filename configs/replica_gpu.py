"""The replica of `configs/replica.py`, trained for longer, on one GPU.

  python -m launch.train --config=configs/replica_gpu.py

The model that is shipped was trained on from this one (`configs/replica_words.py`). One GPU takes larger batches, so
it sees more and other conversations in less time; 16 CPU cores keep up with it.
"""

from ml_collections import ConfigDict

from configs import replica


def get_config() -> ConfigDict:
    """The replica's configuration, with more data, larger batches and more steps."""
    config = replica.get_config()
    config.name = "replica_gpu"
    config.data.directory = "data/replica_gpu"
    config.data.generate = dict(scenes=24000, transcribed=9000, text=300, captioned=4000, named=6000, held_out=408)
    config.data.batch_size = 8
    config.data.workers = 6
    config.train.steps = 9300
    config.train.learning_rate = 4e-3
    config.train.warmup_steps = 200
    config.train.checkpoint_every = 2000
    config.train.eval_every = 2000
    config.train.log_every = 100
    return config
