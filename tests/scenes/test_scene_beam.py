"""Generation by Apache Beam: the same bytes as by processes of our own."""

import pytest

from tml_jax.data.shards import write_shards
from tml_jax.scenes import sources
from tml_jax.scenes.beam import write_with_beam

pytestmark = pytest.mark.beam


@pytest.mark.parametrize(
    "options", [(), ("--direct_num_workers=2", "--direct_running_mode=multi_processing")], ids=["here", "two processes"]
)
def test_runner_writes_the_same_bytes_as_the_pool(tmp_path, options):
    report = write_with_beam("scenes", 7, 5, tmp_path / "beam", options=options, records_per_shard=3)
    write_shards(sources.generate("scenes", 7, 5, 1), tmp_path / "pool", records_per_shard=3)
    pool, run = (sorted((tmp_path / name).iterdir()) for name in ("pool", "beam"))
    assert [path.name for path in run] == [path.name for path in pool] and len(pool) == 4
    for ours, theirs in zip(pool, run):
        assert ours.read_bytes() == theirs.read_bytes(), ours.name
    assert report["families"].total() == 7 and report["seconds"].total() > 14 and report["cpu_seconds"] > 0


def test_runner_makes_one_family_and_leaves_nothing_where_it_fails(tmp_path):
    report = write_with_beam("extrapolation", 2, 0, tmp_path / "far", family="timed")
    assert report["families"] == {"timed": 2}
    with pytest.raises(Exception, match="no-such-runner"):
        write_with_beam("scenes", 2, 0, tmp_path / "none", runner="no-such-runner")
    assert [path.name for path in tmp_path.iterdir()] == ["far"]


def test_bad_arguments_are_refused_before_anything_is_made(tmp_path):
    with pytest.raises(ValueError, match="count 0"):
        write_with_beam("scenes", 0, 0, tmp_path / "none")
    assert not list(tmp_path.iterdir())
