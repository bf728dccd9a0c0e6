"""Which setting of the reference is the fastest here, and under what conditions that and the rest was measured."""

from collections.abc import Callable, Mapping, Sequence

from tml_jax.bench import machine
from tml_jax.bench.reference_model import Setting, versions
from tml_jax.bench.timing import Times, interleaved

QUIET = 0.1  # cores that other programs may keep busy
Tried = Mapping[Setting, Times | str]  # its times, or why there are none


def try_settings(
    settings: Sequence[Setting],
    make: Callable[[Setting], Callable[[], object] | str],
    repeats: int,
    decimals: int,
    log: Callable[[str], None],
) -> tuple[Setting, dict[Setting, Times | str]]:
    """Times the reference in every setting over a few steps; one that does not run is told, not raised.

    Args:
      settings: to try.
      make: builds the program of one, or says why it is not run.
      repeats: steps that are timed.
      decimals: of milliseconds.
      log: takes a line for each.

    Returns:
      The fastest, and what became of all.

    Raises:
      ValueError: none runs.
    """
    tried: dict[Setting, Times | str] = {}
    for setting in settings:
        try:
            step = make(setting)
            once = dict(repeats=repeats, steps_per_turn=1, warmup=1)
            tried[setting] = step if isinstance(step, str) else interleaved({"": step}, **once)[""]
        except (RuntimeError, ValueError) as error:  # what torch and its compiler raise, and transformers
            tried[setting] = f"does not run ({type(error).__name__}: {str(error).splitlines()[0][:120]})"
        log(f"transformers, {setting}: {_spell(tried[setting], decimals)}")
    ran = {setting: found.median for setting, found in tried.items() if isinstance(found, Times)}
    if not ran:
        raise ValueError(f"no setting of transformers ran: {tried}")
    return min(ran, key=ran.get), tried


def conditions(tried: Tried, decimals: int, other_cores: float | None, of_software: Mapping[str, str]) -> list[str]:
    """Lines to stand below a table.

    Args:
      tried: settings of the reference and what became of them.
      decimals: of milliseconds.
      other_cores: that other processes kept busy meanwhile; None where unknown.
      of_software: versions, and numbers of cores and threads.

    Returns:
      The lines.
    """
    others = "unknown" if other_cores is None else f"{other_cores:.2f}"
    if (other_cores or 0.0) > QUIET:
        others += ": NOT FAIR, threads that wait for each other suffer most; run it on a quiet machine"
    return [
        "settings of transformers tried, fastest of a few steps:",
        *(f"  {setting}: {_spell(found, decimals)}" for setting, found in tried.items()),
        ", ".join(f"{name} {version}" for name, version in of_software.items()),
        f"cores busy with other programs meanwhile: {others}",
    ]


def all_versions() -> dict[str, str]:
    """Versions of ours and of the reference, and numbers of cores and threads."""
    return {**machine.versions(), **versions()}


def _spell(found: Times | str, decimals: int) -> str:
    return f"{found.median * 1e3:.{decimals}f} ms" if isinstance(found, Times) else found
