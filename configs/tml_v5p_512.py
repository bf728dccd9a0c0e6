"""TML-Interaction-Small trained on 512 v5p chips (v5p:8x8x8).

python -m launch.compile --config=configs/tml_v5p_512.py --topology=v5p:8x8x8 --step=train
"""

from ml_collections import ConfigDict

from configs import tml_interaction_small


def get_config() -> ConfigDict:
    """The flagship, laid over these chips."""
    config = tml_interaction_small.get_config()
    config.name = "tml_v5p_512"
    config.mesh = dict(fsdp=32, expert=16, transport="capacity", capacity=1.25)
    config.data.batch_size = 512
    config.train.remat = "dots"
    return config
