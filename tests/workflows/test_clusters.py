"""The cluster files of `workflows/` say what the classes that they name understand."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml

from tilepipe.engine.cluster.cluster_file import KINDS, ClusterFile, read_cluster_file
from tilepipe.errors import InputError

FOLDER = Path(__file__).parents[2] / "workflows" / "clusters"
NAMES = ("local", "cuda", "ssh", "slurm", "pbs", "kubernetes")


def test_all_are_tested() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(NAMES)


def read(name: str) -> tuple[ClusterFile, Any]:
    file = read_cluster_file(str(FOLDER / f"{name}.yaml"))
    assert file.kind is KINDS[name]
    try:
        return file, file.factory()
    except InputError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_sound_and_its_arguments_are_known(name: str) -> None:
    file, factory = read(name)
    known = set(inspect.signature(factory).parameters)
    if name in ("local", "cuda"):  # which hand the rest on
        from distributed import LocalCluster, Nanny, Worker

        for other in (LocalCluster, Nanny, Worker):
            known |= set(inspect.signature(other).parameters)
    if name == "ssh":  # a function that does so
        from distributed import SpecCluster

        known |= set(inspect.signature(SpecCluster).parameters)
    if name in ("slurm", "pbs"):
        for cls in (*factory.__mro__, *factory.job_cls.__mro__):
            known |= set(inspect.signature(cls).parameters)
    assert set(file.full_arguments()) <= known


@pytest.mark.parametrize(
    ("name", "asked"), [("slurm", "#SBATCH -p normal"), ("pbs", "#PBS -q workq")]
)
def test_the_script_of_a_job_is_what_the_file_says(name: str, asked: str) -> None:
    file, factory = read(name)
    arguments = file.full_arguments()
    for of_the_scheduler in ("scheduler_options", "silence_logs"):
        del arguments[of_the_scheduler]
    script = factory.job_cls("tcp://head:8786", name="one", **arguments).job_script()
    assert asked in script
    assert "01:00:00" in script
    assert "--lifetime 55m" in script
    # Cores are for a pass; three blocks are in hand. The last one counts.
    assert script.rindex("--nthreads 3") > script.index("--nthreads 16")
    assert file.threads == 16


@pytest.mark.parametrize("name", ["slurm", "pbs"])
def test_jobs_of_a_file_that_asks_for_it_have_a_key(name: str, tmp_path: Path) -> None:
    _, factory = read(name)
    asked = {"security": True, "protocol": "tls", "shared_temp_directory": str(tmp_path)}
    text = yaml.safe_dump({"cluster": name, "arguments": {"cores": 2, "memory": "4GB", **asked}})
    (tmp_path / "keys.yaml").write_text(text)
    file = read_cluster_file(str(tmp_path / "keys.yaml"))
    with factory(**file.full_arguments()) as cluster:
        assert cluster.scheduler_address.startswith("tls://")
        script = cluster.job_script()
        keys = [word for word in script.split() if word.startswith(str(tmp_path))]
        assert len(keys) == 3  # of the certificate authority, the certificate and the key
        assert not any(Path(key).stat().st_mode & 0o077 for key in keys)
        pages = cluster.scheduler.http_server
        assert pages.address == "127.0.0.1"


@pytest.mark.parametrize("name", NAMES)
def test_no_example_serves_pages_to_others(name: str) -> None:
    assert not read_cluster_file(str(FOLDER / f"{name}.yaml")).has_dashboard
