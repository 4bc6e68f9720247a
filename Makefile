# make run               set up, fetch a sample, segment it, show its nuclei
# make run IMAGE=a.svs   segment your own image (more options in ARGS="...")
# make check             lint, types and the quick tests: before each commit
# make test              all tests, in random order (more options in ARGS="...")
# make fuzz              thousands of damaged files of each kind (more options in ARGS="...")
# make lint              ruff and mypy
# make bench             all benchmarks (hours); ARGS="--quick" to see that they work
# make faults            kill, starve and damage runs, a hundred times and more (minutes)
#
# Tests run in two processes; JOBS=8 uses eight, JOBS=0 one that a debugger can attach to.

PYTHON ?= python3
JOBS ?= 2
BIN := .venv/bin
INSTALLED := .venv/.installed
SAMPLE := out/sample.tif
MASK := out/sample_mask
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

.PHONY: run check test lint faults fuzz format bench clean install

run: $(INSTALLED) $(if $(IMAGE),,$(SAMPLE))
ifdef IMAGE
	$(BIN)/tilepipe run "$(IMAGE)" $(ARGS)
else
	cd out && ../$(BIN)/tilepipe run sample.tif $(ARGS)
	@echo
	@if test -d $(MASK).ome.zarr; then $(BIN)/python workflows/first_picture.py \
		$(SAMPLE) $(MASK).ome.zarr out/sample_nuclei.png; fi
	@echo
	@echo "Look at out/sample_nuclei.png first. Then, for example:"
	@echo "  QuPath   open $(SAMPLE), and drag out/sample_objects.geojson onto it"
	@echo "  napari   $(BIN)/tilepipe convert $(SAMPLE) out/sample.ome.zarr"
	@echo "           napari out/sample.ome.zarr $(MASK).ome.zarr"
	@echo "  objects  $(BIN)/tilepipe objects $(MASK).ome.zarr -o out/nuclei.csv"
	@echo "  proof    $(BIN)/tilepipe verify $(MASK).ome.zarr"
	@echo "  yours    make run IMAGE=slide.svs"
endif

check: lint
	$(PYTEST) -m "not slow" $(ARGS)

test: $(INSTALLED)
	$(PYTEST) $(ARGS)

fuzz: $(INSTALLED)
	$(BIN)/python -m tests.fuzz --count 3000 --keep out/fuzz $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

faults: $(INSTALLED)
	$(BIN)/python -m tests.faults.suite --json out/faults.json $(ARGS)

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED)
	$(BIN)/python benchmarks/suite.py $(ARGS)

clean:
	rm -rf .venv out

# A mask of another sample would not be resumed.
$(SAMPLE): workflows/make_sample.py | $(INSTALLED)
	@rm -rf $(MASK).*
	@$(BIN)/python workflows/make_sample.py $(SAMPLE)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[sample,test,lint]'
	@touch $@
