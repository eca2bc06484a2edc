"""The registry: every score by its name."""

from __future__ import annotations

from dubio.uncertainty.detection.block_scores import BlockMahalanobis
from dubio.uncertainty.detection.density import FeatureDensity
from dubio.uncertainty.detection.head_scores import BoundaryDistance, FeatureNorm, RectifiedActivations
from dubio.uncertainty.detection.knn import NearestNeighbourGuidance, NearestNeighbours
from dubio.uncertainty.detection.logit_scores import Energy, GeneralizedEntropy, MaxLogit, MaxSoftmax
from dubio.uncertainty.detection.mahalanobis import (
    InputClassMahalanobis,
    InputMahalanobis,
    Mahalanobis,
    RelativeMahalanobis,
    UnitMahalanobis,
    UnitRelativeMahalanobis,
)
from dubio.uncertainty.detection.member_scores import (
    ExpectedEntropy,
    LogitDisagreement,
    MutualInformation,
    PredictedStd,
    PredictiveEntropy,
    VariationRatio,
)
from dubio.uncertainty.detection.residual import OrthogonalResidual, VirtualLogit
from dubio.uncertainty.detection.scores import Score

SCORES: dict[str, type[Score]] = {
    score.name: score
    for score in (
        MutualInformation,
        PredictiveEntropy,
        ExpectedEntropy,
        PredictedStd,
        VariationRatio,
        LogitDisagreement,
        MaxSoftmax,
        MaxLogit,
        Energy,
        GeneralizedEntropy,
        NearestNeighbours,
        NearestNeighbourGuidance,
        Mahalanobis,
        UnitMahalanobis,
        RelativeMahalanobis,
        UnitRelativeMahalanobis,
        FeatureDensity,
        VirtualLogit,
        OrthogonalResidual,
        BoundaryDistance,
        RectifiedActivations,
        FeatureNorm,
        InputClassMahalanobis,
        BlockMahalanobis,
        InputMahalanobis,
    )
}
