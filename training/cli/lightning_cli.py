"""Lightning's command line, with a folder for each run and calibration after every fit."""

from __future__ import annotations

import sys
from argparse import ArgumentError
from collections.abc import Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, TypeVar, cast

import torch
from pytorch_lightning.callbacks import ModelCheckpoint, ProgressBar, RichProgressBar
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.trainer.states import TrainerStatus
from rich.console import Console

from dubio import models, training
from dubio.models import load, registry
from dubio.models.checkpoint import file
from dubio.models.checkpoint.data_record import DataRecord
from dubio.training import evaluation, network_sizes, predictions, report
from dubio.training.calibration import CalibrationSettings
from dubio.training.callbacks.averaged_weights import AveragedWeights
from dubio.training.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from dubio.training.callbacks.epoch_lines import EpochLines
from dubio.training.callbacks.monitored_metrics import MonitoredMetrics
from dubio.training.callbacks.resumption import Resumption
from dubio.training.checkpoint_files import CheckpointFiles
from dubio.training.classifier import Classifier
from dubio.training.cli import interruption, monitor, resume
from dubio.training.cli.configs import ConfigFile
from dubio.training.cli.messages import DESCRIPTION, PREDICT, explain, warn
from dubio.training.cli.parser import HelpFormatter, Parser, run_name
from dubio.training.cli.settings import CONFIG, DEFAULTS, OPTIONS
from dubio.training.data import duplicates
from dubio.training.data.division import Purpose
from dubio.training.data.module import TensorDataModule
from dubio.training.errors import TrainingError
from dubio.training.trainer import Trainer, check, data_record, is_own

# A class may be given by its bare name where it was imported.
for _package in (models, training):
    for _name in _package.__all__:
        getattr(_package, _name)

DRAWN_PER_SECOND = 4  # the progress bar


