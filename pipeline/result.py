"""What a program or a notebook gets back from a run: the outcome, with everything that can be made of it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipeline.display import escape, html_table, side_by_side
from pipeline.problem import Problem
from pipeline.progress import SILENT
from pipeline.report.attempt import attempt
from pipeline.report.folder import new_folder, write_config, write_history, write_json
from pipeline.report.terminal import FOLDS
from pipeline.tuning.steps import Step
from pipeline.validation.comparison import Comparison, Estimate
from pipeline.validation.outcome import Outcome
from pipeline.validation.verdict import Verdict, verdict
from pipeline.validation.working_points import WorkingPoints
from pipeline.weights import save_network

__all__ = ["Result", "write_outcome"]


@dataclass(frozen=True)
class Result:
    """The best thresholds of an optimisation and what they are worth; iterate over it for the steps.

    With folds, thresholds, steps and workspace are those of the first one, as on the command line, and the gain is that
    of all events, each judged by the thresholds of a fold that has not seen it.

    Attributes:
        problem: what was tuned, with its networks as they were trained.
        outcome: everything that was found out.
    """

    problem: Problem
    outcome: Outcome

    def __iter__(self) -> Iterator[Step]:
        """The steps of the optimisation."""
        return iter(self.outcome.history)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.outcome.history)

    @property
    def thresholds(self) -> dict[str, float]:
        """All thresholds at the best step, each in its own unit."""
        return self.outcome.thresholds

    @property
    def folds(self) -> list[dict[str, float]]:
        """The thresholds that each fold has led to; use them where they agree. Nothing without folds."""
        return self.outcome.thresholds_of_folds

    @property
    def gain(self) -> Estimate:
        """How much better the figure of merit is on events that tuning has not seen, with its bootstrap error."""
        return self.outcome.gain

    @property
    def comparison(self) -> Comparison:
        """The figure of merit on these events, before and after."""
        return self.outcome.claim

    @cached_property
    def verdict(self) -> Verdict:
        """Whether the gain is significant, and what speaks against believing it."""
        return verdict(self.outcome)

    @property
    def importance(self) -> dict[str, Estimate]:
        """What the gain on validation events loses if one cut alone stays at its default (`pipeline.validation`)."""
        return self.outcome.importance

    @property
    def working_points(self) -> WorkingPoints | None:
        """The figure of merit and the optimum if an uncertainty were halved, or the luminosity doubled."""
        return self.outcome.working_points

    @property
    def workspace(self) -> dict[str, Any]:
        """The pyhf workspace of the validation events at the tuned thresholds."""
        return self.outcome.workspace

    def report(self, folder: Path | str, *, overwrite: bool = False) -> Path:
        """Write the folder that the command line writes: result.json, workspaces, history, pictures and report.html.

        Returns:
            The path of the report.

        Raises:
            FileExistsError: the folder is there, and may not be replaced.
        """
        folder = Path(folder)
        with new_folder(folder, overwrite=overwrite) as draft:
            write_outcome(draft, self.problem, self.outcome, SILENT.warn)
        return folder / "report.html"

    def __repr__(self) -> str:
        """The verdict."""
        return f"Result({self.verdict})"

    def _repr_html_(self) -> str:
        """For notebooks."""
        outcome, claim = self.outcome, self.comparison
        tuned = {name: cut for name, cut in outcome.config.thresholds.items() if cut.trainable}
        cuts = [
            (
                name,
                f"{outcome.before[name]:g} {cut.unit}",
                f"{outcome.after[name]:.4g} {cut.unit}",
                f"at its {side} bound" if (side := cut.at_bound(outcome.after[name])) else "",
            )
            for name, cut in tuned.items()
        ]
        cuts += [(name, "start", "trained", f"{number:,} weights") for name, number in outcome.trained.items()]
        merit = (f"{outcome.symbol} on unseen events", f"{claim.before}", f"{claim.after}", f"{claim.change:+}")
        shown = html_table(("", "default", "optimised", ""), [*cuts, merit]) + f"<p>{escape(str(self.verdict))}</p>"
        if self.folds:
            shown += html_table(*side_by_side(tuned, self.folds)) + f"<p>{escape(FOLDS)}</p>"
        return shown


def _export_networks(folder: Path, outcome: Outcome, warn: Callable[[str], None]) -> None:
    """As ONNX, where it is installed; networks of somebody's own may be anything, and stay in JAX."""
    if find_spec("onnx") is None:
        return
    about = outcome.networks()
    for score in outcome.scores:
        file, network = folder / f"{score.name}.onnx", outcome.config.observables[score.name].network
        if network.make is None:
            with attempt(file.name, warn):
                from pipeline.onnx_file import save_onnx

                save_onnx(file, score, outcome.after[score.name], network.activation, about[score.name])


def write_outcome(
    folder: Path,
    problem: Problem,
    outcome: Outcome,
    warn: Callable[[str], None],
    *,
    plots: bool = True,
) -> None:
    """All numbers of a run; then, which may fail without costing anything else, its pictures and page."""
    content = outcome.as_json() | {"verdict": asdict(verdict(outcome))}
    write_json(folder / "result.json", content)
    write_json(folder / "workspace.json", outcome.workspaces["after"])
    write_json(folder / "workspace_before.json", outcome.workspaces["before"])
    write_history(folder / "history.csv", [_history_row(step) for step in outcome.history])
    write_config(folder / "config.yaml", problem.given.model_dump(mode="json"))
    for name, about in outcome.networks().items():
        save_network(folder / f"{name}.safetensors", outcome.after[name], about)
    _export_networks(folder, outcome, warn)
    if plots:
        _illustrate(folder, problem, outcome, content, warn)


def _history_row(step: Step) -> dict[str, Any]:
    return {
        "step": step.number,
        "value": float(step.merit.value),
        "best_loss": step.best_loss,
        "converged": bool(step.merit.converged),
        **step.thresholds,
        "monitored_loss": step.monitored,
        **{f"gradient_{name}": value for name, value in step.gradient.items()},
        **{f"gradient_error_{name}": value for name, value in step.error.items()},
        **{f"bandwidth_{name}": value for name, value in step.bandwidths.items()},
        **{f"gradient_length_{name}": length for name, (length, _) in step.network_gradient.items()},
        **{f"gradient_noise_{name}": noise for name, (_, noise) in step.network_gradient.items()},
    }


def _illustrate(
    folder: Path, problem: Problem, outcome: Outcome, content: Mapping[str, Any], warn: Callable[[str], None]
) -> None:
    """Neither a failure nor Ctrl-C loses the result."""
    try:
        with attempt("the report", warn):
            # matplotlib takes a second to import, which a run that fails early need not wait for.
            from pipeline.report.illustrate import illustrate
            from pipeline.report.pictures.scene import Scene

            illustrate(folder, Scene(problem.with_networks(outcome.after), outcome), content, warn)
    except KeyboardInterrupt:
        warn("stopped while drawing: the result is written, the report is not complete")
