"""What can go wrong in the uncertainty engine, as one family.

UncertaintyError (ValueError)
|- NetworkInTrainingMode      the network was handed over in train mode
|- NoDropoutFound             nothing to sample: no site, or members that do not vary
|- UnsupportedSite            dropout that cannot be sampled faithfully
|- UnsupportedNetwork         logits of a wrong shape, or a strategy was asked for that does not run the network
|- StrategyNotApplicable      a strategy cannot run this kind of network; others can, and the report says why
|- NoFeatures                 the network does not end in a linear layer whose input could be read
|- CalibrationSetTooSmall     fewer calibration scores than the promise needs
|- NotFitted                  a score or a detector was used before it was fitted
"""

from __future__ import annotations


class UncertaintyError(ValueError):
    """Base class of everything this package raises on purpose."""


class NetworkInTrainingMode(UncertaintyError):
    """The network, or a module inside it, is in train mode."""


class NoDropoutFound(UncertaintyError):
    """There is nothing to sample: no dropout site, or the members' answers do not vary."""


class UnsupportedSite(UncertaintyError):
    """A dropout site that cannot be sampled faithfully."""


class UnsupportedNetwork(UncertaintyError):
    """The network breaks a rule that every member relies on."""


class StrategyNotApplicable(UncertaintyError):
    """A strategy does not apply to this kind of network."""


class NoFeatures(UncertaintyError):
    """The network offers no penultimate features."""


class CalibrationSetTooSmall(UncertaintyError):
    """The calibration set cannot carry the promised false-alarm rate."""


class NotFitted(UncertaintyError):
    """A score was asked for before it was fitted."""
