"""The build: the folders at the repository's top become parts of the package `dubio`."""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDERS = ("configs", "models", "scale", "serving", "training", "uncertainty")


class FoldersHook(BuildHookInterface[Any]):
    """Puts the folders into a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Tell hatchling where each folder goes; an editable install finds them where they are."""
        if self.target_name == "wheel" and version == "standard":
            build_data["force_include"].update({folder: f"dubio/{folder}" for folder in FOLDERS})
