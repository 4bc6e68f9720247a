"""How a user says that an image is to be read: options, and their way through JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tilepipe.engine.options import RunOptions
from tilepipe.errors import InputError
from tilepipe.images.reading import Reading

READINGS = [
    Reading(),
    Reading(series=2),
    Reading(series="overview"),
    Reading(nodata="none"),
    Reading(nodata=-9999.0),
    Reading(nodata=float("nan")),
    Reading(unscale=True),
    Reading(bands=(3, 2, 1)),
    Reading(bands=("red", "nir")),
    Reading(rescale=(0.0, 4000.0), dtype="uint8"),
]


@pytest.mark.parametrize("reading", READINGS, ids=repr)
def test_a_reading_survives_json(reading: Reading) -> None:
    text = json.dumps(reading.to_json(), allow_nan=False)
    assert repr(Reading.from_json(json.loads(text))) == repr(reading)


def test_the_plain_reading_says_nothing() -> None:
    assert Reading().to_json() == {}
    assert Reading().key == ""


def test_readings_that_differ_have_keys_that_differ() -> None:
    assert len({reading.key for reading in READINGS}) == len(READINGS)


@pytest.mark.parametrize(
    ("document", "said"),
    [({"gamma": 2.2}, "gamma"), ({"bands": 3}, "bands"), ([], "object"), ({"nodata": "x"}, "none")],
)
def test_what_a_reading_does_not_know_is_refused(document: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Reading.from_json(document)


@pytest.mark.parametrize(
    ("values", "reading"),
    [
        ({"bands": "3,2,1"}, Reading(bands=(3, 2, 1))),
        ({"bands": "red, nir"}, Reading(bands=("red", "nir"))),
        ({"bands": [4, "red"]}, Reading(bands=(4, "red"))),
        ({"bands": 2}, Reading(bands=(2,))),
        ({"rescale": "0,4000"}, Reading(rescale=(0.0, 4000.0))),
        ({"rescale": [0, 1.5]}, Reading(rescale=(0.0, 1.5))),
        ({"nodata": 0}, Reading(nodata=0.0)),
        ({"nodata": "-9999"}, Reading(nodata=-9999.0)),
        ({"nodata": "none"}, Reading(nodata="none")),
        ({"series": 1}, Reading(series=1)),
        ({"series": "1"}, Reading(series=1)),
        ({"series": "well A1"}, Reading(series="well A1")),
        ({"unscale": True}, Reading(unscale=True)),
    ],
)
def test_options_of_a_file_say_how_to_read(values: dict[str, object], reading: Reading) -> None:
    options = RunOptions.parse({"image": "image.tif", **values}, "run.yaml")
    assert options.reading == reading


@pytest.mark.parametrize(
    "values",
    [
        {"bands": ""},
        {"bands": "0"},
        {"bands": "-1"},
        {"bands": []},
        {"bands": "red,,blue"},
        {"bands": [1.5]},
        {"bands": True},
        {"rescale": "5"},
        {"rescale": "5,5"},
        {"rescale": "9,1"},
        {"rescale": "0,nan"},
        {"rescale": "0,inf"},
        {"rescale": "a,b"},
        {"rescale": {"low": 0}},
        {"nodata": "nothing"},
        {"nodata": True},
        {"nodata": [0]},
        {"series": [1]},
        {"series": True},
        {"unscale": "yes"},
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(values))):
        RunOptions.parse({"image": "image.tif", **values}, "run.yaml")
