"""Language models as judges, over any endpoint that speaks OpenAI's chat protocol. The prompts are the files beside.

Judges differ, so figures compare only under the same one; results.json names it, and judgements.jsonl keeps each
question and answer.
"""

import importlib.resources
import json
import pathlib
import string
from collections.abc import Container, Mapping
from typing import Any

from tml_jax.eval.suites.transcripts import json_objects

TRIES = 3  # answers that are not as the prompt asks are asked for again


class JudgeError(ValueError):
    """The judge cannot be reached or does not answer as asked: says what it said."""


class Judge:
    """A judge. Answers to the same question are kept, in this run and in `log`, and not asked for again."""

    def __init__(self, model: str, base_url: str | None = None, log: pathlib.Path | None = None) -> None:
        """Connects to an endpoint. Its key is read from the environment (`OPENAI_API_KEY`), as its client does.

        Args:
          model: name that the endpoint knows.
          base_url: such as `http://127.0.0.1:8000/v1`; None for the client's own.
          log: file with one JSON object a judgement; those that are there are used again.

        Raises:
          ImportError: the extra `suites` is not installed.
          JudgeError: there is no key, or the log holds something else.
        """
        try:
            import openai
        except ImportError as error:
            raise ImportError("a judge needs openai") from error
        try:
            self._client = openai.OpenAI(base_url=base_url)
        except openai.OpenAIError as error:
            raise JudgeError("no key for the judge: set OPENAI_API_KEY (any word for a server of your own)") from error
        self._failure = openai.OpenAIError
        self.model, self._log = model, log
        self._known: dict[tuple[str, str], dict[str, Any]] = {}
        if log is not None and log.exists():
            self._known = _read(log)

    def ask(self, prompt: str, words: Mapping[str, str], field: str, allowed: Container[Any] | None = None) -> Any:
        """Asks for a verdict.

        Args:
          prompt: name of a file in `prompts`, without its ending.
          words: what stands for each `$name` in it.
          field: of the JSON object that the prompt asks for.
          allowed: values that the field may have; None allows all.

        Returns:
          The field's value.

        Raises:
          JudgeError: the endpoint fails, or after three tries no answer is as asked.
        """
        question = string.Template(prompt_text(prompt)).substitute(words)
        verdict = self._known.get((self.model, question))
        if verdict is None:
            verdict = self._asked(question, field, allowed)
            self._keep(question, verdict)
        return verdict[field]

    def number(self, prompt: str, words: Mapping[str, str], field: str, allowed: Container[float]) -> float:
        """A verdict that is a number."""
        return float(self.ask(prompt, words, field, allowed))

    def yes(self, prompt: str, words: Mapping[str, str], field: str) -> float:
        """A verdict that is true or false, as 1 or 0."""
        return float(self.ask(prompt, words, field, (True, False)))

    def _asked(self, question: str, field: str, allowed: Container[Any] | None) -> dict[str, Any]:
        said = ""
        for seed in range(TRIES):
            try:
                answer = self._client.chat.completions.create(
                    model=self.model, messages=[{"role": "user", "content": question}], temperature=0, seed=seed
                )
            except self._failure as error:
                raise JudgeError(f"the judge {self.model} fails: {error}") from error
            said = answer.choices[0].message.content or ""
            verdict = verdict_in(said, field)
            if verdict is not None and (allowed is None or verdict[field] in allowed):
                return verdict
        raise JudgeError(f"the judge {self.model} gives no valid {field!r} in {TRIES} tries; it said {said[:200]!r}")

    def _keep(self, question: str, verdict: dict[str, Any]) -> None:
        self._known[self.model, question] = verdict
        if self._log is not None:
            line = json.dumps({"judge": self.model, "question": question, "verdict": verdict}, ensure_ascii=False)
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with open(self._log, "a", encoding="utf-8") as file:
                file.write(f"{line}\n")


def _read(log: pathlib.Path) -> dict[tuple[str, str], dict[str, Any]]:
    """(judge, question) → verdict, as `Judge` keeps them. A last line that was cut short is taken away."""
    *whole, cut = log.read_bytes().split(b"\n")  # not by `splitlines`: an answer may hold signs that end lines, too
    if cut:
        with open(log, "r+b") as file:
            file.truncate(log.stat().st_size - len(cut))
    try:
        entries = [json.loads(line) for line in whole]
        return {(entry["judge"], entry["question"]): entry["verdict"] for entry in entries}
    except (ValueError, KeyError, TypeError) as error:
        raise JudgeError(f"{log} holds something else than judgements ({error}): remove it, or name another") from error


def prompt_text(name: str) -> str:
    """The text of a prompt, in which `$name` stands for what is filled in."""
    return (importlib.resources.files(__package__) / "prompts" / f"{name}.txt").read_text(encoding="utf-8")


def verdict_in(said: str, field: str) -> dict[str, Any] | None:
    """The last JSON object with `field` in what a judge said, whatever stands around it; None if there is none."""
    return next((value for value in reversed(json_objects(said)) if field in value), None)
