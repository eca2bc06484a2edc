"""Lightning's command line, with a folder for each run and calibration after every fit."""

from __future__ import annotations

import sys
from argparse import ArgumentError
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, cast

import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.trainer.states import TrainerStatus
from rich.console import Console

from dubio.models import Predictor, load
from dubio.models.checkpoint import file, schema
from dubio.models.checkpoint.data_record import DataRecord
from dubio.training import evaluation, kept_figures, network_sizes, predictions
from dubio.training.calibration import CalibrationSettings
from dubio.training.callbacks.averaged_weights import AveragedWeights
from dubio.training.callbacks.checkpoints import BestCheckpoint
from dubio.training.checkpoint_files import CheckpointFiles, read
from dubio.training.classifier import Classifier
from dubio.training.cli import (
    artifacts,
    bare_names,
    data_summary,
    first_checkpoint,
    fit_settings,
    interruption,
    monitor,
    processes,
    resume,
    summary,
    trainer_defaults,
)
from dubio.training.cli.configs import ConfigFile
from dubio.training.cli.messages import explain, note
from dubio.training.cli.parser import Parser, run_name
from dubio.training.cli.settings import CONFIG, DEFAULTS, OPTIONS
from dubio.training.data.module import TensorDataModule
from dubio.training.errors import TrainingError
from dubio.training.splits.division import Purpose
from dubio.training.splits.shares import Share
from dubio.training.trainer import Trainer, check, is_own
from dubio.uncertainty.precision import refuse_tf32


