"""Install the peers, each into a virtual environment of its own; never into tilepipe's.

    python benchmarks/peers/install.py [loop dask monai geoai tiatoolbox] [--again]

They go to ``benchmarks/work/envs/NAME``. Every environment gets the same PyTorch, the one of
``constraints.txt``, and gets it first, so that nothing that follows asks for another build of it.
What was installed is kept beside the environment as ``NAME.txt`` (`pip freeze`).

TIAToolbox is the one that cannot be installed as its makers mean it:

- it allows PyTorch below the version that tilepipe pins, and pip would take another build for it.
  All tools must run the same kernels, so it is installed without its dependencies, and then these
  by name, at the versions that its metadata ask for, without PyTorch;
- its dependencies for notebooks, web pages and documentation (`UNUSED`) are left out. Nothing that
  `SemanticSegmentor` imports needs them, but for psutil, which it does not ask for and which comes
  with those (`UNDECLARED`);
- it imports torchvision. The wheel of torchvision is installed without its dependencies. Where its
  compiled part is for a CUDA build of PyTorch it does not load, and the Python part fails on
  import for want of the names of two operators, which ``tiatoolbox_peer.py`` then declares. Nothing
  that is measured here calls them.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent
WORK = Path(os.environ.get("TILEPIPE_BENCHMARKS", HERE.parent / "work"))  # as in common.py
ENVS = (WORK / "envs").resolve()
TORCH = "torch==2.13.0"
READING = ["numpy", "safetensors", "tifffile", "imagecodecs"]
TIATOOLBOX, TORCHVISION, MONAI = "tiatoolbox==2.1.3", "torchvision==0.28.0", "monai==1.6.1"
GEOAI = "geoai-py==0.40.1"
GEOAI_IMPORTS = ["rasterio", "tqdm", "geopandas", "rioxarray", "matplotlib", "leafmap"]
"""What `geoai.inference` imports; all that geoai asks for would bring another PyTorch."""
UNUSED = {
    "torch", "torchvision",  # see above
    "bokeh", "flask", "flask-cors", "ipywidgets", "jupyterlab", "sphinx",
}  # fmt: skip
UNDECLARED = ["psutil"]


class Environment:
    """A virtual environment under `ENVS`."""

    def __init__(self, name: str) -> None:
        self.folder = ENVS / name
        self.python = self.folder / "bin" / "python"
        self.list = ENVS / f"{name}.txt"
        """What was installed; it is there when the installation has ended well."""

    def create(self) -> None:
        """Begin it, with PyTorch."""
        if not self.python.exists():
            venv.create(self.folder, with_pip=True, symlinks=True)
        self.pip(TORCH)

    def pip(self, *words: str) -> None:
        """Install something."""
        subprocess.run(
            [self.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *words],
            check=True,
        )

    def says(self, code: str) -> list[str]:
        """What a line of Python prints in it."""
        run = subprocess.run([self.python, "-c", code], capture_output=True, text=True, check=True)
        return run.stdout.splitlines()

    def finish(self) -> None:
        """Refuse CUDA builds, and keep the list of what is there."""
        build = self.says("import torch; print(torch.version.cuda)")[0]
        freeze = subprocess.run(
            [self.python, "-m", "pip", "freeze", "--disable-pip-version-check"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        self.list.write_text(freeze)
        print(f"{self.folder.name}: ready; torch's CUDA is {build}", flush=True)


def loop(environment: Environment) -> None:
    """PyTorch and what reads a TIFF."""
    environment.pip(*READING)


def dask(environment: Environment) -> None:
    """The same with Dask's arrays and Zarr."""
    environment.pip(*READING, "dask[array]", "zarr")


def monai(environment: Environment) -> None:
    """MONAI."""
    environment.pip(*READING, MONAI)


def geoai(environment: Environment) -> None:
    """geoai, with what its tiled inference imports."""
    environment.pip("--no-deps", GEOAI)
    environment.pip(TORCH, *READING, *GEOAI_IMPORTS)


def tiatoolbox(environment: Environment) -> None:
    """TIAToolbox: see the head of this file."""
    environment.pip("--no-deps", TIATOOLBOX, TORCHVISION)
    wants = environment.says(
        "from importlib.metadata import requires; print(*requires('tiatoolbox'), sep='\\n')"
    )
    names = {line: re.match(r"[\w.-]+", line)[0].lower() for line in wants}
    environment.pip(
        TORCH,
        "safetensors",
        *UNDECLARED,
        *(line for line, name in names.items() if name not in UNUSED),
    )


PEERS = {"loop": loop, "dask": dask, "monai": monai, "geoai": geoai, "tiatoolbox": tiatoolbox}


def main() -> None:
    """Install those that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PEERS)}")
    parser.add_argument("--again", action="store_true", help="remove what is there first")
    options = parser.parse_args()
    if unknown := set(options.names) - set(PEERS):
        sys.exit(f"no peer is called {', '.join(unknown)}; there are {', '.join(PEERS)}")
    ENVS.mkdir(parents=True, exist_ok=True)
    for name in options.names or PEERS:
        environment = Environment(name)
        if environment.list.exists() and not options.again:
            print(f"{name}: is there (--again for anew)", flush=True)
            continue
        environment.list.unlink(missing_ok=True)
        if options.again:
            shutil.rmtree(environment.folder, ignore_errors=True)
        environment.create()
        PEERS[name](environment)
        environment.finish()


if __name__ == "__main__":
    main()
