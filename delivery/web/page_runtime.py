"""What runs the model in the page."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from delivery.shrink.model_form import ModelForm


class PageRuntime(ABC):
    """A runtime of the browser; its files are not part of Phalanx.

    Attributes:
        name: As the page calls it.
        module: File of `page/` through which the page loads and runs the model.
        model: Name of the model's file or folder beside the page.
        file: The file of it that the module loads.
        imports: Names of modules that the runtime's own modules import, and where they lie.
    """

    name: ClassVar[str]
    module: ClassVar[str]
    model: ClassVar[str]
    file: ClassVar[str]
    imports: ClassVar[dict[str, str]] = {}

    @property
    @abstractmethod
    def form(self) -> ModelForm:
        """What it runs."""

    @abstractmethod
    def copy(self, folder: Path) -> None:
        """Copies the runtime's files into `folder`, which exists and is the page's `runtime/`."""
