"""A training, from its options to a model file."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from tilepipe._torch import torch
from tilepipe.engine.cluster.failures import REMEDIES, out_of_memory
from tilepipe.engine.work.allocator import freed_memory_kept
from tilepipe.engine.work.device import Device
from tilepipe.errors import EnvironmentFailure, InputError, NonFiniteError
from tilepipe.models.file import load_model, save_model
from tilepipe.models.float32 import keep_float32, require_float32
from tilepipe.models.fold import fold_batch_normalisation
from tilepipe.models.geometry import geometry_of
from tilepipe.models.onednn import reduced_float32
from tilepipe.models.precision import Precision
from tilepipe.storage import require_writable
from tilepipe.training.augment import Augmentation
from tilepipe.training.learner import Learner
from tilepipe.training.options import LOWER_IS_BETTER, TrainOptions
from tilepipe.training.recipe import Recipe, prepare
from tilepipe.training.state import TrainingState
from tilepipe.training.tiles import PairCache, Tile, TileMaker, chances
from tilepipe.training.validate import ValidationScores, validate

STEPS_AHEAD = 2
"""Steps whose tiles are prepared while another step computes."""


@dataclass
class TrainCallbacks:
    """Called as a training progresses; these methods do nothing."""

    def begin(self, recipe: Recipe) -> None:
        """Called once, when everything is decided."""

    def step(self, step: int, loss: float) -> None:
        """Called after each step."""

    def validated(self, row: dict[str, Any], best: bool) -> None:
        """Called after each validation, with the row that the log gets."""

    def stage(self, name: str) -> None:
        """Called when something other than training begins, such as a validation."""


@dataclass(frozen=True)
class TrainSummary:
    """The result of a training."""

    model: Path
    folder: Path
    """The folder of the log, the checkpoint and the pictures."""
    steps: int
    best_step: int | None
    """The step of the weights that were kept."""
    scores: dict[str, float]
    """The scores of the weights that were kept; empty without validation."""
    seconds: float
    stopped_early: bool = False


@dataclass
class TrainingProgress:
    """How far a training has come."""

    step: int = 0
    seconds: float = 0.0
    total: float = 0.0
    """Sum of the losses since the last validation."""
    count: int = 0
    """Number of steps since the last validation."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """The rows of the log, one for each validation."""
    since_best: int = 0
    """Number of validations since the best one."""
    best: dict[str, Any] | None = None
    """Step, score, scores and weights of the best validation."""

    def add(self, loss: float) -> None:
        """Count a step."""
        self.step, self.total, self.count = self.step + 1, self.total + loss, self.count + 1

    def better(self, score: float, metric: str) -> bool:
        """Whether a score is better than the best one so far."""
        if self.best is None or math.isnan(self.best["score"]):
            # If nothing can be scored, later weights are better than earlier ones.
            return True
        if math.isnan(score):
            return False
        best: float = self.best["score"]
        return score < best if metric in LOWER_IS_BETTER else score > best


def train(options: TrainOptions, callbacks: TrainCallbacks | None = None) -> TrainSummary:
    """Train a network and write its model file, or resume a training with the same options.

    Raises
    ------
    InputError
        Images, masks or options are at fault; or the loss became NaN or infinite, in which case
        the last good weights are kept.
    EnvironmentFailure
        Memory or disk are exhausted.
    """
    callbacks = callbacks or TrainCallbacks()
    target = Path(options.output)
    if target.suffix != ".safetensors":
        raise InputError(f"{target}: the name of a model file ends in .safetensors")
    require_writable(target)
    with ExitStack() as stack:
        # Whatever device trains, its pictures are drawn on the CPU.
        require_float32(Precision.FP32, "torch", reduced_float32(), "validation")
        recipe, cache, validation = prepare(options)
        state = TrainingState(target)
        if target.exists() and not options.overwrite and not state.checkpoint_file.exists():
            raise InputError(
                f"{target}: exists already; use --overwrite to replace it, or another -o"
            )
        try:
            stack.enter_context(state.locked())
            checkpoint = state.begin(options, recipe.training, recipe.validation)
        except OSError as error:
            raise InputError(f"{state.folder}: cannot be written: {error.strerror}") from error
        stack.enter_context(_resources_named(recipe, state))
        torch.set_num_threads(recipe.threads)
        stack.enter_context(freed_memory_kept())
        keep_float32(recipe.device)
        recipe = replace(recipe, resumed=checkpoint["step"] if checkpoint else 0)
        callbacks.begin(recipe)
        training = _Training(recipe, cache, validation, state, callbacks)
        if checkpoint is None:
            training.draw_tiles()
        else:
            training.restore(checkpoint)
        try:
            return training.run(target)
        except NonFiniteError as error:
            kept = training.keep_last_good(target)
            last = f"the last good weights are in {target}" if kept else "no weights were kept yet"
            raise NonFiniteError(
                f"{error}; {last}; restart with --overwrite and a lower --lr"
            ) from error


class _Training:
    """The loop of a training, with its validations and checkpoints."""

    def __init__(
        self,
        recipe: Recipe,
        cache: PairCache,
        validation: PairCache,
        state: TrainingState,
        callbacks: TrainCallbacks,
    ) -> None:
        self.recipe, self.validation = recipe, validation
        self.state, self.callbacks = state, callbacks
        self.learner = Learner(recipe)
        self.maker = _tile_maker(recipe, cache)
        self.progress = TrainingProgress()

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.progress = TrainingProgress(
            **{f.name: checkpoint[f.name] for f in fields(TrainingProgress)}
        )
        self.learner.load_state_dict(checkpoint)

    def _save(self) -> None:
        progress = {f.name: getattr(self.progress, f.name) for f in fields(TrainingProgress)}
        self.state.save({**progress, **self.learner.state_dict()})

    def draw_tiles(self) -> None:
        """Draw some tiles as the network will get them."""
        from tilepipe.training.pictures import draw_tiles

        draw_tiles(self.maker, self.learner.loss.weights, self.state.tiles_file)

    def run(self, target: Path) -> TrainSummary:
        """Do the steps that are left, and write the model file."""
        options, progress = self.recipe.options, self.progress
        begin = time.perf_counter() - progress.seconds
        enough = self._has_enough()
        with ThreadPoolExecutor(1, thread_name_prefix="tilepipe-tiles") as pool, _Stop() as stop:
            for batch in () if enough else self._batches(pool):
                loss = self.learner.step(batch, progress.step)
                progress.add(loss)
                self.callbacks.step(progress.step, loss)
                progress.seconds = time.perf_counter() - begin
                if progress.step % options.validate_every == 0 or progress.step == options.steps:
                    self._validate()
                    enough = self._has_enough()
                    if enough:
                        break
                if stop.requested:
                    self._save()
                    raise KeyboardInterrupt
        progress.seconds = time.perf_counter() - begin
        return self._finish(target, enough)

    def _has_enough(self) -> bool:
        patience = self.recipe.options.patience
        return bool(patience) and self.progress.since_best >= patience

    def _batches(self, pool: ThreadPoolExecutor) -> Iterator[list[Tile]]:
        options = self.recipe.options

        def make(step: int) -> list[Tile]:
            return [self.maker.tile(step, i) for i in range(options.batch)]

        coming: list[Future[list[Tile]]] = []
        for step in range(self.progress.step, options.steps):
            while len(coming) <= STEPS_AHEAD and step + len(coming) < options.steps:
                coming.append(pool.submit(make, step + len(coming)))
            yield coming.pop(0).result()

    def _validate(self) -> None:
        """Score the present weights, remember the best ones, write log and checkpoint."""
        progress, learner, metric = self.progress, self.learner, self.recipe.metric
        self.callbacks.stage("validating")
        learner.require_finite_weights(progress.step)
        scores = self._scores()
        score = scores[metric] if scores else math.nan
        best = scores is None or progress.better(score, metric)
        if best:
            progress.best = {
                "step": progress.step,
                "score": score,
                "scores": {"loss": scores.loss, **scores.values} if scores else {},
                "weights": learner.weights(),
            }
        progress.since_best = 0 if best else progress.since_best + 1
        row: dict[str, Any] = {
            "step": progress.step, "seconds": round(progress.seconds, 1),
            "lr": f"{learner.rate:.4g}", "loss": round(progress.total / progress.count, 5),
        }  # fmt: skip
        if scores is not None:
            row["validation_loss"] = round(scores.loss, 5)
            row |= {name: round(value, 5) for name, value in scores.values.items()}
            learner.schedule.validated(score)
        progress.rows.append(row)
        progress.total, progress.count = 0.0, 0
        self.state.write_log(progress.rows)
        self._save()
        self.callbacks.validated(row, best)

    def _scores(self) -> ValidationScores | None:
        recipe = self.recipe
        if not recipe.validation:
            return None
        model = self.learner.model(self.learner.network)
        device = Device(model, recipe.device, "fp32", recipe.threads)
        scheme = recipe.survey.scheme
        objects = scheme.kind == "instances" and (
            recipe.metric == "object-f1" or bool(scheme.border)
        )
        try:
            return validate(model, device, self.validation, scheme, objects=objects)
        except NonFiniteError as error:
            raise NonFiniteError(f"after step {self.progress.step}, {error}") from error
        finally:
            device.close()

    def _finish(self, target: Path, stopped_early: bool) -> TrainSummary:
        progress, best = self.progress, self.progress.best
        step, scores = progress.step, progress.rows[-1] if progress.rows else {}
        if self.recipe.options.keep == "best" and best is not None:
            self.learner.network.load_state_dict(best["weights"])
            step, scores = best["step"], best["scores"]
        figures = {
            k: v for k, v in scores.items() if k not in ("step", "seconds", "lr", "loss")
        } if self.recipe.validation else {}  # fmt: skip
        self._write(target, step, figures)
        self._draw_results(target, step)
        return TrainSummary(
            target, self.state.folder, progress.step, step if best else None, figures,
            progress.seconds, stopped_early,
        )  # fmt: skip

    def _draw_results(self, target: Path, step: int) -> None:
        from tilepipe.training.pictures import draw_curves, draw_sheet

        self.callbacks.stage("drawing curves and the validation sheet")
        draw_curves(self.progress.rows, self.recipe.metric, step, self.state.curves_file)
        if self.recipe.validation:
            scheme = self.recipe.survey.scheme
            draw_sheet(load_model(target), self.validation, scheme, self.state.sheet_file)

    def _write(self, target: Path, step: int, figures: dict[str, float]) -> None:
        recipe, options, network = self.recipe, self.recipe.options, self.learner.network
        if options.fold:
            network = fold_batch_normalisation(network)
        about: dict[str, Any] = {
            **options.about,
            "training": {
                "images": len(recipe.training),
                "validation_images": len(recipe.validation),
                "steps": step,
                "loss": recipe.loss,
                "seed": options.seed,
            },
        }
        # The score of a class that no validation image holds is not defined.
        defined = {k: round(float(v), 4) for k, v in figures.items() if math.isfinite(v)}
        if defined:
            about["validation"] = defined
        dtype = torch.float16 if options.store == "float16" else torch.float32
        save_model(target, self.learner.model(network, about), dtype=dtype)

    def keep_last_good(self, target: Path) -> bool:
        """Write the best weights so far; return whether there are any."""
        best = self.progress.best
        if best is None:
            return False
        self.learner.network.load_state_dict(best["weights"])
        self._write(target, best["step"], {})
        return True


def _tile_maker(recipe: Recipe, cache: PairCache) -> TileMaker:
    options, found = recipe.options, recipe.survey
    areas = [(p.source, a) for p, a in zip(recipe.training, found.pixels, strict=True)]
    augmentation = Augmentation(
        options.flips, options.rotate, options.scale, options.elastic,
        options.brightness, options.contrast, options.hed,
    )  # fmt: skip
    return TileMaker(
        cache, chances(areas, options.shares), found.scheme, recipe.input,
        geometry_of(recipe.arguments), recipe.side, augmentation, options.seed,
    )  # fmt: skip


class _Stop:
    """Whether Ctrl-C or SIGTERM requested a stop, which takes effect at the end of the step.

    A second request stops at once; the steps since the last checkpoint are then lost.
    """

    requested = False

    def __enter__(self) -> _Stop:
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: Any) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


@contextmanager
def _resources_named(recipe: Recipe, state: TrainingState) -> Iterator[None]:
    """Turn errors of exhausted memory or disk into advice: what to lower, and how to resume."""
    options = recipe.options
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise EnvironmentFailure(
            f"out of memory: lower --batch (now {options.batch}), --tile (now {recipe.side}) or "
            f"--width (now {recipe.arguments.width})"
        ) from error
    except OSError as error:
        if error.errno not in REMEDIES:
            raise
        raise EnvironmentFailure(
            f"{state.folder}: cannot be written: {error.strerror}; {REMEDIES[error.errno]}, and "
            "the same command resumes from the last checkpoint"
        ) from error
