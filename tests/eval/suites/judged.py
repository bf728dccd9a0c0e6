"""A judge that answers by a rule of the test, and keeps what it was asked."""

from tml_jax.eval.suites.judge import prompt_text


class RuleJudge:
    """`rule` gets the prompt's name and its words, and gives the verdict."""

    def __init__(self, rule):
        self.rule, self.asked = rule, []

    def ask(self, prompt, words, field, allowed=None):
        text = prompt_text(prompt)
        for name in words:
            assert f"${name}" in text, (prompt, name)
        assert f'"{field}"' in text, (prompt, field)
        self.asked.append((prompt, dict(words)))
        verdict = self.rule(prompt, words)
        assert allowed is None or verdict in allowed
        return verdict

    def number(self, prompt, words, field, allowed):
        return float(self.ask(prompt, words, field, allowed))

    def yes(self, prompt, words, field):
        return float(self.ask(prompt, words, field, (True, False)))
