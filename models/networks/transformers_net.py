"""Encoders of the library transformers that classify sequences of tokens."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from dubio.models.errors import ModelError
from dubio.models.networks.sequence_classifier import MASK_READY, SequenceClassifier
from dubio.models.networks.validation import check_sizes

# What a configuration may not set: another kind of model, or tables of a size that no weight of the file bounds.
_REFUSED = frozenset({"is_decoder", "add_cross_attention", "sinusoidal_pos_embds"})


class TransformersNet(SequenceClassifier):
    """A sequence classifier of transformers (Wolf 2020) with a configuration of plain numbers.

    The library is needed: `pip install transformers`. Nothing is ever downloaded: the weights come from training, from
    a checkpoint, or from a `model.safetensors` of `save_pretrained`, whose names they have.

    Args:
        architecture: The family, as `model_type` of a `config.json` says: albert, bert, camembert, distilbert, electra,
            mpnet, roberta or xlm-roberta.
        config: What differs from the family's own configuration, such as ``{"num_hidden_layers": 6}``; see `arguments`.
        vocabulary: How many tokens there are; by default what the configuration says.
        padding: Token that fills up shorter sequences; by default what the configuration says.
        num_classes: C.

    Raises:
        ValueError: If there is no such family, it has no such setting, or a size is not positive.
        ModuleNotFoundError: If transformers is not installed.
    """

    def __init__(
        self,
        architecture: str = "bert",
        config: dict[str, Any] | None = None,
        vocabulary: int | None = None,
        padding: int | None = None,
        num_classes: int = 10,
    ) -> None:
        check_sizes(num_classes=num_classes, vocabulary=1 if vocabulary is None else vocabulary)
        transformers = _transformers()
        known, settings = _settings(transformers, architecture), dict(config or {})
        for name in settings:
            if name not in known:
                raise ValueError(
                    f"Expected `config` to set what {architecture} has, {', '.join(sorted(known))}, but got "
                    f"{name!r:.80}; leave it out."
                )
        settings |= {} if vocabulary is None else {"vocab_size": vocabulary}
        settings |= {} if padding is None else {"pad_token_id": padding}
        described = transformers.AutoConfig.for_model(architecture, num_labels=num_classes, **settings)
        super().__init__(transformers.AutoModelForSequenceClassification.from_config(described))
        self.train()

    @staticmethod
    def arguments(folder: str | Path) -> dict[str, Any]:
        """The arguments that build the model which `save_pretrained` wrote into a folder, as plain data.

        Raises:
            ModelError: If the folder has no configuration of a sequence classifier of these families.
        """
        path = Path(folder) / "config.json"
        try:
            held = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise ModelError(
                f"Expected {path} to be the configuration that `save_pretrained` wrote: {error}"
            ) from error
        if not isinstance(held, Mapping):
            raise ModelError(f"Expected {path} to hold an object, but got {type(held).__name__}.")
        architecture = held.get("model_type")
        try:
            known = _settings(_transformers(), str(architecture))
        except ValueError as error:
            raise ModelError(f"{path}: {error}") from error
        config = {name: value for name, value in held.items() if name in known and value != known[name]}
        labels = held.get("id2label")
        classes = len(labels) if isinstance(labels, Mapping) else 2  # which is what the library leaves out
        return {"architecture": architecture, "config": config, "num_classes": classes}


def _settings(transformers: ModuleType, architecture: str) -> dict[str, Any]:
    """The family's own settings with their defaults.

    Raises:
        ValueError: If there is no such family.
    """
    if architecture not in MASK_READY:
        raise ValueError(
            f"Expected `architecture` to be one of {', '.join(sorted(MASK_READY))}, but got {architecture!r:.80}; for "
            "another family wrap its model in dubio.models.SequenceClassifier, in a class of your own."
        )
    default = transformers.AutoConfig.for_model(architecture)
    return {name: getattr(default, name) for name in type(default).__annotations__ if name not in _REFUSED}


def _transformers() -> ModuleType:
    try:
        return importlib.import_module("transformers")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Expected the library transformers, which has the architectures of dubio.models.TransformersNet, but it is "
            "not installed; run `pip install 'transformers>=5'`."
        ) from error
