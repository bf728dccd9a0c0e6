"""Conversations made by Apache Beam: in this process, in some, or on a cluster, with the same shards as without it.

The unit of work is a shard, which whoever makes it also writes; no record travels between workers. So every worker
must see the output folder under the same path.
"""

import collections
import json
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

from tml_jax.data.record import Conversation
from tml_jax.data.shards import Path, write_folder, write_shard
from tml_jax.scenes import sources
from tml_jax.scenes.voices import Synthesizer

RECORDS_PER_SHARD = 500
LOCAL = "DirectRunner"
# What Beam itself runs under that name first tries to get another program over the network.
_RUNNERS = {LOCAL: "apache_beam.runners.portability.fn_api_runner.FnApiRunner"}
_FACTS = "shard-{:05d}.json"  # what a worker leaves beside its shard, until all are done


def write_with_beam(
    source: str,
    count: int,
    seed: int,
    directory: Path,
    family: str | None = None,
    runner: str = LOCAL,
    options: Sequence[str] = (),
    records_per_shard: int = RECORDS_PER_SHARD,
    overwrite: bool = False,
    clips: str | None = None,
) -> dict[str, Any]:
    """Makes a folder of the conversations of `sources.generate`, byte for byte as `write_shards` makes it of them.

    Args:
      source: as in `sources.generate`.
      count: as there.
      seed: as there.
      directory: the folder to make.
      family: as in `sources.generate`.
      runner: one of Beam's; `DirectRunner` works in this process, or on this machine.
      options: of the runner, such as `--direct_num_workers=2` and `--direct_running_mode=multi_processing`.
      records_per_shard: most records in one file.
      overwrite: whether an existing folder is replaced, once the new one is complete.
      clips: as in `sources.generate`; every worker must see that folder, too.

    Returns:
      `families` and `seconds`, counters by family, and `cpu_seconds` of the workers.

    Raises:
      ImportError: the `beam` extra is not installed.
      ValueError: an argument is out of range.
      DataError: as `write_shards`.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise ImportError(f"{error}: runners need the beam extra, pip install -e '.[beam]'") from error
    sources.check_request(source, count, seed, family, clips)
    if records_per_shard <= 0:
        raise ValueError(f"records_per_shard = {records_per_shard}: must be above 0")
    report: dict[str, Any] = {
        "families": collections.Counter(), "seconds": collections.Counter(), "cpu_seconds": 0.0,
    }  # fmt: skip
    starts = range(0, count, records_per_shard)

    def write(folder: pathlib.Path) -> list[dict[str, Any]]:
        work = [(number, start, min(start + records_per_shard, count)) for number, start in enumerate(starts)]
        with beam.Pipeline(options=PipelineOptions([f"--runner={_RUNNERS.get(runner, runner)}", *options])) as pipeline:
            _ = (
                pipeline
                | "Shards" >> beam.Create(work)
                | "Spread" >> beam.Reshuffle()
                | "Write" >> beam.Map(_write, str(folder), source, seed, family, clips)
            )
        shards = []
        for number in range(len(work)):
            path = folder / _FACTS.format(number)
            facts = json.loads(path.read_text(encoding="utf-8"))
            path.unlink()
            report["families"].update(facts["families"])
            report["seconds"].update(facts["seconds"])
            report["cpu_seconds"] += facts["cpu_seconds"]
            shards.append(facts["shard"])
        return shards

    write_folder(write, directory, overwrite)
    return report


def _write(
    work: tuple[int, int, int], folder: str, source: str, seed: int, family: str | None, clips: str | None
) -> None:
    """Makes and writes one shard: number, and which conversations from where to where."""
    number, start, stop = work
    begun = time.process_time()
    families: collections.Counter[str] = collections.Counter()
    seconds: collections.Counter[str] = collections.Counter()
    synthesizer = Synthesizer()

    def made() -> Iterator[Conversation]:
        for index in range(start, stop):
            record = sources.make_conversation(synthesizer, source, seed, index, family, clips)
            families[record.family] += 1
            seconds[record.family] += record.duration
            yield record

    shard = write_shard(pathlib.Path(folder), number, made())
    facts = {
        "shard": shard, "families": families, "seconds": seconds, "cpu_seconds": time.process_time() - begun,
    }  # fmt: skip
    # A worker that repeats what another did leaves the same bytes; the facts come last.
    (pathlib.Path(folder) / _FACTS.format(number)).write_text(json.dumps(facts), encoding="utf-8")
