"""TML-Interaction-Small: 276B parameters, 12B active.

python -m launch.params --config=configs/tml_interaction_small.py
"""

from ml_collections import ConfigDict

from configs import inkling_small


def get_config() -> ConfigDict:
    """Inkling-Small with two more layers, which makes the published sizes."""
    config = inkling_small.get_config()
    config.name = "tml_interaction_small"
    config.model.num_layers = 44
    return config
