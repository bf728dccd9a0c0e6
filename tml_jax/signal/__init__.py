"""Sound in and out: mel spectra, dMel levels, the vocoder, media files."""
