"""What chips can do, by their maker's documentation (Google Cloud, "TPU7x (Ironwood)", the table of three generations).

Of the memory a program gets what libtpu 0.0.52 says when one does not fit. A device of JAX is a chip, but for TPU7x,
whose chips are two devices each.
"""

import dataclasses
import math
import re

from tml_jax.config import ConfigError


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device.

    Attributes:
      name: as in names of topologies.
      flops: bfloat16 operations a second.
      hbm_bytes: memory that a program can have.
      hbm_rate: bytes a second from and to memory.
      ici_rate: bytes a second that it sends to its neighbours, over all links together.
      sides: how many numbers a shape of them has.
      most: chips of the largest slice that there is.
      devices: of one chip.
    """

    name: str
    flops: float
    hbm_bytes: float
    hbm_rate: float
    ici_rate: float
    sides: int
    most: int
    devices: int = 1


CHIPS = {
    "v5e": Chip("v5e", 197e12, 15.75 * 2**30, 819e9, 200e9, sides=2, most=256),
    "v5p": Chip("v5p", 459e12, 95.73 * 2**30, 2765e9, 600e9, sides=3, most=6144),
    "v6e": Chip("v6e", 918e12, 31.24 * 2**30, 1638e9, 400e9, sides=2, most=256),
    "tpu7x": Chip("tpu7x", 2307e12 / 2, 94.74 * 2**30, 7380e9 / 2, 600e9 / 2, sides=3, most=9216, devices=2),
}


def chip_of(topology: str) -> Chip:
    """The chip of a topology such as `v5p:8x8x8`.

    Raises:
      ConfigError: it is of none of the chips known here, or no shape of them.
    """
    name, _, shape = topology.partition(":")
    if name not in CHIPS:
        known = ", ".join(CHIPS)
        raise ConfigError(f"topology {topology!r}: expected CHIP:SHAPE, such as v5p:8x8x8; known are {known}")
    sides, most = CHIPS[name].sides, CHIPS[name].most
    if (
        not re.fullmatch(r"[1-9]\d*" + r"x[1-9]\d*" * (sides - 1), shape)
        or math.prod(map(int, shape.split("x"))) > most
    ):
        example = "x".join(["4"] * sides)
        raise ConfigError(
            f"topology {topology!r}: a shape of {name} is {sides} numbers from 1 on, such as {name}:{example}, "
            f"with at most {most} chips"
        )
    return CHIPS[name]
