"""Warnings that come with every task are logged once in a while."""

from tml_jax.background.seldom import LONGEST, MOST, Seldom


def test_each_wording_is_logged_once_in_a_while_in_one_line(caplog):
    now = 0.0
    seldom = Seldom(60.0, lambda: now)
    lines = lambda: [record.getMessage() for record in caplog.records]  # noqa: E731
    for _ in range(3):
        seldom.warn("no\n such host")
        seldom.warn("refused")
    assert lines() == ["no such host", "refused"]
    now = 61.0
    seldom.warn("refused")
    assert lines()[2:] == ["refused"]
    seldom.warn("x" * 10_000)
    assert len(lines()[3]) == LONGEST
    for index in range(3 * MOST):
        seldom.warn(f"wording {index}")
    assert len(seldom._said) == MOST
