"""All suites: what each measures, what was published for the original, and what a user must get to run it.

None of the benchmarks' data come with the project, and it downloads none.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

from tml_jax.eval.suites import fdb_v1, fdb_v3, fdb_v15, ifeval, spoken, timed, watching
from tml_jax.eval.suites.items import Item, Scoring
from tml_jax.eval.suites.mock_tools import Call
from tml_jax.eval.suites.report import Section


@dataclasses.dataclass(frozen=True)
class Suite:
    """One benchmark.

    Attributes:
      figure: what was published for TML-Interaction-Small.
      source: where a user gets the data.
      layout: how they lie in the folder that is given.
      load: reads them.
      score: scores the answers.
      judge: `needed`, `optional`, or `no`.
      hears: the words that are scored are recognised from the sound; else they are the model's text.
      calls: item → the calls that it expects of tools, which are then there in the background; None without tools.
    """

    figure: str
    source: str
    layout: str
    load: Callable[[pathlib.Path], list[Item]]
    score: Callable[[Scoring], list[Section]]
    judge: str = "no"
    hears: bool = True
    calls: Callable[[Item], Sequence[Call]] | None = None

    @property
    def download(self) -> str:
        """A sentence that says what to get."""
        return f"Get {self.source}, and give the folder with {self.layout} as --data"


_FDB = "Full-Duplex-Bench of github.com/DanielLin94144/Full-Duplex-Bench"
SUITES: dict[str, Suite] = {
    "fdb-v1": Suite(
        "turn-taking latency 0.40 s",
        f"v1.0 of {_FDB} and its evaluation/icc_gt_distribution.json",
        "candor_turn_taking/1/input.wav and the like, and icc_gt_distribution.json",
        fdb_v1.load,
        fdb_v1.score,
        judge="optional",
    ),
    "fdb-v1.5": Suite(
        "average 77.8",
        f"v1.5 of {_FDB}",
        "user_interruption/1/{input,clean_input}.wav, metadata.json and the like",
        fdb_v15.load,
        fdb_v15.score,
        judge="optional",
    ),
    "fdb-v3": Suite(
        "quality 82.8, Pass@1 68.0",
        f"v3 of {_FDB}",
        "fdb_v3_data_released/SCENARIO_SPEAKER/{input.wav,metadata.json}",
        fdb_v3.load,
        fdb_v3.score,
        judge="optional",
        calls=fdb_v3.expected_calls,
    ),
    "timespeak": Suite(
        "64.7",
        "recordings of your own with a time at which something is due (the original's are not public)",
        "items.jsonl (see tml_jax/eval/suites/timed.py)",
        timed.load,
        timed.score,
        judge="optional",
    ),
    "cuespeak": Suite(
        "81.7",
        "recordings of your own with a cue at which something is due (the original's are not public)",
        "items.jsonl (see tml_jax/eval/suites/timed.py)",
        timed.load,
        timed.score,
        judge="optional",
    ),
    "repcount-a": Suite(
        "off by one 35.4",
        "RepCount-A (LLSP) of svip-lab.github.io/dataset/RepCount_dataset.html",
        "annotation/test.csv and video/test/NAME",
        watching.load_repcount,
        watching.score_repcount,
    ),
    "proactive-video-qa": Suite(
        "PAUC 33.5",
        "ProactiveVideoQA of github.com/yellow-binary-tree/ProactiveVideoQA",
        "WEB, EGO, TV and VAD, in each anno.json and videos/",
        watching.load_proactive,
        watching.score_proactive,
        judge="needed",
    ),
    "charades": Suite(
        "mIoU 32.4",
        "Charades (480p) of prior.allenai.org/projects/charades and Charades-STA's charades_sta_test.txt",
        "charades_sta_test.txt and Charades_v1_480/FILM.mp4",
        watching.load_charades,
        watching.score_charades,
    ),
    "qivd": Suite(
        "54.0",
        "QIVD, the data set Qualcomm-AI-Research/QIVD on Hugging Face",
        "metadata.parquet and videos/",
        watching.load_qivd,
        watching.score_qivd,
        judge="needed",
    ),
    "audio-multichallenge": Suite(
        "43.4",
        "Audio MultiChallenge, the data set ScaleAI/audiomc on Hugging Face",
        "data/*.parquet",
        spoken.load_multi_challenge,
        spoken.score_multi_challenge,
        judge="needed",
    ),
    "big-bench-audio": Suite(
        "75.7 (96.5 with a background model)",
        "Big Bench Audio, the data set ArtificialAnalysis/big_bench_audio on Hugging Face",
        "metadata.jsonl and data/question_0.mp3 and the like",
        spoken.load_big_bench,
        spoken.score_big_bench,
        judge="optional",
    ),
    "ifeval": Suite(
        "89.7",
        "IFEval's input_data.jsonl, of google-research/instruction_following_eval or google/IFEval on Hugging Face",
        "input_data.jsonl",
        ifeval.load_typed,
        ifeval.score,
        hears=False,
    ),
    "ifeval-voice": Suite(
        "82.1",
        "VoiceBench, the data set hlt-lab/voicebench on Hugging Face",
        "ifeval/*.parquet",
        ifeval.load_spoken,
        ifeval.score,
    ),
    "harmbench": Suite(
        "99.0",
        "harmbench_behaviors_text_all.csv of github.com/centerforaisafety/HarmBench (data/behavior_datasets)",
        "harmbench_behaviors_text_all.csv",
        spoken.load_harm_bench,
        spoken.score_harm_bench,
        judge="needed",
        hears=False,
    ),
}
