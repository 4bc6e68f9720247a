"""The quantised network of a run, kept with its output.

It lies beside the frozen plan, which knows it by its hash, and once the store is gone (an output
that is no OME-Zarr) beside the run record.
"""

from __future__ import annotations

from tilepipe.engine.plan.plan import Plan
from tilepipe.engine.state.folder import RunState, read_document
from tilepipe.engine.state.run_record import record_path, recorded_names
from tilepipe.errors import InputError
from tilepipe.models.predictors.quantised import network_hash, with_network
from tilepipe.models.specs import Model
from tilepipe.storage import StoragePath, write_whole


def network_beside(record: StoragePath) -> StoragePath:
    """The file beside a run record ``NAME.run.json``: ``NAME.network.zip``."""
    return record.with_name(record.name.removesuffix(".run.json") + ".network.zip")


def keep_network(state: RunState, record: StoragePath) -> None:
    """Copy the network, if the run has one, to where it outlives the store."""
    if state.network_file.exists():
        write_whole(network_beside(record), state.network_file.read_bytes())


def as_planned(plan: Plan, model: Model, mask: StoragePath) -> Model:
    """The model as a run computes it: with the quantised network, if it has one.

    Parameters
    ----------
    plan
        Of the run.
    model
        As its file has it.
    mask
        The store of the run, or any of its outputs.

    Raises
    ------
    InputError
        Where the network is missing, or not as the run wrote it.
    """
    if plan.network is None:
        return model
    places = _places(mask)
    found = next((place for place in places if place.exists()), None)
    if found is None:
        raise InputError(
            f"{places[0]}: is missing, the quantised network that computed {mask.name}; put the "
            "file back, or start over with `tilepipe run --overwrite`"
        )
    content = found.read_bytes()
    try:
        if network_hash(content) == plan.network:
            return with_network(model, content)
    except ValueError:
        pass  # of an altered plan
    raise InputError(
        f"{found}: is not the quantised network that the run wrote; put the file back as it was, "
        "or start over with `tilepipe run --overwrite`"
    )


def _places(mask: StoragePath) -> list[StoragePath]:
    """Where the network of a mask may lie."""
    if RunState(mask).folder.is_dir():
        return [RunState(mask).network_file]
    record = record_path(mask)
    stores = [name for name in recorded_names(read_document(record)) if name.endswith(".zarr")]
    return [
        network_beside(record), *(RunState(mask.with_name(name)).network_file for name in stores)
    ]  # fmt: skip
