"""Member scores: how the members' answers are spread."""

from __future__ import annotations

import torch
from torch import Tensor

from dubio.uncertainty.detection.measures import single
from dubio.uncertainty.detection.outputs import Outputs
from dubio.uncertainty.detection.scores import Score


class MemberScore(Score):
    """A score that looks at the members' answers, and at nothing else."""

    asks_members = True


class MutualInformation(MemberScore):
    """The members' disagreement in nats, see `dubio.uncertainty.detection.measures.Summary`."""

    name = "mutual_information"

    def score(self, outputs: Outputs) -> Tensor:
        return outputs.summary.mutual_information_B


class PredictiveEntropy(MemberScore):
    """The total uncertainty in nats, see `dubio.uncertainty.detection.measures.Summary`."""

    name = "predictive_entropy"

    def score(self, outputs: Outputs) -> Tensor:
        return outputs.summary.predictive_entropy_B


class ExpectedEntropy(MemberScore):
    """How unsure the members are, each by itself, in nats; see `dubio.uncertainty.detection.measures.Summary`."""

    name = "expected_entropy"

    def score(self, outputs: Outputs) -> Tensor:
        return outputs.summary.expected_entropy_B


class PredictedStd(MemberScore):
    """The standard deviation, over the members, of the probability of the class with the largest mean (divisor K)."""

    name = "predicted_std"

    def score(self, outputs: Outputs) -> Tensor:
        predicted_B1 = outputs.summary.mean_BC.argmax(-1, keepdim=True)
        return outputs.summary.std_BC.gather(-1, predicted_B1).squeeze(-1)


class VariationRatio(MemberScore):
    """The share of members that predict another class than most do; only K values occur, so inputs tie.

    Source: Freeman 1965.
    """

    name = "variation_ratio"

    def score(self, outputs: Outputs) -> Tensor:
        members, _, classes = outputs.probs_KBC.shape
        votes_BC = torch.nn.functional.one_hot(outputs.probs_KBC.argmax(-1), classes).sum(0)
        return 1 - votes_BC.amax(-1).double() / members


class LogitDisagreement(MemberScore):
    """1 - (sum_k w_k)^2 / (K sum_k w_k^2): over how few members the weights w_k = max_c logit_kc - min_c logit_kc lie.

    The paper weighs the members by their largest logits. What softmax leaves of logits are their differences, and it is
    these that count here: the score is the same for the logits and for the probabilities, whatever the temperature. A
    logit so far below the largest that its probability is 0 in single precision counts as if it were not.

    Source: after Raina 2025, and Daxberger and Hernandez-Lobato 2019.
    """

    name = "logit_disagreement"

    def score(self, outputs: Outputs) -> Tensor:
        """The disagreement, ``[B]`` in float64, in [0, 1)."""
        probs_KBC = single(outputs.probs_KBC)
        logs_KBC = probs_KBC.clamp(min=torch.finfo(torch.float32).tiny).double().log()
        weights_KB = logs_KBC.amax(-1) - logs_KBC.amin(-1)
        squares_B = weights_KB.square().sum(0)
        effective_B = weights_KB.sum(0).square() / (len(weights_KB) * squares_B)
        # Members that all say that all classes are alike do not disagree.
        return torch.where(squares_B > 0, 1 - effective_B, 0.0).clamp(min=0)
