"""Makes `picture_golden.npz`: the patches that the reference's processor makes of a real picture.

The picture, picture_golden.png, is a part of Grace Hopper's portrait by the US Navy (public domain), which matplotlib
ships as sample data. Needs the extra `parity` and torchvision.

  python tests/golden/make_picture_golden.py
"""

import pathlib

import numpy as np
from PIL import Image
from transformers.models.inkling.image_processing_inkling import InklingImageProcessor

FOLDER = pathlib.Path(__file__).parent


def main() -> None:
    picture = Image.open(FOLDER / "picture_golden.png")
    pixels = InklingImageProcessor()(picture, return_tensors="np")["pixel_values"]
    np.savez_compressed(FOLDER / "picture_golden.npz", pixels=pixels[:, 0].astype(np.float32))
    print(f"{pixels.shape} patches, both frames alike: {np.array_equal(pixels[:, 0], pixels[:, 1])}")


if __name__ == "__main__":
    main()
