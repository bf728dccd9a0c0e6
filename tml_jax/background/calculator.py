"""Arithmetic in words or signs: a parser of its own, so that nothing a model writes is ever run as a program."""

import dataclasses
import math
import re
from collections.abc import Callable
from fractions import Fraction

MOST_DIGITS = 60  # of a numerator or denominator; also what keeps powers from taking time
MOST_TOKENS = 200
MOST_DEPTH = 50  # of brackets, functions and powers

_TOKEN = re.compile(r"\s*(?:(?P<number>[0-9]+(?:\.[0-9]*)?|\.[0-9]+)|(?P<name>[a-z]+)|(?P<sign>\*\*|[-+*/^()%×÷−]))")
_WORDS = (
    (r"(?:what is|what's|how much is|calculate|compute)\b", " "),
    (r"\bto the power of\b", "^"),
    (r"\bsquared\b", "^2"),
    (r"\bcubed\b", "^3"),
    (r"\b(?:times|multiplied by)\b", "*"),
    (r"\bx\b", "*"),
    (r"\b(?:divided by|over)\b", "/"),
    (r"\bplus\b", "+"),
    (r"\bminus\b", "-"),
    (r"\b(?:percent of|% of)", "%*"),
    (r"\bpercent\b", "%"),
    (r"\bsquare root of\b", "sqrt "),
)
_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_SPOKEN = re.compile(rf"\b(?:({'|'.join(_TENS)})(?:[ -]({'|'.join(_UNITS[1:10])}))?|({'|'.join(_UNITS)}))\b")
_FUNCTIONS = {
    "sqrt": lambda x: _root(x),
    "abs": abs,
    "round": lambda x: Fraction(round(x)),
}


class CalculationError(ValueError):
    """It is no arithmetic, or none that can be done. Its text says why."""


def calculate(text: str) -> str:
    """Works out an expression.

    Args:
      text: numbers, + - * / ^ %, brackets, sqrt, abs and round, or English words for them.

    Returns:
      The value in decimals, exact where it has at most ten of them.

    Raises:
      CalculationError: it is no arithmetic, or has no value.
    """
    text = text.lower().strip().rstrip("?=.! ")
    text = _SPOKEN.sub(_spoken, text)
    for pattern, sign in _WORDS:
        text = re.sub(pattern, sign, text)
    tokens = _tokens(text)
    value, rest = _sum(_Rest(tokens, 0), 0)
    if rest.at != len(tokens):
        raise CalculationError(f"unexpected {tokens[rest.at]!r}")
    return _decimal(value)


def _spoken(number: re.Match) -> str:
    """Digits for a number below a hundred in words."""
    tens, unit, single = number.groups()
    if single is not None:
        return str(_UNITS.index(single))
    return str(20 + 10 * _TENS.index(tens) + (_UNITS.index(unit) if unit else 0))


def _tokens(text: str) -> tuple[str, ...]:
    # Commas between thousands, and only there: 1,250 but not f(1,2).
    text = re.sub(r"(?<=[0-9]),(?=[0-9]{3}\b)", "", text).strip()
    tokens, at = [], 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None or len(tokens) >= MOST_TOKENS:
            raise CalculationError("no arithmetic")
        tokens.append(found[found.lastgroup])
        at = found.end()
    return tuple(tokens)


@dataclasses.dataclass(frozen=True)
class _Rest:
    tokens: tuple[str, ...]
    at: int

    @property
    def next(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def on(self) -> "_Rest":
        return _Rest(self.tokens, self.at + 1)


def _sum(rest: _Rest, depth: int) -> tuple[Fraction, _Rest]:
    value, rest = _product(rest, depth)
    while rest.next in ("+", "-", "−"):
        sign = -1 if rest.next != "+" else 1
        other, rest = _product(rest.on(), depth)
        value = _fits(value + sign * other)
    return value, rest


def _product(rest: _Rest, depth: int) -> tuple[Fraction, _Rest]:
    value, rest = _signed(rest, depth)
    while rest.next in ("*", "×", "/", "÷"):
        divide = rest.next in ("/", "÷")
        other, rest = _signed(rest.on(), depth)
        if divide and other == 0:
            raise CalculationError("division by zero")
        value = _fits(value / other if divide else value * other)
    return value, rest


def _signed(rest: _Rest, depth: int) -> tuple[Fraction, _Rest]:
    sign = 1
    while rest.next in ("-", "−", "+"):
        sign, rest = sign if rest.next == "+" else -sign, rest.on()
    value, rest = _power(rest, depth)
    return sign * value, rest


def _power(rest: _Rest, depth: int) -> tuple[Fraction, _Rest]:
    value, rest = _atom(rest, depth)
    while rest.next == "%":
        value, rest = value / 100, rest.on()
    if rest.next not in ("^", "**"):
        return value, rest
    exponent, rest = _signed(rest.on(), depth + 1)
    return _raised(value, exponent), rest


def _atom(rest: _Rest, depth: int) -> tuple[Fraction, _Rest]:
    token = rest.next
    if depth > MOST_DEPTH:
        raise CalculationError("too deep")
    if token == "(":
        value, rest = _sum(rest.on(), depth + 1)
        if rest.next != ")":
            raise CalculationError("a bracket is not closed")
        return value, rest.on()
    if token in _FUNCTIONS:
        value, rest = _atom(rest.on(), depth + 1)
        return _FUNCTIONS[token](value), rest
    if token == "pi":
        return Fraction(math.pi), rest.on()
    if not token or not (token[0].isdigit() or token[0] == "."):
        raise CalculationError(f"unexpected {token!r}" if token else "no arithmetic")
    if len(token) > MOST_DIGITS:
        raise CalculationError("too large")
    return Fraction(token.rstrip(".") or "0"), rest.on()


def _fits(value: Fraction) -> Fraction:
    if max(abs(value.numerator), value.denominator) >= 10**MOST_DIGITS:
        raise CalculationError("too large")
    return value


def _raised(value: Fraction, exponent: Fraction) -> Fraction:
    if value == 0 and exponent < 0:
        raise CalculationError("division by zero")
    if exponent.denominator == 1:
        digits = math.log10(max(abs(value.numerator), value.denominator, 1))
        if abs(exponent) * digits >= MOST_DIGITS:
            raise CalculationError("too large")
        return value ** int(exponent)
    return _real(lambda: float(value) ** float(exponent))


def _root(value: Fraction) -> Fraction:
    if value < 0:
        raise CalculationError("the root of a negative number")
    roots = math.isqrt(value.numerator), math.isqrt(value.denominator)
    if roots[0] ** 2 == value.numerator and roots[1] ** 2 == value.denominator:
        return Fraction(*roots)
    return _real(lambda: math.sqrt(value))


def _real(compute: Callable[[], float]) -> Fraction:
    try:
        value = compute()
    except OverflowError as error:
        raise CalculationError("too large") from error
    if isinstance(value, complex) or not math.isfinite(value):
        raise CalculationError("no real number")
    return _fits(Fraction(value).limit_denominator(10**15))


def _decimal(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    if (value * 10**10).denominator == 1:
        digits = str(abs(int(value * 10**10))).zfill(11)
        return ("-" if value < 0 else "") + f"{digits[:-10]}.{digits[-10:]}".rstrip("0")
    return f"{float(value):.10g}"
