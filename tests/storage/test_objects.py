"""Objects of a store with the verbs of paths, against an S3 server on this machine."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from tests.storage.conftest import Service
from tests.storage.making import at, objects
from tests.storage.server import KEY_ID, SECRET
from tilepipe.errors import InputError
from tilepipe.storage import (
    StoreError,
    StoreRefusedError,
    as_path,
    name_from,
    redacted,
    remove,
    staged_locally,
    within,
    without_secrets,
)
from tilepipe.storage import lock as leases
from tilepipe.storage.lock import LockedError, holding_lock
from tilepipe.storage.objects import ConditionError


def test_addresses_behave_as_paths() -> None:
    mask = at("s3://bucket/a/b/mask.ome.zarr/")
    assert str(mask) == "s3://bucket/a/b/mask.ome.zarr"
    assert (mask.name, mask.suffix) == ("mask.ome.zarr", ".zarr")
    assert str(mask / ".tilepipe" / "plan.json") == f"{mask}/.tilepipe/plan.json"
    assert str(mask.with_name("x.tif")) == "s3://bucket/a/b/x.tif"
    assert [str(p) for p in mask.parents] == ["s3://bucket/a/b", "s3://bucket/a", "s3://bucket"]
    assert pickle.loads(pickle.dumps(mask)) == mask
    assert as_path("plain/path.tif") == Path("plain/path.tif")
    assert within(mask / "0", mask)
    assert not within(mask, mask / "0")
    assert not within(Path("a"), mask)
    assert name_from(mask.with_name("x.tif"), mask.parent) == "x.tif"
    assert name_from(mask, Path("a")) == str(mask)
    assert name_from(Path("/a/b/x.tif"), Path("/a/c")) == "../b/x.tif"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("s3://me:pa55word@bucket/a.tif", "s3://bucket/a.tif"),
        ("s3://bucket/a.tif?X-Amz-Signature=pa55word", "s3://bucket/a.tif"),
        ("s3://bucket/a.tif#pa55word", "s3://bucket/a.tif"),
        ("https://me:pa55word@host/a.tif?sig=pa55word", "https://host/a.tif"),
        ("https://host/a.tif?sig=me@pa55word/x@pa55word", "https://host/a.tif"),
        ("s3://me:pa55word/pa55word@bucket/a.tif", "s3://bucket/a.tif"),
        ("s3://me:pa55word/a.tif", "s3://"),
    ],
)
def test_addresses_with_secrets_are_refused_and_not_repeated(address: str, shown: str) -> None:
    with pytest.raises(InputError) as refused:
        as_path(address)
    assert "pa55word" not in str(refused.value)
    assert str(refused.value).startswith(f"{shown}: ")
    assert redacted(address) == shown
    assert "pa55word" not in without_secrets(f"{Path(address)} does not exist")
    assert "pa55word" not in without_secrets(f"no model at {address}, nor at {address}")


def test_sentences_keep_what_is_no_secret() -> None:
    for sentence in (
        "scheduler tcp://head:8786: cannot be reached (timed out); check the address",
        "s3://bucket/a.tif: there is no such bucket; /data/a.tif, C:/x and a:b are paths",
    ):
        assert without_secrets(sentence) == sentence


@pytest.mark.parametrize("address", ["s3://", "s3://bucket", "s3:///a", "s3://b/../a", "ftp://a/b"])
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(InputError):
        as_path(address)


def test_objects_are_written_read_listed_and_removed(folder: str) -> None:
    top = at(folder)
    assert not top.exists()
    for name in ("a", "b/c", "b/d/e", "bb"):
        (top / name).write_bytes(name.encode() * 3)
    assert sorted(objects(folder)) == ["a", "b/c", "b/d/e", "bb"]
    assert [entry.name for entry in top.iterdir()] == ["a", "b", "bb"]
    assert (top / "b").is_dir()
    assert not (top / "b").is_file()
    assert (top / "b").exists()
    assert (top / "b/c").is_file()
    assert not (top / "b/c").is_dir()
    assert (top / "a").read_text() == "aaa"
    assert (top / "b/d/e").read_ranges([(1, 3), (10, 100)]) == [b"/d/", b"b/d/e"]
    remove(top / "b")
    assert sorted(objects(folder)) == ["a", "bb"]
    with pytest.raises(FileNotFoundError):
        (top / "b/c").read_bytes()
    (top / "b/c").unlink(missing_ok=True)


def test_conditions_for_writing_hold(folder: str) -> None:
    lock = at(folder) / "lock"
    first = lock.write_bytes(b"1", "create")
    with pytest.raises(ConditionError):
        lock.write_bytes(b"2", "create")
    second = lock.write_bytes(b"3", first)
    with pytest.raises(ConditionError):
        lock.write_bytes(b"4", first)
    assert lock.read_tagged() == (b"3", second)


def test_large_files_are_uploaded_in_parts(folder: str, tmp_path: Path) -> None:
    content = bytes(range(256)) * 50_000  # more than two parts of 5 MiB
    with staged_locally(at(folder) / "x.tif") as local:
        local.write_bytes(content)
        local.with_name("x.tif.aux.xml").write_bytes(b"side")
        assert objects(folder) == {}
    assert objects(folder) == {"x.tif": content, "x.tif.aux.xml": b"side"}


def test_what_was_not_finished_is_not_uploaded(folder: str) -> None:
    def half() -> None:
        with staged_locally(at(folder) / "x.tif") as local:
            local.write_bytes(b"half")
            raise OSError(28, "full")

    with pytest.raises(OSError, match="full"):
        half()
    assert objects(folder) == {}


def test_a_store_that_fails_for_a_moment_is_asked_again(s3: Service, folder: str) -> None:
    (at(folder) / "a").write_bytes(b"a")
    s3.log()
    s3.order(fail="^GET .*/a$", times=2)
    assert (at(folder) / "a").read_bytes() == b"a"
    assert len(s3.log()) == 3


@pytest.mark.slow
def test_a_store_that_goes_on_failing_is_said_in_our_words(s3: Service, folder: str) -> None:
    s3.order(fail=".")
    with pytest.raises(StoreError, match=r"/a: the object store fails \(503 SlowDown\)") as failed:
        (at(folder) / "a").read_bytes()
    _says_nothing_of_keys(failed.value)


@pytest.mark.slow
def test_refusals_are_said_in_our_words(
    s3: Service, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tilepipe.storage.objects import connection

    with pytest.raises(StoreRefusedError, match="there is no such bucket"):
        (at("s3://nobucket/a")).read_bytes()
    s3.order(forbid=["PUT"])
    with pytest.raises(StoreRefusedError, match=r"refuses access \(403 AccessDenied\)") as refused:
        (at(folder) / "a").write_bytes(b"a")
    _says_nothing_of_keys(refused.value)
    s3.order()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret")
    connection.cache_clear()
    for call in (at(folder).exists, at(folder).is_dir, lambda: list(at(folder).iterdir())):
        with pytest.raises(StoreRefusedError, match="refuses access") as refused:
            call()
        _says_nothing_of_keys(refused.value)
        assert "another-secret" not in repr(refused.value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    connection.cache_clear()
    with pytest.raises(StoreError, match="cannot be reached") as refused:
        at(folder).exists()
    _says_nothing_of_keys(refused.value)


def _says_nothing_of_keys(error: BaseException | None) -> None:
    """Nor does what travels along with an error, shown or not."""
    while error is not None:
        for secret in (SECRET, KEY_ID, "Signature=", "127.0.0.1"):
            assert secret not in str(error)
        error = error.__cause__ or error.__context__


def test_a_lease_holds_until_it_is_given_back(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.1)
    lock = at(folder) / "lock"
    with holding_lock(lock):
        with pytest.raises(LockedError), holding_lock(lock):
            pass
        assert lock.exists()
    assert not lock.exists()
    with holding_lock(lock):
        pass


@pytest.mark.slow
def test_the_lease_of_a_process_elsewhere_is_free_when_it_stops_changing(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.1)
    monkeypatch.setattr(leases, "DEAD_SECONDS", 1.0)
    lock = at(folder) / "lock"
    owner = {"id": "another", "turn": 1, "host": "elsewhere", "namespace": "", "pid": 1, "born": 0}
    lock.write_bytes(json.dumps(owner).encode())
    with holding_lock(lock):
        assert json.loads(lock.read_text())["id"] != "another"


def test_the_lease_of_a_process_that_died_here_is_free_at_once(folder: str) -> None:
    lock = at(folder) / "lock"
    here = leases._identity(2**22 + 1)  # no process has so high a number
    lock.write_bytes(json.dumps({"id": "dead", "turn": 9, **here, "born": 1e9}).encode())
    with holding_lock(lock):  # else it would wait for a minute
        pass


def test_an_owner_that_lost_its_lease_leaves_it_to_its_heir(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.05)
    lock = at(folder) / "lock"
    with holding_lock(lock):
        lock.write_bytes(b'{"id": "heir"}')
    assert lock.read_bytes() == b'{"id": "heir"}'
