"""`objects`: the objects of a finished mask, whoever made it, at any time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tilepipe.engine.hardware import cores, default_memory
from tilepipe.engine.inputs import open_planned
from tilepipe.engine.options import image_stem
from tilepipe.engine.plan.plan import Plan, at_model_scale
from tilepipe.engine.planning.objects import changed, with_classes
from tilepipe.engine.run.convert import unfinished
from tilepipe.engine.run.placing import image_place, place_without_image, placed_by_size
from tilepipe.engine.run.run import environment_errors_classified
from tilepipe.engine.state.folder import RunState, read_document
from tilepipe.engine.state.outputs import objects_suffix
from tilepipe.engine.state.run_record import record_path
from tilepipe.errors import InputError
from tilepipe.images import open_image
from tilepipe.images.base import alike
from tilepipe.models.file import Model, load_model
from tilepipe.models.object_rule import ObjectRule
from tilepipe.objects.areas import answered_area
from tilepipe.objects.build import build_objects
from tilepipe.objects.formats.registry import objects_format, require_installed, write_objects
from tilepipe.objects.job import (
    LARGEST_SIDE,
    Intensity,
    ObjectsJob,
    Workspace,
    side_for,
    start,
)
from tilepipe.objects.mappers import in_processes, processes_for
from tilepipe.objects.measures import has_probabilities
from tilepipe.objects.options import ObjectsOptions
from tilepipe.objects.rules import part_table
from tilepipe.objects.shaped import Shape, shaped
from tilepipe.objects.summary import ObjectsSummary, summarise_objects
from tilepipe.objects.table import ImagePlace, ObjectsInfo, ObjectTable, open_table
from tilepipe.products.any_mask import open_any_mask
from tilepipe.products.base import Mask, MaskSpec
from tilepipe.products.class_table import ClassTable, read_class_table
from tilepipe.products.instances import open_instances
from tilepipe.products.rewrite import spec_of
from tilepipe.storage import (
    InputRefused,
    StoragePath,
    as_path,
    make_folder,
    readable,
    remove,
    require_writable,
    staged_locally,
    within,
    zarr_around,
)
from tilepipe.storage.hashing import identity_below
from tilepipe.storage.lock import LockedError, holding_lock

OnStep = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Found:
    """What `find_objects` made."""

    outputs: tuple[StoragePath, ...]
    summary: ObjectsSummary
    rule: ObjectRule
    warnings: tuple[str, ...] = ()
    regions: Any = None
    """Figures of each region (`tilepipe.objects.regions.RegionsSummary`), if asked for."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "outputs": [str(path) for path in self.outputs],
            "rule": self.rule.to_json(),
            "objects": self.summary.to_json(),
            **({} if self.regions is None else {"regions": self.regions.to_json()}),
            "warnings": list(self.warnings),
        }


def find_objects(options: ObjectsOptions, on_step: OnStep = lambda _title: None) -> Found:
    """Make the objects of a mask, and files of them; see `tilepipe.objects`."""
    with environment_errors_classified():
        return _Finding(options, on_step).run()


