import importlib.util
from pathlib import Path

import fsspec
import pytest

from tests.trainer.object_store.faulty_store import faulty_store
from trainer.config.store import StoreConfig
from trainer.data.checks import DataError
from trainer.object_store.objects import expand_braces, find_objects
from trainer.object_store.remote_file import RemoteFile
from trainer.object_store.stores import open_store


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHALANX_CACHE_DIR", str(tmp_path / "cache"))


@pytest.mark.parametrize(("url", "package"), [("gs://bucket/a-*", "gcsfs"), ("s3://bucket/a-*", "s3fs")])
def test_a_missing_package_is_named(url: str, package: str) -> None:
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    with pytest.raises(DataError, match=rf"needs the package {package}, which is not installed: install it with pip"):
        open_store(url)


def test_a_scheme_that_nobody_knows() -> None:
    with pytest.raises(DataError, match="nosuch:// is nothing that fsspec can read: use file, http"):
        open_store("nosuch://a")


def test_files_and_memory_are_found_and_read(tmp_path: Path) -> None:
    bodies = {f"part-{number}.bin": bytes([number]) * 9_000 for number in range(3)}
    memory = fsspec.filesystem("memory")
    for name, body in bodies.items():
        (tmp_path / name).write_bytes(body)
        memory.pipe_file(f"/phalanx/{name}", body)
    for pattern in (f"file://{tmp_path}/part-*", "memory://phalanx/part-*", "memory://phalanx/part-{0..2}.bin"):
        objects, reader = find_objects(pattern, "data.pattern", StoreConfig())
        assert [one.size for one in objects] == [9_000] * 3
        assert [reader.read(one, 8_990, 9_000) for one in objects] == [body[-10:] for body in bodies.values()]
        assert [RemoteFile(one, reader).name for one in objects] == list(bodies)
        reader.close()
    with pytest.raises(DataError, match=r"memory://phalanx/other-\*: no object matches it: correct data.pattern"):
        find_objects("memory://phalanx/other-*", "data.pattern", StoreConfig())
    with pytest.raises(DataError, match="memory://phalanx/other: it does not exist"):
        find_objects("memory://phalanx/other", "data.pattern", StoreConfig())


def test_what_a_web_server_does_not_do() -> None:
    with faulty_store({"a/one": b"x" * 10}) as store:
        with pytest.raises(DataError, match=r"/none: it does not exist \(the server answers 404 Not Found\)"):
            find_objects(f"{store.url}/none", "data.pattern", StoreConfig(retries=0))
        with pytest.raises(DataError, match=r"a web server does not list .* with {00000..00063} for numbers"):
            find_objects(f"{store.url}/*", "data.pattern", StoreConfig())
        store.ignores_ranges = True
        with pytest.raises(DataError, match="the server does not give parts of a file"):
            find_objects(f"{store.url}/a/one", "data.pattern", StoreConfig())


def test_a_file_like_any_other() -> None:
    body = bytes(range(256)) * 100
    with faulty_store({"one": body}) as store:
        objects, reader = find_objects(f"{store.url}/one", "data.path", StoreConfig(block=4096))
        with RemoteFile(objects[0], reader).open() as file:
            assert file.read(5) == body[:5] and file.seek(-7, 2) == len(body) - 7 and file.read() == body[-7:]
            file.seek(1000)
            assert file.read() == body[1000:]


def test_braces() -> None:
    assert expand_braces("http://h/a-{0..2}") == ["http://h/a-0", "http://h/a-1", "http://h/a-2"]
    with pytest.raises(DataError, match=r"{9..3} are no numbers from low to high"):
        expand_braces("a-{9..3}")


def test_a_block_larger_than_the_cache_is_refused() -> None:
    with pytest.raises(DataError, match=r"data.store.block=262144 is more than data.store.cache=1000: raise"):
        find_objects("memory://x", "data.pattern", StoreConfig(cache=1000))
