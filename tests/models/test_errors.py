from __future__ import annotations

from pathlib import Path

from dubio.models.errors import UnreadableCheckpoint, did_you_mean, nearest


def test_an_unreadable_checkpoint_names_the_file_and_why():
    error = UnreadableCheckpoint(Path("runs/a.ckpt"), "is empty.")
    assert str(error) == "runs/a.ckpt: is empty."
    assert (error.path, error.reason) == ("runs/a.ckpt", "is empty.")


def test_the_nearest_name_is_told_as_it_is_written_there():
    assert nearest("TEMPRATURE", ["Pressure", "Temperature"]) == "Temperature"
    assert did_you_mean("samples_", ["sample", "samples"], "no.") == "did you mean `samples`?"


def test_where_no_name_is_near_the_choices_are_the_callers_to_tell():
    assert nearest("zebra", ["one", "two"]) is None
    assert nearest("zebra", []) is None
    assert did_you_mean("zebra", ["one", "two"], "known: one, two.") == "known: one, two."


def test_likeness_is_the_callers_to_demand():
    assert nearest("abcd", ["abxy"], cutoff=0.5) == "abxy"
    assert nearest("abcd", ["abxy"], cutoff=0.51) is None


def test_a_name_of_a_megabyte_costs_no_more_than_a_long_one():
    # What lies beyond the hundredth letter is not looked at.
    assert nearest("a" * 100 + "b" * 1_000_000, ["a" * 100]) == "a" * 100


def test_no_message_commands_the_terminal_that_shows_it():
    error = UnreadableCheckpoint("a\x1b[2J.ckpt", "has `\x1b]0;owned\x07`,\r\u202eand `Zürich`.")
    assert str(error) == "a\\x1b[2J.ckpt: has `\\x1b]0;owned\\x07`,\\r\\u202eand `Zürich`."
    assert error.reason == "has `\\x1b]0;owned\\x07`,\\r\\u202eand `Zürich`."
