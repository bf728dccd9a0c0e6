"""The embedded background: what it recognises, what it finds, and that nothing anybody writes is run as a program."""

import asyncio
import datetime

import pytest
from backends import package_of, said
from hypothesis import given
from hypothesis import strategies as st

from tml_jax.background.backend import BackendError
from tml_jax.background.calculator import CalculationError, calculate
from tml_jax.background.library import read_library
from tml_jax.background.local import LocalBackend, LocalTools

NOON = datetime.datetime(2026, 11, 26, 12, 5)


def backend(library=None, waited=None) -> LocalBackend:
    async def sleep(seconds):
        waited.append(seconds)

    return LocalBackend(LocalTools(library, lambda: NOON), sleep)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12 times 7", "84"),
        ("What is 2 + 2 * 3?", "8"),
        ("(1,250 - 250) / 4", "250"),
        ("10 percent of 80", "8"),
        ("2^3^2", "512"),
        ("-2^2", "-4"),
        ("2**-2", "0.25"),
        ("0.1 + 0.2", "0.3"),
        ("1/3", "0.3333333333"),
        ("square root of sixteen", "4"),
        ("sqrt 2", "1.414213562"),
        ("twenty one plus two", "23"),
        ("3 squared", "9"),
        ("round(2.6) - abs(-1)", "2"),
    ],
)
def test_the_calculator_works_out(text, value):
    assert calculate(text) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("9**9**9**9", "too large"),
        ("1/0", "division by zero"),
        ("0^-1", "division by zero"),
        ("(" * 150 + "1", "too deep"),
        ("2^" * 90 + "1", "too deep|too large"),
        ("sqrt(-1)", "negative"),
        ("(-8)^0.5", "no real number"),
        ("__import__('os')", "no arithmetic"),
        ("(1", "not closed"),
        ("1 2", "unexpected"),
        ("", "no arithmetic"),
    ],
)
def test_what_is_no_arithmetic_says_why(text, reason):
    with pytest.raises(CalculationError, match=reason):
        calculate(text)


@given(st.one_of(st.text(), st.text("0123456789+-*/^()%. sqrt")))
def test_any_text_has_a_value_or_says_why(text):
    try:
        float(calculate(text))
    except CalculationError:
        pass


@given(st.integers(-999, 999), st.integers(-999, 999), st.integers(1, 99))
def test_the_calculator_agrees_with_python(a, b, c):
    assert float(calculate(f"{a} - {b} * ({a} + {c}) / {c}")) == pytest.approx(a - b * (a + c) / c, rel=1e-8)


def test_the_clock_and_sums():
    assert said(backend(), package_of("what time is it?")) == "it is 12:05 on Thursday, 26 November 2026"
    assert said(backend(), package_of("What is the date today")).startswith("it is 12:05")
    assert said(backend(), package_of("how much is 6 times 7")) == "42"
    assert said(backend(), package_of("3 times 3", "4 times 4")) == "16"  # refined


def test_the_timer_waits_and_says_what_for():
    waited = []
    assert said(backend(None, waited), package_of("set a timer for 5 seconds")) == "time is up after 5 seconds"
    told = said(backend(None, waited), package_of("remind me in 2 minutes to drink tea", seconds=200.0))
    assert told == "time is up after 2 minutes: drink tea" and waited == [5, 120]
    with pytest.raises(BackendError, match="longer than 60 s"):
        said(backend(None, waited), package_of("timer 1 hour"))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "hours.md").write_text("The museum opens at nine.\n\nOn Mondays the museum is closed.\n")
    (tmp_path / "fish.txt").write_text("Goldfish like cold water. " * 40)
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe museum")
    (tmp_path / "picture.png").write_bytes(b"museum")
    outside = tmp_path.parent / "outside.txt"
    outside.write_text("secret museum")
    (tmp_path / "link.txt").symlink_to(outside)
    return tmp_path


def test_the_search_finds_the_paragraph_that_fits_and_nothing_outside(folder):
    library = read_library(folder)
    assert {paragraph.source for paragraph in library.paragraphs} == {"sub/hours.md", "fish.txt"}
    told = said(backend(library), package_of("when is the museum closed"))
    assert told == "On Mondays the museum is closed. (from sub/hours.md)"
    assert said(backend(library), package_of("museum", "when does it open, opens")).startswith("The museum opens at")
    assert len(said(backend(library), package_of("goldfish"))) < 330
    for nothing in ("xylophone", "the of", "???"):
        with pytest.raises(BackendError, match="nothing found"):
            said(backend(library), package_of(nothing))
    with pytest.raises(BackendError, match="nothing found"):
        said(backend(), package_of("museum"))
    with pytest.raises(ValueError, match="no such folder"):
        read_library(folder / "none")


def test_its_functions_take_whatever_a_model_makes_up(folder):
    tools = LocalTools(read_library(folder), lambda: NOON)
    call = lambda name, **arguments: asyncio.run(tools.call(name, arguments))  # noqa: E731
    assert [tool.name for tool in asyncio.run(tools.list())] == ["calculate", "clock", "search"]
    assert call("calculate", expression="2+2") == "4"
    assert call("calculate", expression=7).startswith("error")
    assert call("calculate").startswith("error")
    assert call("search", query="monday mondays").startswith("On Mondays")
    assert call("search", nonsense=[]) == "nothing found"
    assert call("launch", code="x") == "error: no function launch"
