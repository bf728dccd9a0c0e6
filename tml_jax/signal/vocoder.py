"""Streaming vocoder: own-mel frames to 24 kHz samples in JAX, without trained weights and without delay.

Two steps a frame. First the mel frame is turned into the magnitudes of 481 frequency bins: multiplicative updates that
keep them positive (Richardson 1972; Lucy 1974; as a factorisation step: Lee and Seung, "Algorithms for Non-negative
Matrix Factorization", NIPS 2000). Then phases are found in real time, as in RTISI (Beauregard, Zhu and Wyse, "An
Efficient Algorithm for Real-Time Spectrogram Inversion", DAFx 2005; Zhu, Beauregard and Wyse, "Real-Time Signal
Estimation from Modified Short-Time Fourier Transform Magnitude Spectra", IEEE TASLP 2007): the part of the signal that
is already there gives a new frame its first phases, and a few rounds of Griffin and Lim's projections (IEEE TASSP
1984), with the momentum of Perraudin, Balazs and Søndergaard ("A fast Griffin-Lim algorithm", WASPAA 2013), refine
them. Unlike RTISI, the rounds revise all four frames that cover the samples not yet put out, with the samples already
put out held fixed (as online projection methods do: Peer et al., "A Flexible Online Framework for Projection-Based STFT
Phase Retrieval", ICASSP 2024). Frame k covers samples [240k, 240k + 960), so that its 240 first samples are final.
"""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from tml_jax.config import MEL_BINS
from tml_jax.signal.mel import OWN, OWN_MEL_MAX, OWN_MEL_MIN, hann, mel_filters

OVERLAP = OWN.window // OWN.hop  # frames that cover a sample
BINS = OWN.window // 2 + 1

# Chosen by PESQ, mel distance and word error rate on sentences apart from those of any reported figure.
MAGNITUDE_ROUNDS = 8
PHASE_ROUNDS = 9
MOMENTUM = 0.5
# Least sum of squared windows to divide by. The newest samples lie under the flank of one window only: dividing by its
# full smallness would let the noise of a first guess grow.
LEAST_WEIGHT = 0.3
_ROWS = 8  # frames whose magnitudes are found at once


@flax.struct.dataclass
class VocoderState:
    """What the vocoder carries from frame to frame.

    Attributes:
      hops: (..., 6, 240) float32: three hops of samples put out, then the estimate of the three hops to come.
      magnitudes: (..., 3, 481) float32 of the three frames before.
    """

    hops: jax.Array
    magnitudes: jax.Array


def init_vocoder(batch_shape: tuple[int, ...] = ()) -> VocoderState:
    """The state before the first frame: silence.

    Args:
      batch_shape: leading axes of every array, one stream each.

    Returns:
      The state, float32.
    """
    return VocoderState(
        hops=jnp.zeros((*batch_shape, 2 * (OVERLAP - 1), OWN.hop), jnp.float32),
        magnitudes=jnp.zeros((*batch_shape, OVERLAP - 1, BINS), jnp.float32),
    )


def magnitudes(log_mel: jax.Array) -> jax.Array:
    """Magnitudes of frequency bins whose mel spectrum is `log_mel`.

    Args:
      log_mel: (..., 80) float32, log10 as `own_mel` gives it.

    Returns:
      (..., 481) float32, not negative; 0 where `log_mel` lies at its floor.
    """
    filters = mel_filters(OWN)  # (481, 80), of full rank: no filter is empty
    reach = np.maximum(filters.sum(axis=1, keepdims=True), 1e-12)
    spread = filters / reach  # each bin's share of the filters above it; rows add up to 1 or, at both ends, to 0
    product = lambda a, b: jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)  # noqa: E731
    mel = 10.0 ** jnp.clip(log_mel, OWN_MEL_MIN, OWN_MEL_MAX)
    mel = jnp.where(log_mel > OWN_MEL_MIN, mel, 0.0)  # the floor stands for silence
    result = product(mel / filters.sum(axis=0), spread.T)
    for _ in range(MAGNITUDE_ROUNDS):
        result *= product(mel / jnp.maximum(product(result, filters), 1e-12), spread.T)
    return result


