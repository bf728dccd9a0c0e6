"""Makes `ifeval_golden.json`: the published checker's verdicts on `ifeval_cases`, strict and loose.

Needs `if-verifiable` (PyPI), which carries the checker of google-research's instruction_following_eval.

  python tests/eval/suites/make_ifeval_golden.py > tests/golden/ifeval_golden.json
"""

import json

from if_verifiable.ifeval import instructions_registry
from ifeval_cases import INSTRUCTIONS, RESPONSES
from langdetect import DetectorFactory


def verdict(kind: str, arguments: dict, response: str) -> bool:
    """As `test_instruction_following_strict` does."""
    checker = instructions_registry.INSTRUCTION_DICT[kind](kind)
    checker.build_description(**arguments)
    return bool(response.strip()) and bool(checker.check_following(response))


def variants(response: str) -> list[str]:
    """As `test_instruction_following_loose` does."""
    lines = response.split("\n")
    cut = [response] + ["\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1])]
    return cut + [text.replace("*", "") for text in cut]


if __name__ == "__main__":
    DetectorFactory.seed = 0
    strict = [[int(verdict(*instruction, response)) for response in RESPONSES] for instruction in INSTRUCTIONS]
    loose = [
        [int(any(verdict(*instruction, text) for text in variants(response))) for response in RESPONSES]
        for instruction in INSTRUCTIONS
    ]
    print(json.dumps({"strict": strict, "loose": loose}))
