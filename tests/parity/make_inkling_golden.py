"""Makes `tests/golden/inkling_golden.npz`: what the reference gives for two conversations, with random weights.

The file holds the reference's tensor names and shapes, the inputs and the outputs; the weights come again from
`inkling_inputs.random_weights`. Needs the extra `parity`.

  PYTHONPATH=. python tests/parity/make_inkling_golden.py
"""

import json

import numpy as np
from inkling_inputs import GOLDEN, GOLDEN_CONFIG, SEED, golden_sequences
from inkling_reference import Reference


def main() -> None:
    reference = Reference(GOLDEN_CONFIG, SEED)
    arrays = {"shapes": np.asarray(json.dumps(reference.shapes))}
    for index, sequence in enumerate(golden_sequences()):
        logits, chosen = reference.run(sequence)
        arrays |= {f"{name}_{index}": getattr(sequence, name) for name in ("stream", "token", "audio", "video")}
        arrays |= {
            f"logits_{index}": logits,
            f"chosen_{index}": np.stack(list(chosen.values())),
            f"audio_embedding_{index}": reference.audio(sequence.audio),
        }
        if len(sequence.video):
            arrays[f"image_embedding_{index}"] = reference.images(sequence.video)
    np.savez_compressed(GOLDEN, **arrays)
    print(f"{GOLDEN}: {len(reference.shapes)} tensors, {GOLDEN.stat().st_size} bytes")


if __name__ == "__main__":
    main()
