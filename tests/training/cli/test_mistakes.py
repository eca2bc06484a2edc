from __future__ import annotations

from training.cli.mistakes import one_line

# As jsonargparse 4.53 words them.
WRONG_RATES = """Does not validate against any of the Union subtypes
Subtypes: [<class 'training.classifier.Classifier'>, <class 'NoneType'>]
Errors:
  - Expected `rates` to have one rate for each of 3 layers, but got [0.5].
  - Expected a <class 'NoneType'>
Given value type: <class 'jsonargparse._namespace.Namespace'>
Given value: Namespace(class_path='training.Classifier', init_args=Namespace())"""

WRONG_NUMBER = """Parser key "trainer.max_epochs":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'int'>, <class 'NoneType'>]
  Errors:
    - Expected a <class 'int'>
    - Expected a <class 'NoneType'>
  Given value type: <class 'str'>
  Given value: two"""


def test_only_the_fact_is_left():
    assert one_line(ValueError(WRONG_RATES)) == "Expected `rates` to have one rate for each of 3 layers, but got [0.5]."


def test_key_and_value_stay():
    expected = "Parser key \"trainer.max_epochs\": Expected a <class 'int'> Given value: two"
    assert one_line(ValueError(WRONG_NUMBER)) == expected


def test_a_message_of_our_own_stays_as_it_is():
    message = "Expected `alpha` to be a number in (0, 1), but got 2."
    assert one_line(ValueError(message)) == message


def test_an_error_without_a_message_is_named():
    assert one_line(KeyError()) == "KeyError"
    assert one_line(TimeoutError("")) == "TimeoutError"
