"""Lightning's Trainer with one more verb: calibrate."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pydantic import ValidationError

from dubio.models import NetworkSpec, Predictor, registry, save
from dubio.models.checkpoint import file, state_dict
from dubio.models.checkpoint.schema import KEY
from dubio.models.spec import describe_validation_error
from dubio.training import calibration, promise
from dubio.training.calibration import CalibrationSettings
from dubio.training.checkpoint_files import read
from dubio.training.classifier import Classifier, check_fit
from dubio.training.data.module import TensorDataModule
from dubio.training.dry_run import dry_run
from dubio.training.errors import TrainingError
from dubio.uncertainty.detection.serialization import load_detector


class Trainer(pl.Trainer):
    """Lightning's Trainer, which can also turn a checkpoint into one that can be served."""

    callbacks: list[pl.Callback]  # set by one of Lightning's connectors, where no type checker sees it

    def calibrate(
        self,
        model: Classifier,
        datamodule: TensorDataModule,
        settings: CalibrationSettings,
        ckpt_path: str | None = None,
        output: str | None = None,
        key_prefix: str | None = None,
    ) -> Predictor:
        """Fits temperature, detector and flag level, and writes a checkpoint that can be served.

        Args:
            model: Says which network the weights belong to; it is left alone.
            datamodule: Gives the train, select and calibration rows.
            settings: What to promise, and with which committee.
            ckpt_path: Checkpoint with the weights, one of Lightning's or any file that `torch.save` wrote of a state
                dict; by default the run's `model.ckpt`.
            output: Where to write; by default the run's `model.ckpt`, replacing the one that is there.
            key_prefix: What stands before the network's names in the checkpoint, such as `backbone.`; by default
                the only one that fits.

        Returns:
            The calibrated predictor, as it was written.

        Raises:
            TrainingError: If a path is missing, or network and data do not fit together.
            ModelError: If the checkpoint cannot be read, or holds the weights of another network.
            UncertaintyError: If the data cannot carry the promise.
        """
        if ckpt_path is None or output is None:
            raise TrainingError(f"Expected `ckpt_path` and `output`, but got {ckpt_path} and {output}.")
        content = read(ckpt_path)
        trained = file.data_record(ckpt_path, content)
        # Of several processes the one that calibrates needs the training rows of all.
        same = datamodule.share.count == 1 and trained is not None and datamodule.is_that_of(trained)
        if trained is not None and datamodule.purpose != "calibrate" and not same:
            datamodule.follow(trained, "calibrate")
        check_fit(model.network, datamodule)
        spec = network_spec(model)
        weights = state_dict.find(ckpt_path, content, model.network, key_prefix)
        # The configuration is the user's own, so the module of the network that it names may be imported.
        network = registry.build(spec, weights, trusted=[type(model.network).__module__])
        fitted = load_detector(content[KEY]["detector"]) if trained is not None and KEY in content else None
        explaining = file.explanation_record(ckpt_path, content) if fitted else None
        predictor = calibration.calibrate(network, spec, datamodule, settings, fitted, explaining)
        # Around weights from elsewhere there is nothing that this classifier could resume from.
        own = key_prefix in (None, file.PREFIX) and is_own(content, model)
        save(predictor, ckpt_path if own else None, output, datamodule.divisions)
        return predictor


def is_own(content: dict[str, Any], model: Classifier) -> bool:
    """Whether a checkpoint is one of this classifier, and not one of another program's."""
    state = content.get("state_dict")
    return isinstance(state, dict) and set(state) == set(model.state_dict())


def check(model: Classifier, data: TensorDataModule, settings: CalibrationSettings) -> None:
    """Finds out before the training what would stop the calibration after it.

    Raises:
        TrainingError: If network and data do not fit together, or the network cannot be described in a file.
        ModelError: If the network cannot be built again.
        UncertaintyError: If a split is too small for the promise or a score, or there is no dropout to sample.
    """
    check_fit(model.network, data)
    promise.require(data, settings.alpha, settings.delta)
    dry_run(model.network, network_spec(model), data, settings)


def network_spec(model: Classifier) -> NetworkSpec:
    """How to build the network again, from the configuration that the command line recorded.

    Raises:
        TrainingError: If there is no such record, or an argument of the network is not plain data.
    """
    network = model.hparams.get("network")
    if network is None:
        raise TrainingError(
            "Expected a classifier that was built by the command line, which records how; for one built in Python "
            "call `dubio.training.calibration.calibrate` with a `NetworkSpec` of your own."
        )
    try:
        return NetworkSpec(
            class_path=registry.class_path(type(model.network)), init_args=dict(network.get("init_args") or {})
        )
    except ValidationError as error:
        raise TrainingError(describe_validation_error(error, "model.init_args.network")) from error
