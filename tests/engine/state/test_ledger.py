"""The ledger keeps what was recorded, and never trusts what is torn or altered."""

from __future__ import annotations

from pathlib import Path

from tilepipe.engine.state.ledger import Ledger, read_in_place, read_ledger

RECORDS = [{"kind": "block", "number": n, "counts": [n, 2 * n]} for n in range(5)]


def write(path: Path) -> None:
    with Ledger(path) as ledger:
        for record in RECORDS:
            ledger.append(record)


def test_records_come_back_in_order(tmp_path: Path) -> None:
    write(tmp_path / "ledger")
    assert list(read_ledger(tmp_path / "ledger")) == RECORDS


def test_a_missing_ledger_is_empty(tmp_path: Path) -> None:
    assert list(read_ledger(tmp_path / "none")) == []


def test_cut_at_any_byte_it_loses_only_what_is_torn_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    write(path)
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        kept = sum(end <= length for end in ends)
        assert list(read_ledger(path)) == RECORDS[:kept]
        with Ledger(path) as ledger:
            ledger.append({"kind": "new"})
        # A record that lacked nothing but its newline is whole.
        whole_ones = sum(end <= length + 1 for end in ends) if length else 0
        assert list(read_ledger(path)) == [*RECORDS[:whole_ones], {"kind": "new"}]


def test_an_altered_record_is_dropped_and_the_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    write(path)
    path.write_bytes(path.read_bytes().replace(b'"number":2', b'"number":7'))
    assert [r["number"] for r in read_ledger(path)] == [0, 1, 3, 4]


def test_sound_records_of_another_form_are_done_again(tmp_path: Path) -> None:
    from tilepipe.engine.state.progress import Progress

    path = tmp_path / "ledger"
    with Ledger(path) as ledger:
        for record in ({"kind": "block"}, {"kind": "level", "level": [1]}, {"level": 1}, {}):
            ledger.append(record)
        ledger.append({"kind": "export", "name": "mask.tif"})
    progress = Progress.from_ledger(path)
    assert (progress.answered, progress.partial, progress.exports) == (0, {}, {"mask.tif"})


def test_only_records_of_blocks_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    others = [
        {"kind": "changed", "number": 3},
        {"kind": "damaged", "name": '"kind":"block"', "was": {"kind": "a block"}},
    ]
    with Ledger(path) as ledger:
        for other in others:
            ledger.append({"kind": "block", "message": "changed"})
            ledger.append(other)
    with path.open("ab") as file:
        file.write(b'00000000 {"kind":"changed"}\n')
    assert list(read_in_place(path, blocks=False)) == [(1, others[0]), (3, others[1])]
    assert [place for place, _ in read_in_place(path)] == [0, 1, 2, 3]
