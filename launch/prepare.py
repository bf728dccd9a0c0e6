"""Makes a folder of conversation records, from generated scenes or from recordings.

  python -m launch.prepare --generate=scenes --count=100 --output=data/replica/scenes
  python -m launch.prepare --generate=extrapolation --family=repetition --count=200 --output=data/far
  python -m launch.prepare --generate=scenes --count=100000 --runner=DirectRunner --output=data/many
  python -m launch.prepare --generate=scenes --count=1000 --clips=FOLDER --output=data/before_clips
  python -m launch.prepare --recordings=FOLDER --output=data/recordings --video_grid=2x2

The layout of a folder of recordings stands at the head of `tml_jax/data/recordings.py`.
"""

import collections
import contextlib
import math
import os
import pathlib
import re
import resource
from collections.abc import Iterable, Iterator, Sequence

from absl import app, flags, logging

from launch import config_flag
from tml_jax.data import recordings, shards
from tml_jax.data.record import Conversation
from tml_jax.scenes import beam, sources

GENERATE = flags.DEFINE_enum("generate", None, sources.SOURCES, "Source of generated conversations.")
RECORDINGS = flags.DEFINE_string("recordings", None, "Folder of recordings to import.")
FAMILY = flags.DEFINE_string("family", None, "The only family of scenes to generate.")
CLIPS = flags.DEFINE_string("clips", None, "Folder of videos to lie behind the pictures of generated scenes.")
OUTPUT = flags.DEFINE_string("output", None, "Folder to make.")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace an existing --output.")
COUNT = flags.DEFINE_integer("count", 100, "Conversations to generate.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "Seed of what is generated.", lower_bound=0)
PROCESSES = flags.DEFINE_integer("processes", None, "Processes that generate; default: the CPU cores.", lower_bound=1)
RUNNER = flags.DEFINE_string("runner", None, "Runner of Apache Beam that generates, such as DirectRunner (extra beam).")
RUNNER_OPTION = flags.DEFINE_multi_string("runner_option", [], "Option of the runner, such as direct_num_workers=2.")
USER_CHANNEL = flags.DEFINE_enum("user_channel", "left", ["left", "right"], "The user's channel in two-channel files.")
VIDEO_GRID = flags.DEFINE_string("video_grid", "1x1", "Patches of 40 x 40 pixels down x across a frame.")
MAX_SECONDS = flags.DEFINE_float("max_seconds", 30.0, "Longest piece of a recording.", lower_bound=1.0)

NAMED = 20  # ignored files of one ending that are printed


def parse_grid(text: str) -> tuple[int, int]:
    """Reads patches down x across, such as `2x3`.

    Raises:
      ValueError: another form.
    """
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not match:
        raise ValueError(f"--video_grid={text}: expected patches down x across, such as 1x1 or 2x3")
    return int(match[1]), int(match[2])


def _counted(records: Iterable[Conversation], families: collections.Counter, seconds: collections.Counter) -> Iterator:
    for record in records:
        families[record.family] += 1
        seconds[record.family] += record.duration
        yield record


def _processor_seconds() -> float:
    """Processor time of this process and of the children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _generate_by_runner(output: pathlib.Path) -> None:
    """Generates with Apache Beam and prints what was written."""
    if PROCESSES.value is not None:
        raise ValueError(
            "--processes goes without --runner: give the runner's own, such as --runner_option=direct_num_workers=2"
        )
    options = [f"--{option.removeprefix('--')}" for option in RUNNER_OPTION.value]
    report = beam.write_with_beam(
        GENERATE.value, COUNT.value, SEED.value, output, FAMILY.value, RUNNER.value, options,
        overwrite=OVERWRITE.value, clips=CLIPS.value,
    )  # fmt: skip
    _print_written(report["families"], report["seconds"], output, processor=report["cpu_seconds"])


def _print_written(
    families: collections.Counter,
    seconds: collections.Counter,
    output: pathlib.Path,
    left_out: str = "",
    processor: float | None = None,
) -> None:
    """Conversations and seconds by family, and how fast they were generated."""
    for family in sorted(families):
        print(f"{family:16} {families[family]:6d} conversations {seconds[family]:10.1f} s")
    print(f"{'all':16} {families.total():6d} conversations {seconds.total():10.1f} s{left_out}")
    if processor is not None:
        rate = seconds.total() / max(processor, 1e-6)
        print(f"{processor:.1f} s of processor time, {rate:.1f} s of conversation for each")
    print(f"written to {output}")


def _print_left_out(report: recordings.Report) -> None:
    """A line for each recording that was skipped, and for each ending of which files were ignored."""
    for name, reason in report.skipped:
        print(f"skipped {name}: {reason}")
    by_ending = collections.defaultdict(list)
    for name in report.ignored:
        by_ending[pathlib.PurePath(name).suffix.lower()].append(name)
    for ending, names in sorted(by_ending.items()):
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        print(f"ignored ({ending or 'no ending'} is not sound or video): {', '.join(names[:NAMED])}{more}")


def prepare() -> None:
    """Does what the flags say and prints what was written.

    Raises:
      ValueError: the flags or the folders do not fit, or no recording can be used; nothing was written.
    """
    if (GENERATE.value is None) == (RECORDINGS.value is None) or OUTPUT.value is None:
        raise ValueError("give either --generate=SOURCE or --recordings=FOLDER, and --output=FOLDER")
    output = pathlib.Path(OUTPUT.value)
    if output.exists() and not OVERWRITE.value:
        raise ValueError(f"--output={output} exists already: choose another folder or give --overwrite")
    if not math.isfinite(MAX_SECONDS.value):
        raise ValueError(f"--max_seconds={MAX_SECONDS.value}: expected a number of seconds")
    if output.exists():
        shards.check_replaceable(output)
    if GENERATE.value is None and (FAMILY.value or RUNNER.value or RUNNER_OPTION.value or CLIPS.value):
        raise ValueError("--family, --clips, --runner and --runner_option go with --generate")
    if RUNNER_OPTION.value and RUNNER.value is None:
        raise ValueError("--runner_option goes with --runner")
    if RUNNER.value is not None:
        _generate_by_runner(output)
        return
    begun = _processor_seconds()
    report = recordings.Report()
    if GENERATE.value is not None:
        processes = PROCESSES.value or os.cpu_count() or 1
        records = sources.generate(GENERATE.value, COUNT.value, SEED.value, processes, FAMILY.value, CLIPS.value)
    else:
        options = recordings.Options(USER_CHANNEL.value, parse_grid(VIDEO_GRID.value), MAX_SECONDS.value)
        records = recordings.import_recordings(RECORDINGS.value, options, report)
    families, seconds = collections.Counter(), collections.Counter()
    try:
        with contextlib.closing(records):
            shards.write_shards(_counted(records, families, seconds), output, overwrite=OVERWRITE.value)
    except shards.DataError as error:
        if report.skipped and not report.pieces:
            count = len(report.skipped)
            raise ValueError(f"--recordings={RECORDINGS.value}: none of {count} can be used, see above") from error
        raise
    finally:
        _print_left_out(report)
    if GENERATE.value is not None:
        _print_written(families, seconds, output, processor=_processor_seconds() - begun)
    else:
        _print_written(families, seconds, output, f", {len(report.skipped)} skipped, {len(report.ignored)} ignored")


def main(argv: Sequence[str]) -> None:
    """Runs the command. What is wrong with its flags or folders ends it with one line."""
    if len(argv) > 1:
        raise app.UsageError(f"arguments {argv[1:]} are not understood: every option is a --flag")
    logging.set_verbosity(logging.INFO)
    try:
        prepare()
    except (ImportError, OSError, ValueError) as error:
        raise SystemExit(f"launch.prepare: {error}") from error
    except KeyboardInterrupt:
        config_flag.interrupted("prepare", "nothing is kept, and the same command begins anew")


if __name__ == "__main__":
    app.run(main)
