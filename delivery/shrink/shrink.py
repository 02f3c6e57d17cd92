"""From a run to its shrunken models: `phalanx export RUN --to litert|web`."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

from delivery.shrink.artefact import Artefact, make_artefact
from delivery.shrink.fine_tuning import Config, Train, fine_tune, fine_tune_tied
from delivery.shrink.litert import LITERT
from delivery.shrink.model_form import ModelForm, place, remove
from delivery.shrink.plot import plot_of
from delivery.shrink.pruning import Pruned, check_prunable, prune
from delivery.shrink.reference import Reference
from delivery.shrink.request import QUANTIZATIONS, Request, Ties
from delivery.shrink.search import best_of, fits, search
from delivery.shrink.table import table_of, write_results
from delivery.shrink.tying import tie
from trainer.atomic_file import write_whole
from trainer.run_folder import RunFolder

CHOSEN = "model"


class ShrinkFailed(Exception):
    """No artefact may be used. The message is one sentence for the user."""


@dataclass(frozen=True)
class Shrunk:
    """What was made.

    Attributes:
        folder: `export/litert` of the run, or that of another form.
        artefacts: Refused ones included.
        chosen: The smallest that fits, where one was searched for; else None.
        table: For the terminal.
        reference: The trained model.
    """

    folder: Path
    artefacts: list[Artefact]
    chosen: Artefact | None
    table: str
    reference: Reference


def shrink_run(
    config: Config,
    folder: RunFolder,
    request: Request,
    train: Train[Config],
    say: Callable[[str], None],
    command: Sequence[str] = (),
    check: Callable[[Reference], object] = lambda reference: None,
    form: ModelForm = LITERT,
) -> Shrunk:
    """Makes, measures and judges shrunken models of a run, and writes them to `export/litert`, or where the form says.

    Args:
        config: Of the run.
        folder: Of the run; the caller holds its lock.
        request: Checked.
        train: Carries out the run that fine-tunes a pruned model.
        say: Takes lines of progress.
        command: That was typed.
        check: Raises where the trained model is not what the caller needs, before anything is made of it.
        form: What the models are converted to.

    Raises:
        ShrinkFailed: Nothing passed its gates, or nothing that fits was found.
        PruningRefused: The model has no units that can be taken out.
        ValueError: It has no weights that can be tied.
        RunFolderError: The run has no checkpoint.
        OSError: The folder cannot be written.
    """
    if request.prune is not None or request.budget is not None:
        check_prunable(config.model)
    with tempfile.TemporaryDirectory(prefix="phalanx-shrink-") as work:
        shrinking = _Shrinking(config, folder, request, train, say, Path(work), form)
        check(shrinking.reference)
        artefacts = shrinking.searched() if request.budget else shrinking.made(request.prune or 0.0)
    original = shrinking.reference.quality
    compressed = bool(request.ties)
    chosen = best_of(artefacts, request.budget, compressed) if request.budget else None
    artefacts.sort(key=lambda one: (one.prune, one.ties, QUANTIZATIONS.index(one.quantize)))
    description = {"run": folder.path.resolve().name, "step": shrinking.reference.step}
    description |= {"keep": request.keep, "budget_bytes": request.budget, **shrinking.reference.describe()}
    target = shrinking.target
    write_results(target, artefacts, original, chosen, description, command)
    write_whole(target / "results.svg", plot_of(artefacts, original, chosen, request.budget, request.keep, compressed))
    table = table_of(artefacts, original, chosen)
    if chosen is not None:
        assert chosen.path is not None
        place(chosen.path, target / f"{CHOSEN}{form.suffix}")
    if request.budget and chosen is None:
        say(table)
        raise ShrinkFailed("no model fits: raise --budget, lower --keep, or fine-tune longer with --fine-tune")
    if all(artefact.refused for artefact in artefacts):
        say(table)
        raise ShrinkFailed("no model passed its gates: lower --keep or --prune, or choose another --quantize")
    return Shrunk(target, artefacts, chosen, table, shrinking.reference)


class _Shrinking(Generic[Config]):
    """The reference of one run, and what is made from it."""

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        request: Request,
        train: Train,
        say: Callable[[str], None],
        work: Path,
        form: ModelForm,
    ) -> None:
        self._config, self._folder, self._request, self._form = config, folder, request, form
        self._train, self._say, self._work = train, say, work
        self.reference = Reference(config, folder)
        self.target = folder.exports / form.name
        self.target.mkdir(parents=True, exist_ok=True)
        # The results file describes what lies beside it: nothing of an earlier shrinking stays.
        for stale in self.target.glob(f"*{form.suffix}"):
            remove(stale)

    def made(self, rate: float) -> list[Artefact]:
        """All asked-for quantisations at one pruning rate; in a search without ties too."""
        ties = self._request.ties
        config, reference = (self._config, self.reference) if rate == 0 else self._fine_tuned(rate)
        untied = self._converted(reference, rate, Ties()) if not ties or self._request.budget else []
        return untied + (self._converted(self._tied(config, reference, rate), rate, ties) if ties else [])

    def _converted(self, reference: Reference, rate: float, ties: Ties) -> list[Artefact]:
        work = self._work / f"{rate:g}{ties.name}"
        work.mkdir()
        artefacts = []
        with ExitStack() as stack:
            # Hundreds of MB a rate: what passed is in the target folder.
            stack.callback(shutil.rmtree, work, ignore_errors=True)
            reference.save(work)
            for quantize in self._request.quantize:
                compressed = bool(self._request.ties)
                if not fits(reference.num_parameters, quantize, self._request.budget, ties, compressed):
                    continue
                original, keep = self.reference.quality, self._request.keep
                artefact = make_artefact(
                    reference, work, quantize, original, keep, self.target, rate, ties.name, self._form
                )
                self._say(f"{artefact.name}: {artefact.refused or 'passed'}")
                artefacts.append(artefact)
        return artefacts

    def searched(self) -> list[Artefact]:
        """Quantisations at the pruning rates that the search tries."""
        request = self._request
        return search(
            self.made,
            lambda rate: self._pruned(rate).num_parameters,
            request.budget,
            request.quantize,
            ties=request.ties,
        )

    def _pruned(self, rate: float) -> Pruned:
        if rate == 0:
            return Pruned(self._config.model, self.reference.arrays)
        reference = self.reference
        return prune(reference.model, self._config.model, reference.arrays, reference.representative, rate)

    def _fine_tuned(self, rate: float) -> tuple[Config, Reference]:
        pruned = self._pruned(rate)
        before, after = self.reference.num_parameters, pruned.num_parameters
        self._say(f"pruning {rate:.3g} of the units leaves {after:,} of {before:,} parameters; fine-tuning")
        config, folder = fine_tune(
            self._config, self._folder, pruned, rate, self.reference.step, self._request.epochs, self._train
        )
        return config, Reference(config, folder)

    def _tied(self, config: Config, reference: Reference, rate: float) -> Reference:
        request = self._request
        name = "-".join([*([f"pruned-{rate:g}-{request.epochs:g}ep"] if rate else []), request.ties.name])
        self._say(f"tying weights ({request.ties.name}); fine-tuning")
        tied = tie(reference.arrays, request.ties)
        step = self.reference.step
        return Reference(*fine_tune_tied(config, self._folder, tied, name, step, request.epochs, self._train))
