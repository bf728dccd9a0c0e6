"""What every record of a source takes of a packed row: measured once, then kept beside the records."""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import time
import uuid
from collections.abc import Callable, Sequence

import numpy as np

from tml_jax.config import Config
from tml_jax.data.layout import layout, layout_sizes
from tml_jax.data.packing import SIZE_NAMES, capacities, fits
from tml_jax.data.record import Conversation
from tml_jax.data.shards import DataError
from tml_jax.data.tokenizer import Tokenizer
from tml_jax.data.workers import in_parts

LENGTHS_FORMAT = 1  # to be raised when the same record would take other elements
UNREADABLE = -1
NAMED = 10  # records named in one report; the others are counted
PROGRESS_SECONDS = 5.0

Records = Sequence[Conversation]
Report = Callable[[str], None]


def record_name(records: Records, index: int) -> str:
    """Id of a record without reading it where the sequence knows its ids, else its number."""
    ids = getattr(records, "ids", None)
    return str(index) if ids is None else f"{index} ({ids[index]})"


def lengths_fingerprint(records: Records, tokenizer: Tokenizer, config: Config) -> str:
    """16 hexadecimal digits that change with anything on which lengths rest."""
    facts = {
        "format": LENGTHS_FORMAT,
        "tokenizer": tokenizer.fingerprint,
        "max_text_in": config.serve.max_text_in,
        "max_text_out": config.model.max_text_out,
        "video_grid": list(config.data.video_grid),
        "records": len(records),
        "ids": list(getattr(records, "ids", ())),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def measure_lengths(records: Records, tokenizer: Tokenizer, config: Config, name: str, report: Report) -> np.ndarray:
    """Reads every record and works out what it takes of a row.

    A record that cannot be read, or breaks a rule, is named in the report with the reason.

    Args:
      records: the source.
      tokenizer: tokenizer of the text.
      config: the run's configuration.
      name: name of the source, for the report.
      report: called with lines of progress and of trouble.

    Returns:
      (N, 5) int32, see `packing.sizes`; a row of −1 for a record that cannot be used.
    """
    measured, bad, cut = [], 0, []
    said = time.monotonic()
    for part in in_parts(functools.partial(_measure, records, tokenizer, config), records):
        for index, reason in part.bad[: max(0, NAMED - bad)]:
            report(f"{name}: record {record_name(records, index)} is left out: {reason}")
        bad += len(part.bad)
        cut += part.cut
        measured.append(part.lengths)
        if time.monotonic() - said > PROGRESS_SECONDS:
            said = time.monotonic()
            report(f"{name}: measured {sum(map(len, measured))} of {len(records)} records")
    if bad:
        report(f"{name}: {bad} of {len(records)} records cannot be used")
    if cut:
        report(f"{name}: {len(cut)} records end before all their text is out; {sum(cut)} tokens are cut off")
    return np.concatenate(measured) if measured else np.zeros((0, len(SIZE_NAMES)), np.int32)


@dataclasses.dataclass(frozen=True)
class _Part:
    """Lengths of some records; those that are bad, with the reason; tokens cut off of each that is cut."""

    lengths: np.ndarray
    bad: list[tuple[int, str]]
    cut: list[int]


def _measure(records: Records, tokenizer: Tokenizer, config: Config, part: range) -> _Part:
    lengths = np.full((len(part), len(SIZE_NAMES)), UNREADABLE, np.int32)
    bad, cut = [], []
    for row, index in enumerate(part):
        try:
            plan = layout(records[index], tokenizer, config)
        except Exception as error:  # whatever is wrong with one record, the others are still good
            bad.append((index, str(error)))
            continue
        lengths[row] = layout_sizes(plan)
        if plan.cut:
            cut.append(plan.cut)
    return _Part(lengths, bad, cut)


def source_lengths(records: Records, tokenizer: Tokenizer, config: Config, name: str, report: Report) -> np.ndarray:
    """Lengths of a source, from the file beside its records or else measured and left there.

    A source is kept by its `directory` attribute; one without (a list) is measured each time.

    Args:
      records: the source.
      tokenizer: tokenizer of the text.
      config: the run's configuration.
      name: name of the source, for the report.
      report: called with lines of progress and of trouble.

    Returns:
      (N, 5) int32, as `measure_lengths`.
    """
    directory = getattr(records, "directory", None)
    if directory is None:
        return measure_lengths(records, tokenizer, config, name, report)
    path = pathlib.Path(directory) / f"lengths-{lengths_fingerprint(records, tokenizer, config)}.npy"
    if path.is_file():
        try:
            lengths = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            report(f"{name}: {path} is broken ({error}); measuring again")
        else:
            if lengths.shape == (len(records), len(SIZE_NAMES)):
                return lengths
            report(f"{name}: {path} has shape {lengths.shape}; measuring again")
    report(f"{name}: measuring {len(records)} records, once for this tokenizer")
    lengths = measure_lengths(records, tokenizer, config, name, report)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with open(part, "wb") as file:
            np.save(file, lengths)
        os.replace(part, path)
    except OSError as error:  # a read-only data folder costs time at each start, no more
        report(f"{name}: lengths cannot be kept in {directory} ({error}); they are measured again next time")
    return lengths


def usable_records(records: Records, lengths: np.ndarray, config: Config, name: str, report: Report) -> np.ndarray:
    """Records that can be trained on; the others are named and counted.

    Args:
      records: the source.
      lengths: (N, 5) int32, from `source_lengths`.
      config: the run's configuration.
      name: name of the source.
      report: called with what is left out.

    Returns:
      (usable,) int64, record numbers within the source, ascending.

    Raises:
      DataError: none is left.
    """
    readable = lengths[:, 0] != UNREADABLE
    fitting = fits(lengths, config.data.packing)
    for reason, left_out in (("unreadable", ~readable), ("too large for a row", readable & ~fitting)):
        found = np.flatnonzero(left_out)
        if found.size:
            named = ", ".join(record_name(records, int(index)) for index in found[:NAMED])
            more = f" and {found.size - NAMED} more" if found.size > NAMED else ""
            report(f"{name}: {found.size} of {len(records)} records left out, {reason}: {named}{more}")
    usable = np.flatnonzero(readable & fitting)
    if not usable.size:
        most = dict(zip(SIZE_NAMES, capacities(config.data.packing).tolist()))
        raise DataError(
            f"source {name!r}: none of its {len(records)} records can be used; a row holds {most}. Prepare the data "
            "again, or raise config.data.packing"
        )
    return usable
