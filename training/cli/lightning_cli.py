"""Lightning's command line, with a folder for each run and calibration after every fit."""

from __future__ import annotations

import csv
import math
import os
import sys
from argparse import Action, ArgumentError, RawDescriptionHelpFormatter, _SubParsersAction
from collections.abc import Callable, Generator, Sequence
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, TypeVar, cast

import torch
from jsonargparse import DefaultHelpFormatter, Namespace
from pytorch_lightning.callbacks import ModelCheckpoint, ProgressBar, RichProgressBar, WeightAveraging
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.trainer.states import TrainerStatus
from rich.console import Console

from dubio import models, training
from dubio.models import registry
from dubio.models.checkpoint.file import read_content
from dubio.training import evaluation, network_sizes
from dubio.training.calibration import CalibrationSettings
from dubio.training.classifier import Classifier
from dubio.training.cli import interruption, loggers
from dubio.training.cli.configs import ConfigFile
from dubio.training.cli.messages import COMMANDS, DESCRIPTION, explain
from dubio.training.cli.settings import CONFIG, DEFAULTS, OPTIONS, VERBS
from dubio.training.data.module import TensorDataModule
from dubio.training.errors import TrainingError
from dubio.training.trainer import Trainer, check, is_own

# A class may be given by its bare name where it was imported.
for _package in (models, training):
    for _name in _package.__all__:
        getattr(_package, _name)

DRAWN_PER_SECOND = 4  # the progress bar

# Checkpoints that Lightning finds by itself.
LIGHTNINGS_OWN = ("best", "last", "hpc", "registry")


class _HelpFormatter(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Leaves the lines of the description as they are, and lists the commands that are not Lightning's too."""

    def _iter_indented_subactions(self, action: Action) -> Generator[Action, None, None]:
        yield from super()._iter_indented_subactions(action)
        if isinstance(action, _SubParsersAction):
            self._indent()
            yield from (Action([], name, help=told, metavar=name) for name, told in COMMANDS.items())
            self._dedent()

    def _metavar_formatter(self, action: Action, default_metavar: str) -> Callable[[int], tuple[str, ...]]:
        if isinstance(action, _SubParsersAction) and action.metavar is None:
            return lambda size: (f"{{{','.join([*action.choices, *COMMANDS])}}}",) * size
        return super()._metavar_formatter(action, default_metavar)


class _Parser(LightningArgumentParser):
    """Lightning's, but loggers that need a folder are not told that they lack it."""

    def validate(self, namespace: Namespace, *args: Any, **kwargs: Any) -> None:
        for config in (namespace, *(namespace.get(verb) for verb in VERBS)):
            if isinstance(config, Namespace) and isinstance(config.get("trainer"), Namespace):
                loggers.complete(config.trainer, str(Path(config.get("runs", "runs")) / (_run_name(config) or "")))
        super().validate(namespace, *args, **kwargs)


def _run_name(config: Namespace) -> str | None:
    """The name of the run: as it was given, or that of the first file."""
    files = [os.fspath(path) for path in config.get("config") or [] if path is not None]
    return config.get("name") or (Path(files[0]).stem if files else None)


class CLI(LightningCLI):
    """Lightning's command line, with a folder for each run and calibration after every fit."""

    trainer: Trainer
    run_folder: Path

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        return {**LightningCLI.subcommands(), "calibrate": {"model", "datamodule", "settings"}}

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """As Lightning's, but a configuration may be given by its name."""
        parser = _Parser(**kwargs)
        parser.add_argument(
            "-c",
            "--config",
            action=ConfigFile,
            help=CONFIG,
        )
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """As Lightning's, but a mistake is told with what was probably meant.

        Raises:
            TrainingError: The arguments are wrong.
        """
        try:
            super().parse_arguments(parser, args)
        except ArgumentError as error:
            settings = {key for name in self.subcommands() for key, _ in self._parser(name).get_defaults().items()}
            raise TrainingError(explain(error, settings)) from error

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for name, option in OPTIONS.items():
            parser.add_argument(f"--{name}", type=option.type, default=option.default, help=option.help)
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.set_defaults(DEFAULTS)
        parser.add_class_arguments(CalibrationSettings, "calibration")

    def _parse_ckpt_path(self) -> None:
        """Leaves the configuration as the user wrote it.

        Lightning would overrule it with the hyperparameters inside the checkpoint, and build whatever classes
        that file names.
        """

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        config.name = _run_name(config)
        if config.name is None:
            raise TrainingError("Expected a name for the run, but got none; give `--name` or `--config`.")
        if Path(config.name).name != config.name or config.name in {"", ".", ".."}:
            raise TrainingError(f"Expected `name` to be a plain folder name, but got {config.name!r}.")
        self.run_folder = Path(config.runs) / config.name
        network = config.model.init_args.network
        for name, default in network_sizes.left_out(
            resolve_name(network.class_path), network.get("init_args") or {}
        ).items():
            self._parser(self.subcommand).link_arguments(
                "data",
                f"model.init_args.network.init_args.{name}",
                partial(network_sizes.of, name, default),
                apply_on="instantiate",
            )
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        if torch.cuda.is_available():
            torch.set_float32_matmul_precision("high")

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
            kwargs["callbacks"] = [*callbacks, RichProgressBar(refresh_rate=DRAWN_PER_SECOND)]
        trainer = cast("Trainer", super().instantiate_trainer(**kwargs))
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                callback.dirpath = str(self.run_folder / "checkpoints")
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
        _refuse_raw_weights(self.trainer)
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
            self.calibrate(self.model, self.datamodule, ckpt_path=self.best())

    def best(self) -> str:
        """The path of the fit's best checkpoint.

        Raises:
            TrainingError: There is none, or the training diverged.
        """
        checkpoint: ModelCheckpoint = self.settings.checkpoint
        if not checkpoint.best_model_path:
            raise TrainingError(
                "Expected the fit to leave a checkpoint, but it left none; let it run at least one "
                "epoch with validation."
            )
        score = checkpoint.best_model_score
        if score is not None and not math.isfinite(score):
            raise TrainingError(
                f"Expected a finite `{checkpoint.monitor}`, but the best one is {float(score)}: the training "
                "diverged. Lower the learning rate (`model.init_args.optimizer.init_args.lr`)."
            )
        return str(checkpoint.best_model_path)

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
        if getattr(datamodule, "scale", None) is None and not is_own(read_content(source), model):
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
        # Outside the table and not wrapped, so that it can be copied.
        spec = predictor.network_spec
        trust = "" if spec.class_path in registry.NETWORKS else f"--trusted {spec.class_path.rpartition('.')[0]} "
        console.print(f"next: dubio-serve {trust}{output}", soft_wrap=True, highlight=False)

    def after_predict(self) -> None:
        """Write what Lightning only returns: one line a test row."""
        if not self.trainer.is_global_zero:
            return
        probabilities_BC = torch.cat(self.trainer.predict_loop.predictions)
        path = self.run_folder / "predictions.csv"
        self.run_folder.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["row", "label", *self.datamodule.classes])
            labels = [self.datamodule.classes[index] for index in probabilities_BC.argmax(1).tolist()]
            for row, (label, probabilities_C) in enumerate(zip(labels, probabilities_BC.tolist(), strict=True)):
                writer.writerow([row, label, *(f"{probability:.6f}" for probability in probabilities_C)])
        Console().print(f"deterministic predictions for {len(probabilities_BC)} test rows: {path}")

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
        if subcommand in {"validate", "test", "predict"}:
            # Without a path, Lightning would quietly test random weights.
            kwargs["ckpt_path"] = kwargs["ckpt_path"] or self._existing()
        if kwargs["ckpt_path"] not in {None, *LIGHTNINGS_OWN}:
            # Lightning's own errors for a file that is damaged, or that would run code, fill a screen.
            content = read_content(kwargs["ckpt_path"])
            if subcommand == "fit" and "optimizer_states" not in content:
                raise TrainingError(
                    f"Expected a checkpoint that a fit can go on from, but {kwargs['ckpt_path']} holds weights alone; "
                    "give one of `checkpoints/last.ckpt`, or start without `--ckpt_path`."
                )
        return kwargs


