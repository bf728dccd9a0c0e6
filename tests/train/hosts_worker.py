"""One process of a run on several: trains, then goes on with the run of other processes from its second checkpoint.

Arguments: a JSON object with `processes`, `process`, `coordinator`, `own` and `other` (run directories). Who has
trained leaves a file DIRECTORY.done; each then copies the other's run without its last checkpoint and goes on with the
copy, DIRECTORY.taken. So one process and several swap runs, and each compiles once.
"""

import json
import pathlib
import shutil
import sys
import time

import jax

from tml_jax.data import pipeline
from tml_jax.data.tokenizer import Tokenizer
from tml_jax.parallel.mesh import make_mesh
from tml_jax.train import checkpoint, loop

WAIT = 600.0  # seconds


def wait_for(path: pathlib.Path) -> None:
    deadline = time.monotonic() + WAIT
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} does not come"
        time.sleep(0.05)


def main(arguments: dict) -> None:
    if arguments["processes"] > 1:
        jax.distributed.initialize(arguments["coordinator"], arguments["processes"], arguments["process"])
    own, other = pathlib.Path(arguments["own"]), pathlib.Path(arguments["other"])
    config = checkpoint.read_config(own)
    setup = loop.make_train(config, make_mesh(config.mesh))
    loop.make_train = lambda config, mesh: setup  # both runs are of one configuration
    loop.train(config, own, log=print)

    tokenizer = Tokenizer.load(own / checkpoint.TOKENIZER)
    data = pipeline.open_training_data(config, tokenizer)
    loaded = [data.batch_at(step, setup.rows).record.tolist() for step in range(3)]
    loaded_file = own.with_name(f"{own.name}.loaded_{arguments['process']}.json")
    loaded_file.write_text(json.dumps({"rows": setup.rows, "records": loaded}))

    taken = other.with_name(f"{other.name}.taken")
    if arguments["process"] == 0:
        own.with_name(f"{own.name}.done").touch()
        wait_for(other.with_name(f"{other.name}.done"))
        partial = shutil.copytree(other, taken.with_name(f"{taken.name}.partial"))
        shutil.rmtree(partial / "checkpoints" / "4")
        partial.rename(taken)
    wait_for(taken)
    report = loop.train(config, taken, log=print)
    print(f"went on from step {report.resumed_from}")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
