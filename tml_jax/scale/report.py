"""Figures of compiled steps in words, and the search for the fastest setting that fits."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

from tml_jax.config import REMAT, Config
from tml_jax.scale.programs import DoesNotFit

ROWS_PER_DEVICE = (1, 2, 4)


def lines(report: dict[str, Any]) -> list[str]:
    """The figures, a line each, large numbers with their unit."""
    return [f"{name} = {_spell(name, value)}" for name, value in report.items()]


def _spell(name: str, value: Any) -> str:
    if isinstance(value, list):
        return "; ".join(_spell(name, item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {_spell(name, item)}" for key, item in value.items()) or "–"
    if value is None:
        return "none"
    if "bytes" in name and isinstance(value, int | float):
        return f"{value / 2**30:.2f} GiB"
    if "flops" in name and isinstance(value, int | float):
        return f"{value / 1e12:.2f} T" if value >= 1e12 else f"{value / 1e9:.2f} G"
    if "seconds" in name and isinstance(value, int | float):
        return f"{value * 1e3:.2f} ms" if value < 10 else f"{value:.0f} s"
    if name in ("mfu", "share_of_200_ms"):
        return f"{value:.1%}"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def advice(error: DoesNotFit, config: Config, step: str) -> str:
    """What to do about a step that does not fit."""
    over = ""
    if error.needed and error.available:
        over = f" by {(error.needed - error.available) / 2**30:.1f} GiB ({error.needed / 2**30:.1f} needed)"
    if step == "serve":
        change = "serve fewer --sessions, a shorter config.serve.context, config.serve.weights=int8, or more chips"
    elif config.mesh.expert > 1 and not config.mesh.capacity:
        change = "bound the room of the experts (config.mesh.transport=capacity, config.mesh.capacity=1.25)"
    elif config.train.remat != "block":
        change = "set config.train.remat=block"
    else:
        change = (
            "take more microbatches (config.train.accumulate), fewer rows (config.data.batch_size), rows cut over more "
            "devices (config.mesh.sequence), or more chips"
        )
    return f"the step does not fit in the memory of a device{over}: {change}. The compiler says: {error.message[:400]}"


def search(
    config: Config,
    devices: int,
    attempt: Callable[[Config], dict[str, Any] | str],
    log: Callable[[str], None],
) -> dict[str, Any]:
    """Compiles every batch and remat policy and keeps the one that does the most useful work a second.

    Args:
      config: the run.
      devices: of a topology, how many.
      attempt: compiles the train step of a run: its figures, or a line that says why there are none.
      log: takes a line for each setting tried.

    Returns:
      The figures of the fastest that fits, with `searched`: all settings and what became of them.

    Raises:
      ValueError: none could be compiled.
    """
    best, tried, failed = None, [], ""
    shards = devices // (max(config.mesh.tensor, 1) * max(config.mesh.sequence, 1))
    for rows, remat in itertools.product(ROWS_PER_DEVICE, REMAT):
        setting = {"rows_per_device": rows, "remat": remat}
        report = attempt(
            dataclasses.replace(
                config,
                data=dataclasses.replace(config.data, batch_size=rows * shards),
                train=dataclasses.replace(config.train, remat=remat, accumulate=1),
            )
        )
        if isinstance(report, str):
            failed = report
            tried.append(setting | {"failed": report})
            log(f"{rows} rows a device, remat {remat}: {report}")
            continue
        tried.append(setting | {"mfu": report["mfu"], "hbm_bytes_per_device": report["hbm_bytes_per_device"]})
        utilisation = f"no utilisation: {report['no_mfu']}" if report["mfu"] is None else f"{report['mfu']:.1%} MFU"
        log(f"{rows} rows a device, remat {remat}: {utilisation}, {report['hbm_bytes_per_device'] / 2**30:.1f} GiB")
        if best is None or _speed(report) > _speed(best):
            best = report
    if best is None:
        raise ValueError(f"--search: none of {len(tried)} settings could be compiled; the last: {failed}")
    return best | {"searched": tried}


def _speed(report: dict[str, Any]) -> float:
    """Useful operations a second, in no less time than the bytes alone take."""
    return report["useful_flops"] / max(report["optimal_seconds"], report["memory_seconds"])
