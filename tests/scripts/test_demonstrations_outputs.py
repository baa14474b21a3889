"""What the tools write: nothing is lost that was there, and nothing partial stays."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

from conf.errors import UserError
from environments.formats import FORMATS, read
from environments.formats.base import DemonstrationSet
from tests.scripts.helpers import full_disk
from tests.scripts.test_demonstrations import ROOT, files, hopper, refused, run, saved


def test_nothing_is_overwritten_unless_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = saved(tmp_path / "a.hdf5", hopper())
    (tmp_path / "b.npz").write_text("mine")
    for command in ("import", "export"):
        assert "b.npz exists" in refused(capsys, run(command, source, tmp_path / "b.npz"))
    assert (tmp_path / "b.npz").read_text() == "mine"
    assert run("import", source, tmp_path / "b.npz", "--overwrite") == 0


def test_outputs_do_not_replace_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = saved(tmp_path / "a.hdf5", hopper(), environment_id="Hopper-v4", command="x")
    arguments = ("convert", source, tmp_path / "b.md", "--format", "csv", "--to", "seals_hopper")
    assert "b.md would hold the demonstrations and the datasheet" in refused(capsys, run(*arguments))
    assert files(tmp_path) == ["a.hdf5"]


def test_folders_are_replaced_only_if_they_are_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = saved(tmp_path / "a.hdf5", hopper())
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("mine")
    (tmp_path / "empty.md").mkdir()
    FORMATS["minari"].write(tmp_path / "set", DemonstrationSet([hopper(7)]))
    for name, form, message in (
        ("precious", "csv", "precious is a folder, which a file does not replace"),
        ("set", "csv", "set is a folder, which a file does not replace"),
        ("precious", "minari", "precious is not the folder of a dataset of this format"),
        ("a.hdf5", "minari", "a.hdf5 is not the folder of a dataset of this format"),
    ):
        arguments = ("export", source, tmp_path / name, "--format", form, "--overwrite")
        assert message in refused(capsys, run(*arguments))
    arguments = ("convert", source, tmp_path / "empty.npz", "--to", "hopper", "--overwrite")
    assert "empty.md is a folder" in refused(capsys, run(*arguments))
    assert run("export", source, tmp_path / "set", "--format", "minari", "--overwrite") == 0
    assert read(tmp_path / "set").steps == 5
    (tmp_path / "set" / "notes.txt").write_text("mine")
    arguments = ("export", source, tmp_path / "set", "--format", "minari", "--overwrite")
    assert "nothing else" in refused(capsys, run(*arguments))
    with pytest.raises(UserError, match="set is a folder"):
        FORMATS["npz"].write(tmp_path / "set", DemonstrationSet([hopper()]))
    assert files(tmp_path) == ["a.hdf5", "empty.md", "precious", "set"]
    assert files(tmp_path / "precious") == ["thesis.txt"]


@pytest.mark.parametrize("room", [1_000, 100_000])
@pytest.mark.parametrize("name", ["d.hdf5", "d.npz", "d.csv", "minari"])
def test_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, room: int
) -> None:
    source = saved(tmp_path / "a.hdf5", hopper(4000))
    output = tmp_path / "out" / name
    form = ["--format", "minari"] if name == "minari" else []
    with full_disk(room):
        assert run("export", source, output, *form) == 2
    assert capsys.readouterr().err == "error: [Errno 27] File too large\n"
    assert list((tmp_path / "out").iterdir()) == []


def test_a_full_disk_is_said_once_however_the_program_ends(tmp_path: Path) -> None:
    """HDF5 has files of its own to close then. A limit on the size of files is as a full disk to a program."""
    source = saved(tmp_path / "a.hdf5", hopper(4000))
    program = (
        "import sys; from scripts.demonstrations import main; from tests.scripts.helpers import full_disk\n"
        "with full_disk(100_000): sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "export", str(source), str(tmp_path / "d.hdf5")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "error: [Errno 27] File too large\n")
    assert files(tmp_path) == ["a.hdf5"]


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read and write everything")
def test_no_permission(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = saved(tmp_path / "a.hdf5", hopper())
    source.chmod(0)
    assert "Permission denied" in refused(capsys, run("import", source, tmp_path / "b.npz"))


def test_a_truncated_file_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = saved(tmp_path / "a.hdf5", hopper(2000))
    source.write_bytes(source.read_bytes()[:-5000])
    for command in ("import", "export"):
        assert "damaged or truncated" in refused(capsys, run(command, source, tmp_path / "b.npz"))
    assert "damaged or truncated" in refused(capsys, run("inspect", source))
    with h5py.File(source, "w"):
        pass
    assert "no dataset 'observations'" in refused(capsys, run("verify", source))
    assert files(tmp_path) == ["a.hdf5"]
