"""The replica of `configs/replica_gpu.py`, trained on; its card tells in which parts the one that is shipped was.

  python -m launch.train --config=configs/replica_words.py

Its scenes have hundreds of wordings for each request, which `data/scene_requests.py` composes, and it sees more
captions. It begins with `runs/replica_gpu`, whose tokenizer it keeps.
"""

from ml_collections import ConfigDict

from configs import replica


def get_config() -> ConfigDict:
    """The replica's configuration, on other data, from trained weights on."""
    config = replica.get_config()
    config.name = "replica_words"
    config.data.directory = "data/replica_words"
    config.data.generate = dict(scenes=20000, transcribed=6000, text=300, captioned=20000, held_out=408)
    config.data.sources.captioned.weight = 1.4
    config.data.sources.transcribed.weight = 0.5
    config.train.init_from = "runs/replica_gpu"
    config.train.steps = 6000
    config.train.learning_rate = 2e-3
    return config
