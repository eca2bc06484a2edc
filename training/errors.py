"""What can go wrong in training, as a tree.

ValueError
└── TrainingError            a mistake the user can repair; the message names value, rule and cure
    ├── DataUnavailable      the files of a data set are not here
    ├── UnreadableData       a file is here but is not what it should be
    ├── InvalidSplit         the rows cannot be divided, or used, as asked
    └── NetworkMismatch      network and data do not fit together

UserWarning
└── DataWarning              data are used, but not as a user may think
"""

from __future__ import annotations

# Told where labels are amounts.
NO_QUANTITIES = (
    "Dubio classifies and does not predict quantities: cut the numbers into ranges, such as low, middle and high, and "
    "give their names."
)


class TrainingError(ValueError):
    """A mistake the user can repair. The command line prints its message and nothing else."""


class DataUnavailable(TrainingError):
    """The files of a data set were not found."""


class UnreadableData(TrainingError):
    """A data file is truncated, has trailing bytes or is of another format."""


class InvalidSplit(TrainingError):
    """The rows cannot be divided as asked, or were trained on and are to be measured."""


class NetworkMismatch(TrainingError):
    """The network does not take the data's shape, or does not give one logit a class."""


class DataWarning(UserWarning):
    """Data are used, but not as a user may think. The command line prints its message on one line."""
