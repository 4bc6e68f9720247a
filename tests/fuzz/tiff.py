"""Mutations that know what a TIFF is made of: directories, their entries, what these point at."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from tests.fuzz.mutate import NUMBERS, mutate_bytes

DIMENSIONS = (256, 257, 277, 278, 322, 323, 32997)
"""Width, length, samples, rows per strip, tile width and length, depth."""
LAYOUT = (258, 259, 262, 266, 284, 317, 320, 338, 339, 530)
"""Bits, compression, photometric, fill order, planes, predictor, colours, extras, format."""
POINTERS = (273, 279, 324, 325, 330, 347, 34675, 34665)
"""Offsets and counts of strips and tiles, further directories, JPEG tables, profile."""
COMPRESSIONS = (
    0, 1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 33003, 33005, 33007, 34712, 34887, 34892, 34925, 34926,
    34927, 50000, 50001, 50002, 52546, 65000, 65535,
)  # fmt: skip
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4,
         16: 8, 17: 8, 18: 8}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """A directory's entry, and where it stands in the file."""

    place: int
    tag: int
    kind: int
    count: int
    value: int
    """Where its value stands: in the entry itself, or where that points."""


class Structure:
    """Where things are in a sound TIFF."""

    def __init__(self, data: bytes) -> None:
        self.order = "<" if data[:2] == b"II" else ">"
        self.big = struct.unpack(self.order + "H", data[2:4])[0] == 43
        self.word = "Q" if self.big else "I"
        self.width = struct.calcsize(self.word)
        self.links = [8 if self.big else 4]
        """Where the offset of each directory stands, the last of which is 0."""
        self.counts: list[int] = []
        self.entries: list[Entry] = []
        while offset := self._number(data, self.links[-1], self.word):
            self.counts.append(offset)
            number, offset = self._directory(data, offset)
            self.links.append(offset + number * self.entry_size)

    @property
    def entry_size(self) -> int:
        return 20 if self.big else 12

    def _directory(self, data: bytes, offset: int) -> tuple[int, int]:
        number = self._number(data, offset, "Q" if self.big else "H")
        offset += 8 if self.big else 2
        for place in range(offset, offset + number * self.entry_size, self.entry_size):
            tag, kind = struct.unpack_from(self.order + "HH", data, place)
            count = self._number(data, place + 4, self.word)
            value = place + 4 + self.width
            if SIZES.get(kind, 1) * count > self.width:
                value = self._number(data, value, self.word)
            self.entries.append(Entry(place, tag, kind, count, value))
        return number, offset

    def _number(self, data: bytes, place: int, code: str) -> int:
        return int(struct.unpack_from(self.order + code, data, place)[0])


def mutate_tiff(content: bytes, random: Random) -> bytes:
    """A TIFF with entries, pointers or directories changed; now and then with damaged bytes too."""
    structure, data = Structure(content), bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        _change(data, structure, random)
    return mutate_bytes(bytes(data), random) if random.random() < 0.1 else bytes(data)


def _change(data: bytearray, structure: Structure, random: Random) -> None:
    how = random.random()
    if how < 0.3:
        tags = random.choice((DIMENSIONS, LAYOUT, POINTERS))
        chosen = [entry for entry in structure.entries if entry.tag in tags]
        entry = random.choice(chosen or structure.entries)
        numbers = COMPRESSIONS if entry.tag == 259 else NUMBERS
        _set(data, structure, entry, random.choice(numbers), random)
    elif how < 0.5:
        entry = random.choice(structure.entries)
        _set(data, structure, entry, random.choice(NUMBERS), random)
    elif how < 0.65:
        place = random.choice(structure.entries).place
        part = random.choice(("tag", "kind", "count", "value"))
        if part == "tag":
            tag = random.choice((*DIMENSIONS, *LAYOUT, *POINTERS, 270, 33550, 42113, 65535))
            _pack(data, structure, place, "H", tag)
        elif part == "kind":
            _pack(data, structure, place + 2, "H", random.choice((*SIZES, 0, 14, 255)))
        elif part == "count":
            _pack(data, structure, place + 4, structure.word, random.choice(NUMBERS))
        else:
            value = random.choice((*NUMBERS, len(data), len(data) - 1, place))
            _pack(data, structure, place + 4 + structure.width, structure.word, value)
    elif how < 0.8:
        link = random.choice(structure.links)
        # Cycles, directories in the middle of something, directories beyond the end.
        target = random.choice((*structure.counts, *structure.links, len(data), 2**31, 1, 0))
        _pack(data, structure, link, structure.word, target)
    elif how < 0.87:
        place = random.choice(structure.counts)
        code = "Q" if structure.big else "H"
        _pack(data, structure, place, code, random.choice(NUMBERS))
    elif how < 0.94:
        one, other = (random.choice(structure.entries).place for _ in range(2))
        size = structure.entry_size
        data[one : one + size], data[other : other + size] = (
            data[other : other + size], data[one : one + size],
        )  # fmt: skip
    else:
        texts = [e for e in structure.entries if e.kind == 2 and e.count > 4] or structure.entries
        entry = random.choice(texts)
        end = entry.value + max(4, entry.count)
        data[entry.value : end] = mutate_bytes(bytes(data[entry.value : end]), random)


def _set(data: bytearray, structure: Structure, entry: Entry, number: int, random: Random) -> None:
    """Set one of an entry's values, or all."""
    code = {1: "B", 3: "H", 4: "I", 16: "Q", 12: "d", 11: "f"}.get(entry.kind, "I")
    size = struct.calcsize(code)
    places = list(range(entry.count))[:2000] or [0]
    for index in places if random.random() < 0.3 else [random.choice(places)]:
        _pack(data, structure, entry.value + index * size, code, number)


def _pack(data: bytearray, structure: Structure, place: int, code: str, number: int) -> None:
    if place < 0 or place + struct.calcsize(code) > len(data):
        return
    value = number if code in "df" else number % 2 ** (8 * struct.calcsize(code))
    struct.pack_into(structure.order + code, data, place, value)


def entries(content: bytes, tag: int) -> Iterator[Entry]:
    """The entries of a tag in a sound TIFF."""
    return (entry for entry in Structure(content).entries if entry.tag == tag)
