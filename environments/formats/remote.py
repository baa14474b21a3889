"""Demonstrations that lie elsewhere: a URL, a dataset of the Hugging Face hub, or a Minari id."""

import contextlib
import hashlib
import json
import os
import re
import tempfile
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from urllib.parse import quote, urlsplit

from tqdm import tqdm

from conf.errors import UserError
from environments.formats import minari

HUB = "https://huggingface.co"  # or where the environment variable HF_ENDPOINT points
WANTED = (".arrow", ".parquet", ".hdf5", ".h5", ".npz", ".csv")
SINGLE = (".hdf5", ".h5", ".npz", ".csv")
BESIDE = ("state.json", "dataset_info.json", "metadata.json", "demonstrations.json")
REMOTE = re.compile(r"(hf|https?):/")  # with one slash where it went through a Path
MINARI_ID = re.compile(r"([\w-]+/)*[\w-]+-v\d+")
SECONDS = 60  # without an answer
BLOCK = 2**20


def is_remote(source: str) -> bool:
    return bool(REMOTE.match(source))


@contextlib.contextmanager
def fetched(source: str, sha256: str | None = None) -> Iterator[Path]:
    """A local path for a source; what was downloaded is removed afterwards. Programs and pickles are never fetched.

    Raises:
        UserError: it is not there, cannot be reached, or does not have that checksum.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = _path(source, sha256, Path(folder))
        if sha256 is not None:
            check(path, sha256)
        yield path


def _path(source: str, sha256: str | None, folder: Path) -> Path:
    if source.startswith("hf://"):
        return _from_hub(source, folder)
    if is_remote(source):
        if sha256 is None:
            raise UserError(f"{source}: give --sha256, so that what arrives is what was meant")
        return _download(source, folder / (PurePosixPath(urlsplit(source).path).name or "download"))
    path = Path(source)
    if not path.exists() and MINARI_ID.fullmatch(source):
        return minari_dataset(source)
    return path


def check(path: Path, sha256: str) -> None:
    """Compare a file with its checksum.

    Raises:
        UserError: they differ, or it is a folder.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder: --sha256 is for single files")
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
    except OSError as error:
        raise UserError(f"cannot read demonstrations {path}: {error.strerror}") from error
    if digest.hexdigest() != sha256.lower():
        raise UserError(f"{path.name} has sha256 {digest.hexdigest()}, not {sha256}: it is another file, or damaged")


def minari_dataset(name: str) -> Path:
    """The folder of a dataset by its id: a local one, or one that minari downloads to its own place.

    Raises:
        UserError: it is not there, and minari is not installed or cannot get it.
    """
    path = minari.local_datasets() / name
    if minari.data_folder(path):
        return path
    try:
        import minari as package
    except ModuleNotFoundError as error:
        raise UserError(
            f"there is neither a file {name} nor a local Minari dataset; to download one: "
            "pip install -r requirements-formats.txt"
        ) from error
    try:
        package.download_dataset(name)
    except Exception as error:  # of many kinds, for what is not there and for a missing network
        reason = " ".join(str(error).split())
        raise UserError(f"{name} is neither a file nor a Minari dataset that can be had ({reason})") from error
    return path


def _from_hub(source: str, folder: Path) -> Path:
    endpoint = os.environ.get("HF_ENDPOINT", HUB).rstrip("/")
    name = source.removeprefix("hf://").strip("/")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise UserError(f"{source}: expected hf://<owner>/<name>")
    with _opened(f"{endpoint}/api/datasets/{name}", source) as answer:
        try:
            listed = [str(entry["rfilename"]) for entry in json.load(answer)["siblings"]]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{source}: {endpoint} gave no list of files") from error
    files = [file for file in listed if file.endswith(WANTED)]
    if not files:
        raise UserError(
            f"{source} has no file that ends in {', '.join(WANTED)}; found {', '.join(listed) or 'nothing'}"
        )
    for file in files + [file for file in listed if file.endswith(BESIDE)]:
        target = folder / file
        if not target.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{source}: the file name {file} leads out of the dataset")
        target.parent.mkdir(parents=True, exist_ok=True)
        _download(f"{endpoint}/datasets/{name}/resolve/main/{quote(file)}", target)
    return folder / files[0] if len(files) == 1 and files[0].endswith(SINGLE) else folder


def _opened(url: str, source: str) -> HTTPResponse:
    try:
        response: HTTPResponse = urllib.request.urlopen(url, timeout=SECONDS)
    except (OSError, ValueError) as error:  # URLError and HTTPError are OSErrors
        raise UserError(f"cannot fetch {source}: {getattr(error, 'reason', error)}") from error
    return response


def _download(url: str, target: Path) -> Path:
    received = 0
    with _opened(url, url) as response, target.open("wb") as file:
        size = int(response.headers.get("Content-Length") or 0)
        bar = tqdm(total=size or None, unit="B", unit_scale=True, leave=False, disable=None)
        with bar, contextlib.suppress(HTTPException):  # which is noticed by what has arrived
            while block := response.read(BLOCK):
                file.write(block)
                received += len(block)
                bar.update(len(block))
    if received < size:
        raise UserError(f"cannot fetch {url}: it broke off after {received} of {size} bytes")
    return target
