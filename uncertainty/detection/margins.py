"""Margins: how sure the first members of a committee already are of the label that all of them will give."""

from __future__ import annotations

import torch
from torch import Tensor


def clearance(probs_KBC: Tensor, committee: int) -> Tensor:
    """How many standard errors the most probable class leads by, ``[B]``; infinity where it cannot be overtaken.

    The members of a committee are finitely many, and k of them are known. The mean lead over another class among all
    then differs from that among the known ones with standard error s sqrt((1 - k / K) / k), where s is the standard
    deviation of the lead with divisor k - 1 (Cochran 1977, section 2.6). The class with the smallest ratio counts.

    No lead changes by more than 1 from member to member. So a lead whose sum over the known members is larger than
    the number of the others is final, whatever they say.

    Args:
        probs_KBC: of the first k members, at least two.
        committee: K, the number of all members.
    """
    known = len(probs_KBC)
    mean_BC = probs_KBC.mean(0)
    top_B1 = mean_BC.argmax(-1, keepdim=True)
    lead_BC = mean_BC.gather(-1, top_B1) - mean_BC
    leads_KBC = probs_KBC.gather(-1, top_B1.expand(known, -1, -1)) - probs_KBC
    variance_BC = (leads_KBC - lead_BC).square().sum(0) / (known - 1)
    error_BC = (variance_BC * (1 - known / committee) / known).sqrt()
    # Members that agree to the last bit leave no doubt, unless what they agree on is a tie.
    ratio_BC = torch.where(lead_BC > 0, lead_BC / error_BC, 0.0)
    final_BC = known * lead_BC > committee - known
    ratio_BC = ratio_BC.masked_fill(final_BC, torch.inf).scatter(-1, top_B1, torch.inf)
    return ratio_BC.amin(-1)
