from __future__ import annotations

import pytest
import torch

from models import LockedDropout


def test_a_feature_is_dropped_at_every_step_or_at_none():
    torch.manual_seed(0)
    x = torch.rand(200, 7, 50) + 1
    factors = LockedDropout(0.3).train()(x) / x
    torch.testing.assert_close(factors, factors[:, :1].expand_as(factors))
    kept = factors[:, 0] != 0
    torch.testing.assert_close(factors[:, 0][kept], torch.full((int(kept.sum()),), 1 / 0.7))
    # 10000 draws: the share that is dropped has the standard deviation sqrt(.3 * .7 / 10000) = .0046.
    assert abs(float((~kept).float().mean()) - 0.3) < 4.5 * 0.0046
    assert len({tuple(row) for row in kept.tolist()}) == 200


def test_in_eval_mode_it_does_nothing():
    x = torch.randn(2, 3, 4)
    assert torch.equal(LockedDropout(0.5).eval()(x), x)


def test_a_wrong_rate_is_named():
    with pytest.raises(ValueError, match="`p` to be numbers"):
        LockedDropout(1.5)
    assert str(LockedDropout(0.25)) == "LockedDropout(p=0.25)"
