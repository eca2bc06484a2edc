"""Choices as text: what is printed is read again."""

from __future__ import annotations

import pytest

from dubio.uncertainty.execution.choice import NAMES, Choice

SEVERAL = Choice(("chain", "thinned", "chain"), (1, 64))


def test_a_batch_takes_the_first_strategy_whose_limit_it_keeps():
    assert [SEVERAL[rows] for rows in (1, 2, 64, 65, 10**9)] == ["chain", "thinned", "thinned", "chain", "chain"]


FEW = Choice(("chain", "thinned"), (31,), Choice(("chain",)), 38)


def test_a_few_members_take_their_own_choice():
    assert [FEW.strategy(rows, members) for rows, members in ((31, 100), (32, 100), (32, 39), (32, 38), (1, 1))] == [
        "chain",
        "thinned",
        "thinned",
        "chain",
        "chain",
    ]
    assert SEVERAL.strategy(2, 1) == "thinned"
    assert FEW.all_names == ("chain", "thinned")
    assert Choice(("thinned",), (), Choice(("chain",)), 9).all_names == ("thinned", "chain")


def test_what_is_printed_is_read_again():
    assert str(SEVERAL) == "chain up to 1 row, thinned up to 64 rows, chain"
    assert str(FEW) == "chain up to 31 rows, thinned (up to 38 members: chain)"
    few = Choice(("thinned",), (), Choice(("chain", "thinned"), (7,)), 20)
    for choice in (SEVERAL, FEW, few, *(Choice((name,)) for name in NAMES)):
        assert Choice.parse(str(choice)) == choice


def test_sizes_that_agree_are_one():
    chosen = Choice.of(["fold", "fold", "vmap", "vmap", "fold"], [1, 4, 16, 17, 64])
    assert chosen == Choice(("fold", "vmap", "fold"), (4, 17))
    assert Choice.parse("fold up to 3 rows, fold") == Choice(("fold",))
    assert Choice.parse("fold (up to 9 members: fold)") == Choice(("fold",))


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "fastest",
            "chain up to 4 rows",
            "chain, thinned",
            "chain up to 0 rows, thinned",
            "chain up to -4 rows, fold",
        ),
        *("chain up to 9 rows, fold up to 9 rows, loop", "chain up to 9 rows, fold up to 4 rows, loop", "chain,fold"),
        "chain up to 99999999999 rows, fold",
        "chain (up to 0 members: fold)",
        "chain (up to 9 members)",
        "chain (up to 9 members: fastest)",
        "fastest (up to 9 members: chain)",
        "chain (up to 9 members: fold (up to 4 members: loop))",
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match="expected one of chain"):
        Choice.parse(text)