class _Finding:
    """One call: what was asked for, and what follows from the mask."""

    def __init__(self, options: ObjectsOptions, on_step: OnStep) -> None:
        self.options, self.on_step = options, on_step
        self.warnings: list[str] = []
        self.path = readable(options.mask)

    def run(self) -> Found:
        """Do everything."""
        if self.options.simplify and self.options.smooth:
            raise InputError("simplify and smooth: outlines are one or the other; leave one out")
        with closing(open_any_mask(self.options.mask)) as mask:
            self.plan = plan_of(self.path)
            self.model = self._model()
            self.spec = self._spec(mask)
            self.rule = self._rule()
            outputs = self._outputs()
            place, intensity = self._image()
            self._read_layer(place)
            folder = outputs[0].with_name(f"{outputs[0].name}.unfinished")
            with (
                _locked(folder),
                _removed_if_refused(folder),
                environment_errors_classified(folder),
            ):
                work = start(folder, self._job(mask, intensity, folder))
                table = self._table(work, place)
                regions = self._regions(table, mask, outputs[0])
                self._density(table, mask, outputs[0])
                self.on_step("summary")
                summary = summarise_objects(table, answered_area(mask, self.spec))
                self._write(work, table, outputs)
                remove(folder)
        return Found(outputs, summary, self.rule, tuple(self.warnings), regions)

    def _model(self) -> Model | None:
        """The model that the user names, or the one that made the mask, if it is still there."""
        if self.options.model is not None:
            return load_model(self.options.model)
        if self.plan is None or self.plan.objects is not None:
            return None
        try:
            return load_model(self.plan.model)
        except InputError:
            return None

    def _spec(self, mask: Mask) -> MaskSpec:
        options, table = self.options, None
        if options.classes is not None and options.model is not None:
            raise InputError("the classes are given twice: by --classes, and by --model; give one")
        if options.classes is not None:
            table = read_class_table(options.classes)
        elif options.model is not None and self.model is not None:
            table = ClassTable.of(self.model.output)
        missing = unfinished(mask)
        if missing is not None and not options.partial:
            raise InputError(
                f"{options.mask}: {missing}; repeat the command that made it, or take what is "
                "there with --partial"
            )
        return spec_of(mask, table, partial=missing is not None)

    def _rule(self) -> ObjectRule:
        options = self.options
        rule = self.plan.objects if self.plan is not None else None
        if rule is None or options.model is not None:
            rule = None if self.model is None else self.model.output.objects
        rule = self._scaled(rule or ObjectRule())
        if options.method != "auto" and options.method != rule.method:
            border = options.border or ""
            if options.method == "seeded" and not border:
                raise InputError("seeded objects grow into a border; name its class: --border NAME")
            rule = replace(rule, method=options.method, border=border)
        rule = changed(
            rule, self.spec, options.min_area, options.max_hole, fill_holes=options.fill_holes,
            classes=options.only or None, border=options.border, reach=options.reach,
            depth=options.depth, specks=options.specks,
        )  # fmt: skip
        return with_classes(rule, self.spec)

    def _scaled(self, rule: ObjectRule) -> ObjectRule:
        """The rule of a model for a mask whose pixels have another size than the model's."""
        said = self.plan.mask.pixel_size if self.plan is not None else None
        if self.options.model is not None and self.model is not None:
            said = self.model.input.pixel_size
        here = self.spec.pixel_size
        if said is None or here is None or said.unit != here.unit or alike(said.x, here.x):
            return rule
        self.warnings.append(
            f"the mask has {here.x:g} {here.unit} pixels, and its model {said.x:g}: the sizes in "
            "the model's rule for objects are scaled, and objects are split less well"
        )
        return rule.scaled(said.x / here.x)

    def _outputs(self) -> tuple[StoragePath, ...]:
        given = self.options.outputs or (self._default_output(),)
        outputs = tuple(as_path(path).absolute() for path in given)
        if twice := [path for path in outputs if outputs.count(path) > 1]:
            raise InputError(f"the output {twice[0]} is named twice")
        for path in outputs:
            kind = objects_format(path)
            if kind is None and not is_instances(path):
                raise InputError(
                    f"{path}: objects cannot be written in this format; use .geojson, .gpkg, .fgb, "
                    ".parquet, .csv or .spatialdata.zarr; or for their numbers .ome.zarr, "
                    ".objects.ome.tif or .objects.tif"
                )
            if kind is not None:
                require_installed(path, kind)
            require_writable(path)
            if (around := zarr_around(path)) is not None:
                raise InputError(f"{path}: lies inside {around}, which is a zarr; choose another")
            if within(self.path, path):
                raise InputError(f"{path}: is the mask, or contains it; choose another name")
            if path.exists() and not self.options.overwrite:
                raise InputError(f"{path} exists; choose another name, or add --overwrite")
        return outputs

    def _default_output(self) -> str:
        return f"{image_stem(self.path.name)}_objects{objects_suffix(self.spec.crs is not None)}"

    def _image(self) -> tuple[ImagePlace | None, Intensity | None]:
        """How the mask lies on its image, and the image to measure, if that is asked for."""
        options, plan = self.options, self.plan
        on_model_grid = plan is not None and plan.mask.grid.shape == self.spec.grid.shape
        place = place_without_image(self.spec, plan)
        if options.image is None and place is not None and not options.intensity:
            return place, None
        if options.image is None and plan is None:
            raise InputError("intensity: which image is the mask of? Give --image PATH")
        try:
            image = self._opened_image()
        except InputError as error:
            if options.image is not None:
                raise
            raise InputError(f"{error}; give the image of the mask with --image PATH") from error
        with closing(image):
            if plan is not None and on_model_grid:
                place = image_place(at_model_scale(image, plan.image), plan)
                level, factors = plan.image.level, plan.image.factors
            else:
                place, level, factors = placed_by_size(image, self.spec), 0, None
                if options.intensity and image.levels[0].height != self.spec.height:
                    raise InputError(
                        f"{image.path}: has another scale than the mask; intensities are measured "
                        "where tilepipe made the mask of this image, or where sizes are equal"
                    )
            intensity = Intensity(
                image.path, image.fingerprint(), json.dumps(image.reading.to_json()), level, factors
            )
        return place, intensity if options.intensity else None

    def _opened_image(self) -> Any:
        if self.plan is not None:
            image = open_planned(self.plan.image, self.options.image)
            if image.fingerprint() == self.plan.image.fingerprint:
                return image
            path = image.path
            image.close()
            raise InputError(f"{path}: is not the image that the mask was made of")
        return open_image(str(self.options.image))

    def _job(self, mask: Mask, intensity: Intensity | None, folder: StoragePath) -> ObjectsJob:
        names = [named.name for named in self.spec.classes]
        table = part_table(self.rule, mask.kind, names, self.spec.background)
        limit = self.options.memory or default_memory()
        return ObjectsJob(
            str(self.path.absolute()), identity_below(self.path), *self.spec.grid.shape, self.rule,
            table, str(folder / "objects"), side_for(limit, self._processes(limit)),
            probabilities=has_probabilities(mask), intensity=intensity,
        )  # fmt: skip

    def _processes(self, memory: int) -> int:
        if self.options.workers is not None:
            return self.options.workers
        tiles = -(-self.spec.height // LARGEST_SIDE) * -(-self.spec.width // LARGEST_SIDE)
        return processes_for(memory, cores(), tiles)

    def _table(self, work: Workspace, place: ImagePlace | None) -> ObjectTable:
        target = as_path(work.job.target)
        if work.is_done("table"):
            return open_table(target / "table")
        model = self.model
        made: dict[str, Any] = {} if self.plan is None else {
            "name": self.plan.model, "fingerprint": self.plan.model_fingerprint,
        }  # fmt: skip
        if model is not None:
            made = {"name": model.name, "fingerprint": model.fingerprint, "about": model.about}
        info = ObjectsInfo(
            self.spec, (), 0, place, self.rule.to_json(), made,
            partial="the run of the mask was not finished" if self.spec.partial else "",
        )  # fmt: skip
        limit = self.options.memory or default_memory()
        with in_processes(self._processes(limit)) as compute:
            return build_objects(work, self.spec, info, compute, self.on_step)

    def _read_layer(self, place: ImagePlace | None) -> None:
        """Open the layer of regions, so that what is wrong with it is said at once."""
        self.layer = None
        if self.options.per is not None:
            from tilepipe.objects.regions import layer_for

            self.layer = layer_for(self.options.per, ObjectsInfo(self.spec, (), 0, place))
            self.warnings += self.layer.warnings

    def _regions(self, table: ObjectTable, mask: Mask, first: StoragePath) -> Any:
        if self.layer is None:
            return None
        from tilepipe.objects.region_files import write_regions
        from tilepipe.objects.regions import summarise_regions

        self.on_step("regions")
        regions = summarise_regions(table, mask, self.layer)
        for path in self.options.per_output or (_beside(first, ".regions.csv"),):
            write_regions(regions, as_path(path))
        return regions

    def _density(self, table: ObjectTable, mask: Mask, first: StoragePath) -> None:
        if self.options.density is None:
            return
        from tilepipe.objects.density import density_map

        self.on_step("density")
        for path in self.options.density_output or (_beside(first, ".density.tif"),):
            made = density_map(table, mask, self.options.density, as_path(path))
            if made.unplaced:
                self.warnings.append(
                    f"{made.unplaced} objects have their centre where the mask has no answer, and "
                    "are not in the density map"
                )

    def _write(self, work: Workspace, table: ObjectTable, outputs: tuple[StoragePath, ...]) -> None:
        shape: Shape = "exact"
        if self.options.simplify or self.options.smooth:
            shape = "smooth" if self.options.smooth else "simple"
        labels = open_instances(as_path(work.job.target))
        for path in sorted(outputs, key=is_instances):  # the store is moved, so it comes last
            self.on_step(f"writing {path.name}")
            with staged_locally(path) as local:
                if is_instances(path):
                    remove(work.path / "job.json")  # a later call finds nothing to go on with
                    _take_store(as_path(work.job.target), local)
                else:
                    write_objects(shaped(table, shape), local, labels)


def is_instances(path: StoragePath) -> bool:
    """Whether a path is for the numbers of objects as OME-Zarr."""
    return objects_format(path) is None and path.name.lower().endswith(".ome.zarr")


def plan_of(mask: StoragePath) -> Plan | None:
    """The plan of the run that made a mask, from its store or from the record beside it."""
    if mask.is_dir() and (plan := RunState(mask).read_plan()) is not None:
        return plan
    with InputRefused():
        document = read_document(record_path(mask))
    try:
        return Plan.from_json(json.dumps(document["plan"]))
    except (KeyError, TypeError, ValueError):
        return None


def _beside(path: StoragePath, suffix: str) -> str:
    name = path.name
    kind = objects_format(path)
    for each in (*(kind.suffixes if kind else ()), ".ome.zarr"):
        if name.lower().endswith(each):
            name = name[: -len(each)]
            break
    return str(path.with_name(name + suffix))


def _take_store(made: StoragePath, path: Path) -> None:
    """Move the finished store of numbers to its name, or bring it there from an object store."""
    remove(path)
    if isinstance(made, Path):
        made.rename(path)
        return
    for each in made.objects():
        file = path / str(each).removeprefix(f"{made}/")
        make_folder(file.parent)
        file.write_bytes(each.read_bytes())


@contextmanager
def _removed_if_refused(folder: StoragePath) -> Iterator[None]:
    """Remove a workspace that no later call can go on with, as the input is at fault."""
    try:
        yield
    except InputError:
        remove(folder)
        raise


@contextmanager
def _locked(folder: StoragePath) -> Iterator[None]:
    lock = folder.with_name(folder.name + ".lock")
    try:
        with holding_lock(lock):
            yield
    except LockedError:
        raise InputError(
            f"{folder}: another process is writing it; wait for it, or choose another -o"
        ) from None
    finally:
        if isinstance(lock, Path):
            lock.unlink(missing_ok=True)
