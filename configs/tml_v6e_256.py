"""TML-Interaction-Small trained on 256 v6e chips (v6e:16x16).

python -m launch.compile --config=configs/tml_v6e_256.py --topology=v6e:16x16 --step=train
"""

from ml_collections import ConfigDict

from configs import tml_interaction_small


def get_config() -> ConfigDict:
    """The flagship, laid over these chips."""
    config = tml_interaction_small.get_config()
    config.name = "tml_v6e_256"
    config.mesh = dict(fsdp=16, expert=16, transport="capacity", capacity=1.25)
    config.data.batch_size = 256
    return config
