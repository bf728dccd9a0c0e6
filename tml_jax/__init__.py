"""tml_jax: a full-duplex interaction model (audio, video, text in; text and audio out) in JAX."""
