"""What lies elsewhere, from a stand-in on this machine with the same paths."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from conf.errors import UserError
from environments.formats import FORMATS, read, read_demonstrations
from environments.formats.base import DemonstrationSet
from environments.formats.remote import fetched
from tests.environments.formats.episodes import assert_same, episode

EPISODES = [episode(3, True), episode(2, False, 9.0)]
HUB = "datasets/me/walks/resolve/main"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    root = tmp_path / "server"
    root.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(root))  # type: ignore[arg-type]  # handed on

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}", root
        running.shutdown()
        thread.join()


def test_a_url_with_its_checksum(server: tuple[str, Path]) -> None:
    url, root = server
    FORMATS["d4rl"].write(root / "d.hdf5", DemonstrationSet(EPISODES))
    digest = hashlib.sha256((root / "d.hdf5").read_bytes()).hexdigest()
    with fetched(f"{url}/d.hdf5", digest.upper()) as path:
        assert_same(EPISODES, read(path).trajectories)
    assert not path.exists()
    with pytest.raises(UserError, match=rf"d\.hdf5 has sha256 {digest}, not 00"), fetched(f"{url}/d.hdf5", "00"):
        pass
    with pytest.raises(UserError, match="give --sha256"), fetched(f"{url}/d.hdf5"):
        pass
    with (
        pytest.raises(UserError, match=r"cannot fetch .*absent: .*(404|Not Found|not found)"),
        fetched(f"{url}/absent", "00"),
    ):
        pass
    with pytest.raises(UserError, match=r"cannot fetch http://127\.0\.0\.1:1/x"), fetched("http://127.0.0.1:1/x", "00"):
        pass


def test_local_files_are_compared_as_well(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    with fetched(str(tmp_path / "a"), hashlib.sha256(b"abc").hexdigest()) as path:
        assert path == tmp_path / "a"
    with pytest.raises(UserError, match="another file, or damaged"), fetched(str(tmp_path / "a"), "12"):
        pass


def listing(root: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", url)
    files = [str(path.relative_to(root / HUB)) for path in (root / HUB).rglob("*") if path.is_file()]
    api = root / "api/datasets/me/walks"
    api.parent.mkdir(parents=True)
    api.write_text(json.dumps({"siblings": [{"rfilename": file} for file in files]}))


def test_a_folder_of_the_hub(server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    url, root = server
    FORMATS["imitation"].write(root / "local", DemonstrationSet(EPISODES))
    table = pa.ipc.open_stream((root / "local" / "data-00000-of-00001.arrow").read_bytes()).read_all()
    data = root / HUB / "data"
    data.mkdir(parents=True)
    pyarrow.parquet.write_table(table, data / "train-00000-of-00001.parquet")
    (root / HUB / "walks.py").write_text("raise SystemExit('a script of the dataset ran')")
    (root / HUB / "README.md").write_text("# Walks")
    listing(root, monkeypatch, url)
    with fetched("hf://me/walks") as path:
        assert sorted(entry.name for entry in path.rglob("*")) == ["data", "train-00000-of-00001.parquet"]
        found = read(path).trajectories
    assert [trajectory.length for trajectory in found] == [3, 2]
    assert found[0].next_observations.tolist() == EPISODES[0].next_observations.tolist()


def test_a_single_file_of_the_hub(server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    url, root = server
    FORMATS["npz"].write(root / HUB / "expert walks.npz", DemonstrationSet(EPISODES))
    listing(root, monkeypatch, url)
    with fetched("hf://me/walks") as path:
        assert_same(EPISODES, read(path).trajectories)


def test_what_the_hub_does_not_have(server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    url, root = server
    monkeypatch.setenv("HF_ENDPOINT", url)
    with pytest.raises(UserError, match="cannot fetch hf://me/walks"), fetched("hf://me/walks"):
        pass
    with pytest.raises(UserError, match="expected hf://<owner>/<name>"), fetched("hf://me"):
        pass
    (root / HUB).mkdir(parents=True)
    (root / HUB / "walks.pkl").write_bytes(b"\x80")
    listing(root, monkeypatch, url)
    with pytest.raises(UserError, match=r"no file that ends in .*; found walks\.pkl"), fetched("hf://me/walks"):
        pass
    (root / "api/datasets/me/walks").write_text(json.dumps({"siblings": [{"rfilename": "../../x.npz"}]}))
    with pytest.raises(UserError, match="leads out of the dataset"), fetched("hf://me/walks"):
        pass
    (root / "api/datasets/me/walks").write_text("<html>")
    with pytest.raises(UserError, match="gave no list of files"), fetched("hf://me/walks"):
        pass


def test_local_minari_datasets_have_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    FORMATS["minari"].write(tmp_path / "hopper" / "mine-v0", DemonstrationSet(EPISODES))
    with fetched("hopper/mine-v0") as path:
        assert_same(EPISODES, read(path).trajectories)
    assert_same(EPISODES, read_demonstrations("hopper/mine-v0", "Hopper-v4"))


def test_training_needs_what_is_here() -> None:
    for source in ("hf://me/walks", "hf:/me/walks", "https://x.org/d.hdf5"):
        with pytest.raises(UserError, match=r"not on this machine; first: python scripts/demonstrations\.py import"):
            read_demonstrations(source, "Hopper-v4")
