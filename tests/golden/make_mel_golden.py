"""Makes `mel_golden.npz`: three seconds of real speech with the reference's log-mel and dMel levels.

The speech is sense_and_sensibility_01_austen_64kb-0880.wav of the Debian package `pocketsphinx-testdata` (a LibriVox
reading in the public domain, packaged under the BSD licence of CMU Sphinx): "he was not an ill disposed young man".
Needs the extra `parity`.

  python tests/golden/make_mel_golden.py FOLDER/sense_and_sensibility_01_austen_64kb-0880.wav
"""

import pathlib
import sys
import wave

import numpy as np
import torch
from transformers.models.inkling.feature_extraction_inkling import InklingFeatureExtractor
from transformers.models.inkling.processing_inkling import InklingProcessor


def reference(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log-mel (frames, 80) float32 and levels (frames, 80) uint8 of (n,) float32 samples, by transformers."""
    features = InklingFeatureExtractor()(samples, sampling_rate=16_000, return_tensors="pt")["input_features"]
    processor = object.__new__(InklingProcessor)  # its constructor wants a tokenizer, which levels do not need
    processor.dmel_min_value, processor.dmel_max_value = -7.0, 2.0
    processor.bin_centers = torch.linspace(-7.0, 2.0, 16, dtype=torch.float64).to(torch.float32)
    return features[0].numpy(), processor._extract_dmel_bins(features)[0].numpy().astype(np.uint8)


def main(path: str) -> None:
    with wave.open(path) as file:
        if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (16_000, 1, 2):
            raise SystemExit(f"{path}: expected 16 kHz, one channel, 16 bit")
        speech = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    log_mel, levels = reference(speech.astype(np.float32) / 32768)
    target = pathlib.Path(__file__).with_name("mel_golden.npz")
    np.savez_compressed(target, speech=speech, log_mel=log_mel, levels=levels)
    print(f"{target}: {speech.size / 16_000:.2f} s, {levels.shape[0]} frames, {target.stat().st_size} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
