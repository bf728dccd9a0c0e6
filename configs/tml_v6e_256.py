"""TML-Interaction-Small trained on 256 v6e chips (v6e:16x16).

python -m launch.compile --config=configs/tml_v6e_256.py --topology=v6e:16x16 --step=train

A chip has 32 GiB, of which the state takes 15 (what is not of experts is split in 16) and gradients 6. A whole row of
8,192 elements took some 30 more on other chips, so rows are cut in four.
"""

from ml_collections import ConfigDict

from configs import tml_interaction_small


def get_config() -> ConfigDict:
    """The flagship, laid over these chips."""
    config = tml_interaction_small.get_config()
    config.name = "tml_v6e_256"
    config.mesh = dict(fsdp=4, expert=16, sequence=4, transport="capacity", capacity=1.25)
    config.data.batch_size = 64
    return config
