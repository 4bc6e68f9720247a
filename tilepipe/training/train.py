"""A training, from its options to a model file."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tilepipe._torch import Tensor, nn, torch
from tilepipe.engine.cluster.connect import REMEDIES, out_of_memory
from tilepipe.engine.work.allocator import freed_memory_kept
from tilepipe.engine.work.device import Device
from tilepipe.errors import EnvironmentFailure, InputError, NonFiniteError
from tilepipe.models.file import build_model, load_model, save_model
from tilepipe.models.fold import fold_batch_normalisation
from tilepipe.models.geometry import geometry_of
from tilepipe.models.specs import Model
from tilepipe.models.unet import UNet
from tilepipe.storage import require_writable
from tilepipe.training import tiles
from tilepipe.training.augment import Augmentation
from tilepipe.training.losses import make_loss, weight_map
from tilepipe.training.optimise import Average, Precision, Schedule, make_optimiser
from tilepipe.training.options import LOWER_IS_BETTER, TrainOptions
from tilepipe.training.recipe import Recipe, prepare
from tilepipe.training.state import TrainingState
from tilepipe.training.tiles import Shelf, Tile, TileMaker
from tilepipe.training.validate import Scores, validate

AHEAD = 2
"""Steps whose tiles are made while one computes."""


@dataclass
class TrainWatch:
    """Is told how a training gets on; this one does nothing."""

    def begin(self, recipe: Recipe) -> None:
        """Everything is decided."""

    def step(self, step: int, loss: float) -> None:
        """A step is done."""

    def look(self, row: dict[str, Any], best: bool) -> None:
        """The validation images were looked at."""

    def stage(self, name: str) -> None:
        """Something else begins."""


@dataclass(frozen=True)
class TrainSummary:
    """What came of a training."""

    model: Path
    folder: Path
    steps: int
    best_step: int | None
    scores: dict[str, float]
    """Of the weights that were kept; empty without validation."""
    seconds: float
    stopped_early: bool = False


def train(options: TrainOptions, watch: TrainWatch | None = None) -> TrainSummary:
    """Train a network and write its model file, or go on where the same training was stopped.

    Raises
    ------
    InputError
        When images, masks or options are at fault; or when the loss is no number any more, in
        which case the last good weights are kept.
    EnvironmentFailure
        When memory or disk are exhausted.
    """
    watch = watch or TrainWatch()
    target = Path(options.output)
    _check_target(target, options)
    with ExitStack() as stack:
        recipe, shelf, judged = prepare(options)
        state = TrainingState(target)
        pairs = {
            name: [[Path(p.image).name, p.source, list(p.rows)] for p in of]
            for name, of in (("pairs", recipe.training), ("judged", recipe.validation))
        }
        if target.exists() and not options.overwrite and not state.checkpoint_file.exists():
            raise InputError(
                f"{target}: exists already; use --overwrite to replace it, or another -o"
            )
        try:
            stack.enter_context(state.locked())
            checkpoint = state.begin(options, pairs)
        except OSError as error:
            raise InputError(f"{state.folder}: cannot be written: {error.strerror}") from error
        stack.enter_context(_named_troubles(recipe, state))
        torch.set_num_threads(recipe.threads)
        stack.enter_context(freed_memory_kept())
        # fp32 means fp32, here as in inference.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        recipe = replace(recipe, resumed=checkpoint["step"] if checkpoint else 0)
        watch.begin(recipe)
        training = _Training(recipe, shelf, judged, state, watch, checkpoint)
        if checkpoint is None:
            training.draw_tiles()
        try:
            return training.run(target)
        except NonFiniteError as error:
            kept = training.keep_last_good(target)
            last = f"the last good weights are in {target}" if kept else "no weights were kept yet"
            raise NonFiniteError(
                f"{error}; {last}; start anew with --overwrite and a lower --lr"
            ) from error


class _Training:
    """One training's parts."""

    def __init__(
        self,
        recipe: Recipe,
        shelf: Shelf,
        judged: Shelf,
        state: TrainingState,
        watch: TrainWatch,
        checkpoint: dict[str, Any] | None,
    ) -> None:
        self.recipe, self.judged, self.state, self.watch = recipe, judged, state, watch
        self.options = options = recipe.options
        self.device = torch.device(recipe.device)
        torch.manual_seed(options.seed)
        # Values are learnt in standard deviations from their mean: a metre and a micrometre alike.
        found = recipe.survey
        self.centre = torch.tensor(found.value_mean or (0.0,)).to(self.device)
        self.spread = torch.tensor(found.value_std or (1.0,)).to(self.device)
        network = UNet(recipe.arguments)
        if recipe.start is not None:
            _take_over(network, recipe.start)
            if recipe.start.output.activation == recipe.output.activation == "linear":
                _rescale_head(network, 1 / self.spread.cpu(), -(self.centre / self.spread).cpu())
        self.network = network.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = Average(self.network, options.average) if options.average else None
        self.optimiser = make_optimiser(self.network, options)
        self.schedule = Schedule(self.optimiser, options, recipe.metric)
        self.precision = Precision(options.precision, self.device)
        areas = [(p.source, a) for p, a in zip(recipe.training, found.pixels, strict=True)]
        self.maker = TileMaker(
            shelf, tiles.chances(areas, options.shares), found.scheme, recipe.input,
            geometry_of(recipe.arguments), recipe.side,
            Augmentation(
                options.flips, options.rotate, options.scale, options.elastic,
                options.brightness, options.contrast, options.hed,
            ),
            options.seed,
        )  # fmt: skip
        softmax = recipe.output.activation == "softmax"
        self.loss = make_loss(recipe.loss, softmax=softmax, tversky=options.tversky)
        self.class_weights = torch.tensor(found.class_weights(options.class_weights)).to(
            self.device
        )
        self.step = 0
        self.seconds = 0.0
        self.total, self.count = 0.0, 0
        """Of the losses since the last look, and how many."""
        self.rows: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self.since_best = 0
        if checkpoint is not None:
            self._restore(checkpoint)

    def run(self, target: Path) -> TrainSummary:
        """All steps that are left, and the model file."""
        options, begin = self.options, time.perf_counter() - self.seconds
        stopped = self._has_enough()
        with ThreadPoolExecutor(1, thread_name_prefix="tilepipe-tiles") as pool, _Asked() as asked:
            for batch in () if stopped else self._batches(pool):
                loss = self._step(batch)
                self.step += 1
                self.total, self.count = self.total + loss, self.count + 1
                self.watch.step(self.step, loss)
                self.seconds = time.perf_counter() - begin
                if self.step % options.validate_every == 0 or self.step == options.steps:
                    stopped = self._look()
                    if stopped:
                        break
                if asked.to_stop:
                    self.state.save(self._checkpoint())
                    raise KeyboardInterrupt
        self.seconds = time.perf_counter() - begin
        return self._finish(target, stopped)

    def _batches(self, pool: ThreadPoolExecutor) -> Iterator[list[Tile]]:
        def make(step: int) -> list[Tile]:
            return [self.maker.tile(step, i) for i in range(self.options.batch)]

        coming: list[Future[list[Tile]]] = []
        for step in range(self.step, self.options.steps):
            while len(coming) <= AHEAD and step + len(coming) < self.options.steps:
                coming.append(pool.submit(make, step + len(coming)))
            yield coming.pop(0).result()

    def _step(self, batch: list[Tile]) -> float:
        # Dropout draws from torch's own numbers; seeded by step, a resumed training draws alike.
        torch.manual_seed((self.options.seed * 1_000_003 + self.step) % 2**63)
        x = torch.stack([t.pixels for t in batch]).to(self.device)
        x = x.contiguous(memory_format=torch.channels_last)
        target = torch.stack([t.target for t in batch]).to(self.device)
        gaps = None
        if batch[0].gaps is not None:
            gaps = torch.stack([t.gaps for t in batch if t.gaps is not None]).to(self.device)
        self.network.train()
        geometry = self.maker.geometry
        start = geometry.margin - geometry.shrink
        kept = slice(start, start + self.maker.out)
        with self.precision.passes():
            logits = self.network(x)[:, :, kept, kept]
        loss = self._loss(logits.float(), target, gaps)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise NonFiniteError(f"the loss is {value} at step {self.step + 1}")
        self.optimiser.zero_grad(set_to_none=True)
        scaler = self.precision.scaler
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if self.options.clip:
            scaler.unscale_(self.optimiser)
            nn.utils.clip_grad_norm_(self.network.parameters(), self.options.clip)
        scaler.step(self.optimiser)
        scaler.update()
        self.schedule.step()
        if self.average is not None:
            self.average.update(self.network)
        return value

    def _loss(self, logits: Tensor, target: Tensor, gaps: Tensor | None) -> Tensor:
        activation = self.recipe.output.activation
        if activation == "linear":
            known = target.isfinite()
            weight = known.all(1).float()
            target = (target - self.centre[:, None, None]) / self.spread[:, None, None]
            return self.loss(logits, torch.where(known, target, torch.zeros_like(target)), weight)
        weight = self._weigh(target, gaps)
        if activation == "sigmoid":
            return self.loss(logits, (target == 1).float()[:, None], weight)
        return self.loss(logits, target, weight)

    def _weigh(self, target: Tensor, gaps: Tensor | None) -> Tensor:
        options = self.options
        return weight_map(
            target, gaps, self.class_weights.to(target.device), options.border_weight,
            options.border_sigma,
        )  # fmt: skip

    def draw_tiles(self) -> None:
        """A picture of what the network will be shown, before it is."""
        from tilepipe.training.pictures import draw_tiles

        draw_tiles(self.maker, self._weigh, self.state.tiles_file)

    def _judged(self) -> UNet:
        network = self.average.network if self.average is not None else self.network
        assert isinstance(network, UNet)
        return network

    def _model(self, network: UNet, about: dict[str, Any] | None = None) -> Model:
        if self.recipe.output.activation == "linear":
            network = deepcopy(network)
            _rescale_head(network, self.spread, self.centre)
        return build_model(
            network, self.recipe.input, self.recipe.output,
            name=Path(self.options.output).stem, about=about,
        )  # fmt: skip

    def _look(self) -> bool:
        """Judge, log, checkpoint; whether to stop."""
        self.watch.stage("looking at the validation images")
        network = self._judged()
        _check_weights(network, self.step)
        scores = self._scores(network)
        metric = self.recipe.metric
        better = scores is None or self.best is None or _better(
            scores[metric], self.best["score"], metric
        )  # fmt: skip
        if better:
            self.best = {
                "step": self.step,
                "score": scores[metric] if scores else math.nan,
                "scores": {"loss": scores.loss, **scores.values} if scores else {},
                "weights": {k: v.detach().cpu().clone() for k, v in network.state_dict().items()},
            }
            self.since_best = 0
        else:
            self.since_best += 1
        rate = self.optimiser.param_groups[0]["lr"]
        row: dict[str, Any] = {
            "step": self.step, "seconds": round(self.seconds, 1), "lr": f"{rate:.4g}",
            "loss": round(self.total / self.count, 5),
        }  # fmt: skip
        if scores is not None:
            row["validation_loss"] = round(scores.loss, 5)
            row |= {name: round(value, 5) for name, value in scores.values.items()}
            self.schedule.look(scores[metric])
        self.rows.append(row)
        self.total, self.count = 0.0, 0
        self.state.write_log(self.rows)
        self.state.save(self._checkpoint())
        self.watch.look(row, better)
        return self._has_enough()

    def _has_enough(self) -> bool:
        return bool(self.options.patience) and self.since_best >= self.options.patience

    def _scores(self, network: UNet) -> Scores | None:
        if not self.recipe.validation:
            return None
        model = self._model(network)
        device = Device(model, self.recipe.device, "fp32", self.recipe.threads)
        try:
            scheme = self.recipe.survey.scheme
            wanted = scheme.kind == "instances" and (
                self.recipe.metric == "object-f1" or bool(scheme.border)
            )
            return validate(model, device, self.judged, scheme, objects=wanted)
        except NonFiniteError as error:
            raise NonFiniteError(f"after step {self.step}, {error}") from error
        finally:
            device.close()

    def _checkpoint(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "seconds": self.seconds,
            "total": self.total,
            "count": self.count,
            "rows": self.rows,
            "since_best": self.since_best,
            "best": self.best,
            "network": self.network.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.precision.scaler.state_dict(),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.step, self.seconds, self.rows = state["step"], state["seconds"], state["rows"]
        self.total, self.count = state["total"], state["count"]
        self.since_best, self.best = state["since_best"], state["best"]
        self.network.load_state_dict(state["network"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.precision.scaler.load_state_dict(state["scaler"])

    def _finish(self, target: Path, stopped: bool) -> TrainSummary:
        options, best = self.options, self.best
        network = self._judged()
        step, scores = self.step, self.rows[-1] if self.rows else {}
        if options.keep == "best" and best is not None:
            network.load_state_dict(best["weights"])
            step, scores = best["step"], best["scores"]
        figures = {
            k: v for k, v in scores.items() if k not in ("step", "seconds", "lr", "loss")
        } if self.recipe.validation else {}  # fmt: skip
        self._write(target, network, step, figures)
        self.watch.stage("drawing curves and the validation sheet")
        from tilepipe.training.pictures import draw_curves, draw_sheet

        draw_curves(self.rows, self.recipe.metric, step, self.state.curves_file)
        if self.recipe.validation:
            model = load_model(target)
            draw_sheet(model, self.judged, self.recipe.survey.scheme, self.state.sheet_file)
        return TrainSummary(
            target, self.state.folder, self.step, step if best else None, figures,
            self.seconds, stopped,
        )  # fmt: skip

    def _write(self, target: Path, network: UNet, step: int, figures: dict[str, float]) -> None:
        if self.options.fold:
            network = fold_batch_normalisation(network)
        recipe = self.recipe
        about: dict[str, Any] = {
            **self.options.about,
            "training": {
                "images": len(recipe.training),
                "validation_images": len(recipe.validation),
                "steps": step,
                "loss": recipe.loss,
                "seed": self.options.seed,
            },
        }
        # A class that no validation image has, has no score.
        defined = {k: round(float(v), 4) for k, v in figures.items() if math.isfinite(v)}
        if defined:
            about["validation"] = defined
        dtype = torch.float16 if self.options.store == "float16" else torch.float32
        save_model(target, self._model(network, about), dtype=dtype)

    def keep_last_good(self, target: Path) -> bool:
        """Write the best weights so far, if there are any."""
        if self.best is None:
            return False
        network = self._judged()
        network.load_state_dict(self.best["weights"])
        self._write(target, network, self.best["step"], {})
        return True


class _Asked:
    """Whether somebody asked to stop (Ctrl-C, SIGTERM): once, and the step is ended first.

    Asked again, it stops where it is, and what came after the last checkpoint is lost.
    """

    to_stop = False

    def __enter__(self) -> _Asked:
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: Any) -> None:
        if self.to_stop:
            raise KeyboardInterrupt
        self.to_stop = True


def _rescale_head(network: UNet, factor: Tensor, shift: Tensor) -> None:
    """Make a network give ``factor`` times what it gave, plus ``shift``, for each output."""
    with torch.no_grad():
        network.head.weight.mul_(factor[:, None, None, None])
        assert network.head.bias is not None
        network.head.bias.mul_(factor).add_(shift)


def _take_over(network: UNet, start: Model) -> None:
    """Copy what fits of another network's weights; the rest stays as it was drawn."""
    given = start.network.state_dict()
    own = network.state_dict()
    for name, tensor in own.items():
        source = given.get(name)
        if source is None:
            continue
        if source.shape == tensor.shape:
            tensor.copy_(source)
        elif name == "down.0.0.weight" and source.shape[0] == tensor.shape[0]:
            # Other bands: each begins as the mean of the old ones, the sum of the same size.
            mean = source.mean(1, keepdim=True) * source.shape[1] / tensor.shape[1]
            tensor.copy_(mean.expand_as(tensor))
    network.load_state_dict(own)


def _check_target(target: Path, options: TrainOptions) -> None:
    if target.suffix != ".safetensors":
        raise InputError(f"{target}: the name of a model file ends in .safetensors")
    require_writable(target)


def _better(score: float, best: float, metric: str) -> bool:
    # Where nothing can be scored, later weights are better than earlier ones.
    if math.isnan(best):
        return True
    if math.isnan(score):
        return False
    return score < best if metric in LOWER_IS_BETTER else score > best


def _check_weights(network: UNet, step: int) -> None:
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise NonFiniteError(f"the weights {name} are not finite after step {step}")


@contextmanager
def _named_troubles(recipe: Recipe, state: TrainingState) -> Iterator[None]:
    """Memory and disk that end: say which option to lower, and that nothing is lost."""
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
            "the same command goes on from the last checkpoint"
        ) from error
