"""The image, model and mask that a worker process opens once for a run."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from tilepipe.engine.inputs import model_of_run, open_planned
from tilepipe.engine.plan.plan import Plan, at_model_scale, check_environment
from tilepipe.engine.state.folder import RunState
from tilepipe.engine.state.network import as_planned
from tilepipe.engine.work.device import Device
from tilepipe.engine.work.environment import environment, gpu_of_worker, relevant_to
from tilepipe.errors import EnvironmentFailure, InputError, TilepipeError, UnfitWorkerError
from tilepipe.images import Image
from tilepipe.images.helpers import set_helpers
from tilepipe.models.file import Model
from tilepipe.products.product import Product
from tilepipe.products.store import ZarrMask, open_zarr_mask, require_products
from tilepipe.storage import as_path

WRITERS = 3
"""Blocks that are written to a disk at once. Each is many small files, and their writers wait for
each other in the interpreter and in the file system: three write half as much again as twelve."""


class SupersededError(EnvironmentFailure):
    """A newer run of the same output has begun, so this task must not write."""


class WorkerContext:
    """The plan, the image, the model on its device, and the mask, opened once per process."""

    def __init__(self, store: str, device: str | None = None) -> None:
        self.state = RunState(as_path(store))
        plan = self.state.read_plan()
        if plan is None:
            raise InputError(
                f"{store}: this worker does not see the output; it must be on a disk that the "
                "client and all workers share, at the same path"
            )
        self.plan: Plan = plan
        self.image: Image = at_model_scale(open_planned(plan.image), plan.image)
        if self.image.fingerprint() != plan.image.fingerprint:
            raise InputError(
                f"{plan.image.path}: on this worker, it is not the image that the run began with; "
                "it must be the same file on every worker"
            )
        model = model_of_run(plan.model)
        if model.fingerprint != plan.model_fingerprint:
            raise InputError(
                f"{plan.model}: on this worker, it is not the model that the run began with"
            )
        model = as_planned(plan, model, as_path(store))
        require_products(as_path(store), plan.extras)
        self.mask: ZarrMask = open_zarr_mask(as_path(store))
        on = device or plan.device
        if not self.state.allows_mixed():
            here = environment(on, plan.threads) | model.predictor.versions(plan.runtime)
            check_environment(plan, relevant_to(here, plan.precision))
        self.device: Device = _devices.take(model, on, plan)
        # A pass on a GPU leaves the cores that the plan counts for one to reading.
        set_helpers(0 if on == "cpu" else plan.threads - 1)
        local = isinstance(self.mask.path, Path)
        self.writing: AbstractContextManager[Any]
        self.writing = threading.BoundedSemaphore(WRITERS) if local else nullcontext()
        """Held while a block is written."""
        self.users = 0
        """The number of tasks that use the context."""
        self.left = False
        """Whether the run has ended, so that the last task closes the context."""

    @property
    def products(self) -> tuple[Product, ...]:
        """The products of the run, in the order of the mask's layers."""
        return self.mask.products

    def require_current(self, run_id: str) -> None:
        """Raise `SupersededError` if another run may write now."""
        if self.state.current_run() != run_id:
            raise SupersededError(f"{self.state.store}: a newer run has taken over")

    def close(self) -> None:
        """Release the device and the files."""
        _devices.give_back(self.device)
        self.image.close()


class _Devices:
    """The devices of this process. Runs of the same model share one, so that passes take turns."""

    def __init__(self) -> None:
        self._open: dict[tuple[Any, ...], Device] = {}
        self._users: dict[int, int] = {}

    def take(self, model: Model, on: str, plan: Plan) -> Device:
        """The device for a plan, shared with other runs."""
        key = (model.fingerprint, on, plan.precision, plan.threads, plan.runtime)
        device = self._open.get(key)
        if device is None:
            device = self._open[key] = Device(model, on, plan.precision, plan.threads, plan.runtime)
        self._users[id(device)] = self._users.get(id(device), 0) + 1
        return device

    def give_back(self, device: Device) -> None:
        """Close a device if no other run uses it."""
        self._users[id(device)] -= 1
        if self._users[id(device)] == 0:
            del self._users[id(device)]
            self._open = {key: other for key, other in self._open.items() if other is not device}
            device.close()


_devices = _Devices()
_contexts: dict[str, WorkerContext] = {}
_opening = threading.Lock()


def worker_context(store: str, run_id: str, worker: Any = None) -> WorkerContext:
    """The context of this process for a run, opened at the first call."""
    with _opening:
        context = _contexts.get(run_id)
        if context is None:
            # Close the contexts of runs that have ended, but not of others that still run.
            for old, other in list(_contexts.items()):
                if other.state.current_run() != old:
                    _release(_contexts.pop(old))
            state = RunState(as_path(store))
            plan = state.read_plan()
            if plan is not None and state.current_run() != run_id:
                raise SupersededError(f"{store}: that run has ended, or a newer one has begun")
            name, bound = identity(worker or this_worker())
            device = gpu_of_worker(plan.device, name, bound=bound) if plan else None
            try:
                context = WorkerContext(store, device)
            except InputError as error:
                address = "" if (here := worker or this_worker()) is None else here.address
                raise UnfitWorkerError(str(error), address) from error
            _contexts[run_id] = context
        return context


def release_context(run_id: str) -> None:
    """Close the context of a run, after its last task."""
    with _opening:
        if run_id in _contexts:
            _release(_contexts.pop(run_id))


def _release(context: WorkerContext) -> None:
    context.left = True
    if context.users == 0:
        context.close()


@contextmanager
def borrowed(store: str, run_id: str) -> Iterator[WorkerContext]:
    """The context of a run, kept open as long as the task lasts."""
    context = worker_context(store, run_id)
    with _opening:
        context.users += 1
    try:
        yield context
    finally:
        with _opening:
            context.users -= 1
            if context.left and context.users == 0:
                context.close()


def prepare(store: str, run_id: str, dask_worker: Any = None) -> dict[str, str]:
    """Open the context of a run, or report why this worker cannot."""
    try:
        worker_context(store, run_id, dask_worker)
    except TilepipeError as error:
        return {"error": str(error)}
    return {}


def this_worker() -> Any:
    """The Dask worker that runs the calling task; None in the worker inside the client."""
    distributed = sys.modules.get("distributed")  # a Dask worker has loaded it
    if distributed is None:
        return None
    try:
        return distributed.get_worker()
    except ValueError:
        return None


def identity(worker: Any) -> tuple[Any, bool]:
    """The name of a Dask worker, and whether dask-cuda bound it to a GPU."""
    if worker is None:
        return 0, False
    plugins = worker.plugins.values()
    return worker.name, any(type(p).__module__.startswith("dask_cuda") for p in plugins)
