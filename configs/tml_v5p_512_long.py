"""TML-Interaction-Small trained on rows of 131,072 elements, each cut over 16 of 512 v5p chips (v5p:8x8x8).

python -m launch.compile --config=configs/tml_v5p_512_long.py --topology=v5p:8x8x8 --step=train
"""

from ml_collections import ConfigDict

from configs import tml_v5p_512

LONGER = 16  # than a row of the flagship


def get_config() -> ConfigDict:
    """As many elements in a step as `tml_v5p_512`, and as many on every chip, in fewer and longer rows."""
    config = tml_v5p_512.get_config()
    config.name = "tml_v5p_512_long"
    for size in ("elements", "audio_in", "video", "audio_out", "outputs"):
        config.data.packing[size] *= LONGER
    config.data.batch_size //= LONGER
    config.mesh.fsdp //= LONGER
    config.mesh.sequence = LONGER
    config.train.remat = "block"
    return config
