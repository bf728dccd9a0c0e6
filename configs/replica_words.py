"""The replica that comes with the package: that of `configs/replica_gpu.py`, trained on by a small machine's CPU.

  python -m launch.train --config=configs/replica_words.py --config.train.init_from=tml_jax/shipped/replica

trains on the copy that comes with the package, and needs no GPU; without `init_from` it goes on from the run of
`configs/replica_gpu.py`. It keeps the tokenizer of what it begins with. The shipped one was trained on eight times,
each time with other data (`tml_jax/shipped/HISTORY.md`). Another `data.seed` gives scenes that no part has seen.
"""

from ml_collections import ConfigDict

from configs import replica_gpu


def get_config() -> ConfigDict:
    """The replica's configuration, on other data, from trained weights on."""
    config = replica_gpu.get_config()
    config.name = "replica_words"
    config.data.directory = "data/replica_words"
    config.data.generate = dict(
        scenes=9000, transcribed=500, text=300, captioned=200, named=400, sought=1000, noted=7000, held_out=408
    )
    config.data.sources.transcribed.weight = 0.25
    config.data.sources.captioned.weight = 0.1
    config.data.sources.named.weight = 0.25
    config.data.sources.noted.weight = 1.25
    config.data.seed = 18
    config.data.batch_size = 4
    config.data.workers = 1
    config.train.init_from = "runs/replica_gpu"
    config.train.steps = 6000
    config.train.learning_rate = 8e-4
    config.train.warmup_steps = 100
    config.train.flow_draws = 2
    config.train.checkpoint_every = 500
    config.train.eval_every = 500
    return config
