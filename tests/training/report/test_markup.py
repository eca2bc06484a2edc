from __future__ import annotations

from dubio.training.report import markup


def test_what_is_in_a_table_is_text():
    told = markup.table(["<b>"], [["a & b"]])
    assert "<th>&lt;b&gt;</th>" in told
    assert "<td>a &amp; b</td>" in told
    assert markup.table(["name"], []) == ""


def test_intervals_are_not_broken_into_lines():
    interval = markup.interval({"value": 0.5, "low": 0.25, "high": 0.75}, percent=True)
    assert interval == "50.00% (25.00% to 75.00%)"
    space = "\N{NO-BREAK SPACE}"
    assert f"<td>50.00% (25.00%{space}to{space}75.00%)</td>" in markup.table([""], [[interval]])


def test_many_names_are_counted():
    assert markup.some(map(str, range(14))) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 2 more"


def test_a_verdict_is_a_word_too():
    assert ">Kept<" in markup.verdict(True)
    assert ">Not kept<" in markup.verdict(False)