Command = TypeVar("Command", bound=CLI)

# Errors are told by `main`; half a name is a mistake, which may otherwise train something else for hours.
_STRICT = {"exit_on_error": False, "allow_abbrev": False}


def _latest() -> ModelCheckpoint:
    """Keeps `last.ckpt`, to go on from after an interruption; Lightning's `save_last` waits for a better epoch."""
    return ModelCheckpoint(filename="last", enable_version_counter=False, save_on_exception=True)


def _refuse_raw_weights(trainer: Trainer) -> None:
    """Lightning puts averaged weights into whole checkpoints only; one of the weights alone gets the raw ones."""
    averaged = any(isinstance(callback, WeightAveraging) for callback in trainer.callbacks)
    alone = any(isinstance(each, ModelCheckpoint) and each.save_weights_only for each in trainer.checkpoint_callbacks)
    if averaged and alone:
        raise TrainingError(
            "Expected `checkpoint.save_weights_only` to be false where weights are averaged, but it is true, and the "
            "checkpoint would hold the weights before averaging; leave it out."
        )


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
    with interruption.in_status():
        return cli(
            Classifier,
            TensorDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            trainer_class=Trainer,
            trainer_defaults={"callbacks": [_latest()]},
            seed_everything_default=0,
            save_config_callback=None,  # written by `before_fit`, into the run's folder
            auto_configure_optimizers=False,
            parser_kwargs={
                "prog": "dubio-train",
                "description": DESCRIPTION,
                "formatter_class": _HelpFormatter,
                **_STRICT,
                # Each a dict of its own: Lightning writes into them.
                **{subcommand: dict(_STRICT) for subcommand in cli.subcommands()},
            },
            args=args,
        )