def _next_hop(state: VocoderState, new: jax.Array) -> tuple[VocoderState, jax.Array]:
    """Takes in the magnitudes of one frame, (..., 481), and puts out one hop, (..., 240)."""
    window = jnp.asarray(hann(OWN.window))
    squares = np.square(hann(OWN.window)).reshape(OVERLAP, OWN.hop)
    # Squared windows over the 4 hops not yet put out: all four frames cover the first of them, one the last.
    weight = np.maximum(np.cumsum(squares[::-1], axis=0)[::-1], LEAST_WEIGHT)

    target = jnp.concatenate([state.magnitudes, new[..., None, :]], axis=-2)  # (..., 4, 481)
    hops = jnp.concatenate([state.hops, jnp.zeros_like(state.hops[..., :1, :])], axis=-2)  # (..., 7, 240)
    past, batch = hops[..., : OVERLAP - 1, :], new.shape[:-1]
    # What the frame before expected of the hop to be put out fades into the new estimate, so that the hop joins the one
    # before it. Without this each hop begins with a small step, 100 times a second.
    fade = hann(2 * OWN.hop)[OWN.hop :]  # from 1 to 0
    weight[0] /= np.maximum(1 - fade, 1e-9)
    expected = hops[..., OVERLAP - 1 :, :] * np.pad(fade[None], ((0, OVERLAP - 1), (0, 0)))
    # The barrier keeps the product apart from the sum below: fused, they round differently in different batches.
    expected = jax.lax.optimization_barrier(expected)
    # Where no signal tells the phase of the new frame, it starts as a pulse in the middle of the window.
    pulse = np.where(np.arange(BINS) % 2, -1e-4, 1e-4).astype(np.float32)
    first_guess = jnp.concatenate([jnp.zeros_like(state.magnitudes), (new * pulse)[..., None, :]], axis=-2)

    before = None
    for _ in range(PHASE_ROUNDS):
        frames = jnp.stack([hops[..., j : j + OVERLAP, :] for j in range(OVERLAP)], axis=-3)  # (..., 4, 4, 240)
        spectrum = jnp.fft.rfft(frames.reshape(*batch, OVERLAP, OWN.window) * window)
        leading = spectrum + first_guess if before is None else spectrum + MOMENTUM * (spectrum - before)
        before = spectrum
        # A plain root of squares: the complex modulus of XLA guards against overflow, at several times the cost.
        size = jnp.sqrt(jnp.square(leading.real) + jnp.square(leading.imag) + 1e-20)
        frames = jnp.fft.irfft(leading * (target / size), OWN.window) * window
        frames = frames.reshape(*batch, OVERLAP, OVERLAP, OWN.hop)
        # Hop i of the 4 is hop 3 + i - j of frame j.
        summed = [sum(frames[..., j, OVERLAP - 1 + i - j, :] for j in range(i, OVERLAP)) for i in range(OVERLAP)]
        hops = jnp.concatenate([past, jnp.stack(summed, axis=-2) / weight + expected], axis=-2)
    return VocoderState(hops=hops[..., 1:, :], magnitudes=target[..., 1:, :]), hops[..., OVERLAP - 1, :]


@jax.jit
def vocode(state: VocoderState, log_mel: jax.Array) -> tuple[VocoderState, jax.Array]:
    """Continues the sound of a stream by some frames of mel.

    Chunks of any length give the samples of the whole at once. Silent frames (`SILENT_OWN_MEL`) let what sounds fade
    over 30 ms; from the fourth on the samples are exactly 0.

    Args:
      state: from `init_vocoder` or the call before.
      log_mel: (..., frames, 80) float32, log10 as `own_mel` gives it; clamped to its range.

    Returns:
      The state after the last frame, and (..., frames * 240) float32 samples at 24 kHz. Frame k's own 240 samples come
      with frame k: there is no delay.

    Raises:
      ValueError: the shape is wrong or does not go with the state.
    """
    batch_shape = state.hops.shape[:-2]
    if log_mel.ndim < 2 or log_mel.shape[-1] != MEL_BINS or log_mel.shape[:-2] != batch_shape:
        raise ValueError(
            f"log_mel has shape {log_mel.shape}: expected (*batch, frames, {MEL_BINS}) with batch {batch_shape}, "
            "the shape that init_vocoder was given"
        )
    with jax.named_scope("vocoder"):
        # So many frames at a time, always: a product over more frames or streams at once rounds differently, and phase
        # reconstruction is chaotic, so that one bit here grows to another waveform (which sounds alike) within seconds.
        rows = jnp.moveaxis(log_mel.astype(jnp.float32), -2, 0)  # (frames, ..., 80)
        flat = rows.reshape(-1, MEL_BINS)
        blocks = jnp.pad(flat, ((0, -len(flat) % _ROWS), (0, 0)), constant_values=OWN_MEL_MIN)
        found = jax.lax.map(magnitudes, blocks.reshape(-1, _ROWS, MEL_BINS)).reshape(-1, BINS)
        frames = found[: len(flat)].reshape(*rows.shape[:-1], BINS)
        state, hops = jax.lax.scan(_next_hop, state, frames)  # (frames, ..., 240)
        return state, jnp.moveaxis(hops, 0, -2).reshape(*batch_shape, -1)


def vocode_sounding(
    state: VocoderState, log_mel: jax.Array, wanted: jax.Array, together: int
) -> tuple[VocoderState, jax.Array]:
    """`vocode` for those of B streams that sound, some at a time, so that silence costs nothing; the same to the bit.

    Args:
      state: of B streams.
      log_mel: (B, frames, 80) float32.
      wanted: (B,) bool; the others' state stays, and they are silent.
      together: streams that one turn of the loop does; a divisor of B.

    Returns:
      The state, and (B, frames * 240) float32 samples.
    """
    still_sounds = [jnp.any(part != 0, axis=(1, 2)) for part in (state.hops, state.magnitudes)]
    sounds = wanted & (jnp.any(log_mel > OWN_MEL_MIN, axis=(1, 2)) | still_sounds[0] | still_sounds[1])
    order = jnp.argsort(~sounds, stable=True)

    def some(turn: tuple) -> tuple:
        first, state, samples = turn
        rows = jax.lax.dynamic_slice_in_dim(order, first, together)
        chosen = sounds[rows]
        before = jax.tree.map(lambda part: part[rows], state)
        after, new = vocode(before, log_mel[rows])
        after = jax.tree.map(lambda new, old: jnp.where(chosen[:, None, None], new, old), after, before)
        state = jax.tree.map(lambda part, new: part.at[rows].set(new), state, after)
        return first + together, state, samples.at[rows].set(jnp.where(chosen[:, None], new, 0.0))

    silence = jnp.zeros((len(log_mel), log_mel.shape[1] * OWN.hop), jnp.float32)
    count = jnp.sum(sounds)
    _, state, samples = jax.lax.while_loop(lambda turn: turn[0] < count, some, (jnp.int32(0), state, silence))
    return state, samples
