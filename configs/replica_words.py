"""The replica that comes with the package, trained on; so its last part was made, beginning with the copy before it.

  python -m launch.train --config=configs/replica_words.py

Its scenes have hundreds of wordings for each request, which `data/scene_requests.py` composes, and it names many more
objects. It keeps the tokenizer of what it begins with. Another `data.seed` gives scenes that no part has seen.
"""

from ml_collections import ConfigDict

from configs import replica


def get_config() -> ConfigDict:
    """The replica's configuration, on other data, from trained weights on."""
    config = replica.get_config()
    config.name = "replica_words"
    config.data.directory = "data/replica_words"
    config.data.generate = dict(scenes=17000, transcribed=5000, text=300, captioned=4000, named=8000, held_out=408)
    config.data.sources.named.weight = 1.0
    config.data.sources.transcribed.weight = 0.5
    config.data.seed = 3
    config.train.init_from = "tml_jax/shipped/replica"
    config.train.steps = 3000
    config.train.learning_rate = 1.5e-3
    return config
