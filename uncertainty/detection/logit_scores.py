"""Logit scores: what the deterministic logits alone say."""

from __future__ import annotations

import torch
from torch import Tensor

from dubio.uncertainty.detection.outputs import Outputs
from dubio.uncertainty.detection.scores import Score

GEN_POWER = 0.1  # the paper's gamma
GEN_CLASSES = 100  # the paper's M: so many of the most probable classes count


class MaxSoftmax(Score):
    """1 - max_c softmax(logits).

    Source: Hendrycks and Gimpel 2017, turned so that higher is stranger.
    """

    name = "max_softmax"

    def score(self, outputs: Outputs) -> Tensor:
        return 1 - outputs.deterministic.logits_BC.softmax(-1).amax(-1)


class MaxLogit(Score):
    """-max_c logit.

    Source: Hendrycks 2022, turned so that higher is stranger.
    """

    name = "max_logit"

    def score(self, outputs: Outputs) -> Tensor:
        return -outputs.deterministic.logits_BC.amax(-1)


class Energy(Score):
    """Free energy -logsumexp(logits).

    Source: Liu 2020.
    """

    name = "energy"

    def score(self, outputs: Outputs) -> Tensor:
        return -outputs.deterministic.logits_BC.logsumexp(-1)


class GeneralizedEntropy(Score):
    """Sum of (p (1 - p))^0.1 over the 100 most probable classes: an entropy that looks at small probabilities.

    Source: Liu 2023 (GEN).
    """

    name = "gen"

    def score(self, outputs: Outputs) -> Tensor:
        """The generalized entropy, ``[B]`` in float64: in single precision 1 - p of a sure class is 0."""
        logits_BC = outputs.deterministic.logits_BC.double()
        kept = min(GEN_CLASSES, logits_BC.shape[-1])
        # log(1 - p) of the largest p is the logsumexp of the others less that of all.
        log_p_BC = logits_BC.log_softmax(-1)
        log_p_BK, top_BK = log_p_BC.topk(kept, dim=-1)
        others_B = log_p_BC.scatter(-1, top_BK[:, :1], -torch.inf).logsumexp(-1)
        log_rest_BK = torch.cat([others_B.unsqueeze(-1), torch.log1p(-log_p_BK[:, 1:].exp())], dim=-1)
        return (GEN_POWER * (log_p_BK + log_rest_BK)).exp().sum(-1)