class CLI(LightningCLI):
    """Lightning's command line, with a folder for each run and calibration after every fit."""

    trainer: Trainer
    run_folder: Path
    record: DataRecord | None
    share: Share

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        own = {
            "calibrate": {"model", "datamodule", "settings"},
            "predict": {"return_predictions", "ckpt_path", "weights_only"},
        }
        inherited = LightningCLI.subcommands()
        return {**inherited, **{name: inherited.get(name, set()) | skipped for name, skipped in own.items()}}

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser: LightningArgumentParser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand == "predict":
            parser.add_class_arguments(predictions.PredictionSettings)
        return parser

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """As Lightning's, but a configuration may be given by its name."""
        parser = Parser(**kwargs)
        parser.add_argument("-c", "--config", action=ConfigFile, help=CONFIG)
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """As Lightning's, but a mistake is told with what was probably meant, and each monitored metric gets its mode.

        Raises:
            TrainingError: The arguments are wrong.
        """
        self.sizes: list[str] = []
        self._known: dict[str, tuple[DataRecord | None, bool]] = {}
        args = self._as_at_the_fit(list(sys.argv[1:] if args is None else args))
        bare_names.import_named(args[1:])
        try:
            try:
                super().parse_arguments(parser, args)
            except ArgumentError as error:
                self.sizes = network_sizes.required(error)
                if not self.sizes:
                    raise
                # The parser wants a value, which the data then replace.
                blanks = [f"--model.init_args.network.init_args.{name}=1" for name in self.sizes]
                args = [*args, *blanks]
                super().parse_arguments(parser, args)
            command = self.config.subcommand
            monitor.settle(self.config[command], parser.parse_args(args, defaults=False)[command])
        except ArgumentError as error:
            settings = {key for name in self.subcommands() for key, _ in self._parser(name).get_defaults().items()}
            raise TrainingError(explain(error, settings)) from error

    def _as_at_the_fit(self, args: list[str]) -> list[str]:
        """With the data settings of the checkpoint that the command begins with."""
        command, rest = args[:1], args[1:]
        if command == ["fit"] or not {*command} <= {*self.subcommands()}:
            return args
        path = first_checkpoint.find(rest)
        record = self._read(str(path))[0] if path is not None and path.is_file() else None
        return args if record is None or path is None else [*command, *fit_settings.complete(rest, record, path)]

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for name, option in OPTIONS.items():
            parser.add_argument(f"--{name}", type=option.type, default=option.default, help=option.help)
        parser.add_lightning_class_args(BestCheckpoint, "checkpoint")
        parser.set_defaults(DEFAULTS)
        parser.add_class_arguments(CalibrationSettings, "calibration")

    def _parse_ckpt_path(self) -> None:
        """Leaves the configuration as the user wrote it.

        Lightning would overrule it with the hyperparameters inside the checkpoint, and build whatever classes
        that file names.
        """

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        config.name = run_name(config)
        if config.name is None:
            raise TrainingError("Expected a name for the run, but got none; give `--name` or `--config`.")
        if Path(config.name).name != config.name or config.name in {"", ".", ".."}:
            raise TrainingError(f"Expected `name` to be a plain folder name, but got {config.name!r}.")
        self.run_folder = Path(config.runs) / config.name
        fits = self.subcommand == "fit"
        self.record = None if fits else self._record()
        self.share = processes.share(config.trainer) if fits else Share()
        network = config.model.init_args.network
        given = {key: value for key, value in (network.get("init_args") or {}).items() if key not in self.sizes}
        for name, default in network_sizes.left_out(resolve_name(network.class_path), given).items():
            self._parser(self.subcommand).link_arguments(
                "data",
                f"model.init_args.network.init_args.{name}",
                lambda data, name=name, default=default: network_sizes.of(name, default, self.follow(data)),
                apply_on="instantiate",
            )
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        if torch.cuda.is_available():
            torch.set_float32_matmul_precision("high")

    def instantiate_classes(self) -> None:
        super().instantiate_classes()
        self.follow(self.datamodule)

    def follow(self, data: TensorDataModule) -> TensorDataModule:
        """The data, which keep to what the checkpoint says of them, if there is one, and to this process's share."""
        if self.share.count > 1 and data.share.count == 1 and data.undivided is None:
            data.share = self.share
        if self.record is not None and data.trained is None:
            data.ids = tuple(self.config[self.subcommand].get("ids", ()))
            data.follow(self.record, cast("Purpose", self.subcommand))
        return data

    def _record(self) -> DataRecord | None:
        """What the checkpoint of this command says about its data."""
        config = self.config[self.subcommand]
        if config.ckpt_path in first_checkpoint.NAMES:
            config.ckpt_path = str(self.run_folder / "checkpoints" / f"{config.ckpt_path}.ckpt")
        config.ckpt_path = config.ckpt_path or self._existing()
        record, _ = self._read(config.ckpt_path)
        if record is None and self.subcommand != "calibrate":
            raise TrainingError(
                f"{config.ckpt_path}: expected to read which rows it was trained on, but it does not say, for it comes "
                "from elsewhere; calibrate it first (`dubio-train calibrate`), and use what that writes."
            )
        return record

    def _read(self, path: str) -> tuple[DataRecord | None, bool]:
        """What a checkpoint says about its data, and whether it is calibrated; read once."""
        if path not in self._known:
            content = read(path)
            self._known[path] = file.data_record(path, content), schema.KEY in content
        return self._known[path]

    def _dump_config(self) -> None:
        """As Lightning's, but a network of which nothing was given has its place for what the data decide."""
        super()._dump_config()
        self.config_dump["model"]["init_args"]["network"].setdefault("init_args", {})

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        kwargs |= trainer_defaults.of(self.settings.trainer, str(self.subcommand), self.run_folder)
        trainer = cast("Trainer", super().instantiate_trainer(**kwargs))
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                callback.dirpath = str(self.run_folder / "checkpoints")
        trainer.strategy.checkpoint_io = CheckpointFiles.of(trainer)
        return trainer

    @property
    def settings(self) -> Any:
        """What the command was given, with classes as objects: `settings.calibration.alpha`."""
        return self.config_init[self.subcommand]

    @property
    def servable(self) -> Path:
        """The checkpoint that the service takes."""
        return self.run_folder / "model.ckpt"

    def before_fit(self) -> None:
        """Find what would stop the calibration after the training, and keep the configuration.

        Raises:
            TrainingError: The fit could not be calibrated.
        """
        if self.trainer.is_global_zero:
            data_summary.show(self.datamodule)
            if self.share.count > 1 and self.datamodule.undivided is not None:
                note(f"each of {self.share.count} processes reads every training row: {self.datamodule.undivided}.")
            check(self.model, self.datamodule, self.settings.calibration)
        self.check_callbacks()
        if self.trainer.is_global_zero:
            summary.say_caveats(self.datamodule, self.settings.calibration)
        source = self.settings.ckpt_path
        if source and source not in first_checkpoint.LIGHTNINGS:
            resume.check(resume.find(source, self.trainer), self.trainer, self.model)
        if not self._keeps_files():
            return
        config = self.config[self.subcommand].clone()
        for key in ("config", "ckpt_path", "weights_only"):  # of this call, not of the run
            config.pop(key, None)
        if self.servable.is_file():
            Console(stderr=True).print(
                f"{self.servable} is there already; it is replaced after the fit", soft_wrap=True
            )
        self.run_folder.mkdir(parents=True, exist_ok=True)
        self._parser(self.subcommand).save(
            config, str(self.run_folder / "config.yaml"), skip_none=False, overwrite=True, multifile=False
        )

    def check_callbacks(self) -> None:
        """Refuse a fit that would leave nothing to serve, or other weights than were asked for."""
        for callback in self.trainer.callbacks:
            if isinstance(callback, (AveragedWeights, BestCheckpoint)):
                callback.check(self.trainer, self.model)

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            with processes.one_for_all(self.share.count):
                super()._run_subcommand(subcommand)
        except (KeyboardInterrupt, SystemExit) as error:
            if interruption.is_interrupt(error) and self.trainer.is_global_zero:
                trained = self.trainer.state.status == TrainerStatus.FINISHED
                told = interruption.go_on(self.run_folder, trained) if subcommand == "fit" else "interrupted"
                print(f"\ndubio-train: {told}", file=sys.stderr)
            raise

    def after_fit(self) -> None:
        """Calibrate the best checkpoint of the fit, in one process."""
        if not self.settings.trainer.fast_dev_run:
            processes.alone(self._finish, self.trainer.global_rank)

    def _finish(self) -> None:
        self.calibrate(self.model, self.datamodule, ckpt_path=self.settings.checkpoint.path(self.trainer))

    def before_calibrate(self) -> None:
        """Say what the network sees of other rows than those of the fit."""
        self.datamodule.load()
        known = self.record is not None and self.datamodule.is_that_of(self.record)
        if self.trainer.is_global_zero and not known:
            data_summary.show(self.datamodule)

    def calibrate(
        self,
        model: Classifier,
        datamodule: TensorDataModule,
        ckpt_path: str | None = None,
        output: str | None = None,
        key_prefix: str | None = None,
    ) -> None:
        """Calibrate, write, measure on the test split, and say what came out.

        Args:
            model: The network as configured; its weights are read from the checkpoint.
            datamodule: Gives the rows to calibrate on.
            ckpt_path: Checkpoint or file of weights; by default the run's own.
            output: File to write; by default the run's own.
            key_prefix: What stands before the names of the network's weights; by default it is looked for.
        """
        if self.subcommand == "calibrate":  # a fit has said so before the training
            summary.say_caveats(datamodule, self.settings.calibration)
        output = output or str(self.servable)
        source = ckpt_path or self._existing()
        foreign = self.subcommand == "calibrate" and not is_own(read(source), model)
        if foreign and getattr(datamodule, "scale", None) is None:
            # The wrong scale breaks nothing that a program could see; the measured accuracy shows it.
            note(
                "the weights come from elsewhere; inputs are normalised by mean and std of the training rows. If the "
                "network was trained otherwise, set `data.init_args.mean` and `data.init_args.std` as it was."
            )
        predictor = self.trainer.calibrate(model, datamodule, self.settings.calibration, source, output, key_prefix)
        measured = kept_figures.measure(predictor, datamodule, Path(output))
        summary.show(measured, datamodule, Path(output), predictor)
        if self.subcommand == "fit":
            artifacts.keep(self.trainer, self.model, datamodule, self.config["fit"], measured, self.servable)
        summary.say_next(predictor, datamodule, Path(output), self.run_folder)

    def after_test(self) -> None:
        """Say what Lightning's averages hide, and whether the promise was kept."""
        if not self.trainer.is_global_zero:
            return
        path = self.settings.ckpt_path
        predictor = self._predictor() if self._read(path)[1] else None
        if predictor is None:
            measured = evaluation.evaluate_uncalibrated(self.model.network.eval().cpu(), self.datamodule)
        else:
            measured = evaluation.evaluate(predictor, self.datamodule, before=True)
        summary.show(measured, self.datamodule, Path(path), predictor)

    def before_predict(self) -> None:
        predictions.check_path(self._predictions())

    def predict(self, model: Classifier, datamodule: TensorDataModule) -> None:
        """Answer every row of the source as the service would, and write a table.

        Args:
            model: The network as configured; the one that answers is built by the checkpoint.
            datamodule: Gives the rows, which need no labels.
        """
        if not self.trainer.is_global_zero:
            return
        frame, path = predictions.predict(self._predictor(), datamodule), self._predictions()
        predictions.write(frame, path)
        print(f"{len(frame)} predictions: {path}")

    def _predictions(self) -> Path:
        """The file that predictions are written to."""
        return Path(self.settings.output or self.run_folder / "predictions.csv")

    def _predictor(self) -> Predictor:
        """That of the command's checkpoint, as the service loads it."""
        # The configuration is the user's own, so the module of the network that it names may be imported.
        refuse_tf32()  # which this command line allows in training
        device = str(self.trainer.strategy.root_device)
        return load(self.settings.ckpt_path, device=device, trusted=[type(self.model.network).__module__])

    def _keeps_files(self) -> bool:
        """Whether this is the process that writes, and no trial of a few batches."""
        return self.trainer.is_global_zero and not self.settings.trainer.fast_dev_run

    def _existing(self) -> str:
        if not self.servable.is_file():
            raise TrainingError(first_checkpoint.missing(self.servable))
        return str(self.servable)

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs: dict[str, Any] = super()._prepare_subcommand_kwargs(subcommand)
        if subcommand == "fit" and kwargs["ckpt_path"]:
            kwargs["ckpt_path"] = resume.find(kwargs["ckpt_path"], self.trainer)
        return kwargs