class CLI(LightningCLI):
    """Lightning's command line, with a folder for each run and calibration after every fit."""

    trainer: Trainer
    run_folder: Path
    record: DataRecord | None

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
        try:
            try:
                super().parse_arguments(parser, args)
            except ArgumentError as error:
                self.sizes = network_sizes.required(error)
                if not self.sizes:
                    raise
                # The parser wants a value, which the data then replace.
                blanks = [f"--model.init_args.network.init_args.{name}=1" for name in self.sizes]
                args = [*(sys.argv[1:] if args is None else args), *blanks]
                super().parse_arguments(parser, args)
            command = self.config.subcommand
            monitor.settle(self.config[command], parser.parse_args(args, defaults=False)[command])
        except ArgumentError as error:
            settings = {key for name in self.subcommands() for key, _ in self._parser(name).get_defaults().items()}
            raise TrainingError(explain(error, settings)) from error

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
        self.record = self._record() if self.subcommand != "fit" else None
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
        """The data, which keep to what the checkpoint says of them, if there is one that does."""
        if self.record is not None and data.trained is None:
            data.ids = tuple(self.config[self.subcommand].get("ids", ()))
            data.follow(self.record, cast("Purpose", self.subcommand))
        return data

    def _record(self) -> DataRecord | None:
        """What the checkpoint of this command says about its data."""
        config = self.config[self.subcommand]
        if config.ckpt_path in resume.NAMES:
            config.ckpt_path = str(self.run_folder / "checkpoints" / f"{config.ckpt_path}.ckpt")
        config.ckpt_path = config.ckpt_path or self._existing()
        return data_record(config.ckpt_path, required=self.subcommand != "calibrate")

    def _dump_config(self) -> None:
        """As Lightning's, but a network of which nothing was given has its place for what the data decide."""
        super()._dump_config()
        self.config_dump["model"]["init_args"]["network"].setdefault("init_args", {})

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        settings = self.settings.trainer
        if settings.default_root_dir is None:
            kwargs["default_root_dir"] = str(self.run_folder)
        if settings.logger is None:
            # Testing needs no log, for Lightning prints the result; neither does a trial.
            logs = self.subcommand == "fit" and not settings.fast_dev_run
            kwargs["logger"] = CSVLogger(str(self.run_folder), name="logs") if logs else False
        callbacks = settings.callbacks or []
        callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
        if settings.enable_progress_bar is not False and not any(isinstance(each, ProgressBar) for each in callbacks):
            # Lightning's own draws a hundred times a second, which takes a tenth of a core from the training.
            drawn = Console().is_terminal or Console().is_jupyter
            callbacks = [*callbacks, RichProgressBar(refresh_rate=DRAWN_PER_SECOND) if drawn else EpochLines()]
        if self.subcommand == "fit":
            callbacks = [*callbacks, AveragedWeights(), MonitoredMetrics(), Resumption()]
        kwargs["callbacks"] = callbacks
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
        check(self.model, self.datamodule, self.settings.calibration)
        self.check_callbacks()
        for caveat in (getattr(self.datamodule, "caveat", None), duplicates.told(self.datamodule.division)):
            if caveat is not None and self.trainer.is_global_zero:
                warn(caveat)
        source = self.settings.ckpt_path
        if source and source not in resume.LIGHTNINGS:
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
            super()._run_subcommand(subcommand)
        except (KeyboardInterrupt, SystemExit) as error:
            if interruption.is_interrupt(error) and self.trainer.is_global_zero:
                trained = self.trainer.state.status == TrainerStatus.FINISHED
                told = interruption.go_on(self.run_folder, trained) if subcommand == "fit" else "interrupted"
                print(f"\ndubio-train: {told}", file=sys.stderr)
            raise

    def after_fit(self) -> None:
        """Calibrate the best checkpoint of the fit."""
        if self._keeps_files():
            self.calibrate(self.model, self.datamodule, ckpt_path=self.settings.checkpoint.path(self.trainer))

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
        output = output or str(self.servable)
        source = ckpt_path or self._existing()
        if getattr(datamodule, "scale", None) is None and not is_own(file.read_content(source), model):
            # The wrong scale breaks nothing that a program could see; the measured accuracy shows it.
            print(
                "dubio-train: note: the weights come from elsewhere; inputs are normalised by mean and std of the "
                "training rows. If the network was trained otherwise, set `data.init_args.mean` and "
                "`data.init_args.std` as it was.",
                file=sys.stderr,
            )
        predictor = self.trainer.calibrate(model, datamodule, self.settings.calibration, source, output, key_prefix)
        measured = evaluation.evaluate(predictor, datamodule)
        console = Console()
        console.print(evaluation.table(predictor, measured, Path(output)))
        self._print_classes(measured.by_class)
        # Outside the table and not wrapped, so that it can be copied.
        spec = predictor.network_spec
        trust = "" if spec.class_path in registry.NETWORKS else f"--trusted {spec.class_path.rpartition('.')[0]} "
        console.print(f"next: dubio-serve {trust}{output}", soft_wrap=True, highlight=False)

    def after_test(self) -> None:
        """Say what Lightning's average over all rows hides."""
        if self.trainer.is_global_zero and self.model.tested is not None:
            self._print_classes(self.model.tested)

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
        # The configuration is the user's own, so the module of the network that it names may be imported.
        device = str(self.trainer.strategy.root_device)
        predictor = load(self.settings.ckpt_path, device=device, trusted=[type(model.network).__module__])
        frame, path = predictions.predict(predictor, datamodule), self._predictions()
        predictions.write(frame, path)
        print(f"{len(frame)} predictions: {path}")

    def _predictions(self) -> Path:
        """The file that predictions are written to."""
        return Path(self.settings.output or self.run_folder / "predictions.csv")

    def _print_classes(self, figures: report.ClassFigures) -> None:
        classes = self.datamodule.classes
        Console().print(report.class_table(figures, classes))
        warning = report.never_predicted(figures, classes)
        if warning is not None:
            warn(warning)

    def _keeps_files(self) -> bool:
        """Whether this is the process that writes, and no trial of a few batches."""
        return self.trainer.is_global_zero and not self.settings.trainer.fast_dev_run

    def _existing(self) -> str:
        if not self.servable.is_file():
            raise TrainingError(
                f"Expected `--ckpt_path`, or a trained model at {self.servable}, but there is none; "
                "run `dubio-train fit` with the same configuration first."
            )
        return str(self.servable)

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs: dict[str, Any] = super()._prepare_subcommand_kwargs(subcommand)
        if subcommand == "fit" and kwargs["ckpt_path"]:
            kwargs["ckpt_path"] = resume.find(kwargs["ckpt_path"], self.trainer)
        return kwargs


Command = TypeVar("Command", bound=CLI)

# Errors are told by `main`; half a name is a mistake, which may otherwise train something else for hours.
_STRICT = {"exit_on_error": False, "allow_abbrev": False}


def _only(cli: type[Command], args: Sequence[str]) -> type[Command]:
    """Without the commands that were not asked for: each has a parser of hundreds of settings to build."""
    wanted = args[0] if args else ""
    skipped = cli.subcommands().get(wanted)
    if skipped is None:
        return cli
    return type(cli.__name__, (cli,), {"subcommands": staticmethod(lambda: {wanted: skipped})})


def run(cli: type[Command], args: list[str] | None = None) -> Command:
    """Parse a command line and do what it asks for.

    Args:
        cli: Which kind of command line.
        args: What was asked for; by default what the process was given.

    Returns:
        The command line, when it has done that.
    """
    cli = _only(cli, sys.argv[1:] if args is None else args)
    # Each a dict of its own: Lightning writes into them.
    kwargs: dict[str, dict[str, Any]] = {subcommand: dict(_STRICT) for subcommand in cli.subcommands()}
    if "predict" in kwargs:
        kwargs["predict"]["description"] = PREDICT
    with interruption.in_status():
        return cli(
            Classifier,
            TensorDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            trainer_class=Trainer,
            trainer_defaults={"callbacks": [LastCheckpoint()]},
            seed_everything_default=0,
            save_config_callback=None,  # written by `before_fit`, into the run's folder
            auto_configure_optimizers=False,
            parser_kwargs={
                "prog": "dubio-train",
                "description": DESCRIPTION,
                "formatter_class": HelpFormatter,
                **_STRICT,
                **kwargs,
            },
            args=args,
        )
