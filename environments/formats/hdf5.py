"""HDF5 files that are written to disks which may be full.

The HDF5 library cannot recover from a failed write: closing the file fails as well, and the process crashes when it
exits. So the library writes through a stream that keeps what the disk did not take, and the error is raised afterwards.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

KEPT_BYTES = 64 * 2**20  # what the library may still ask for after a failed write


class PatientStream(io.RawIOBase):
    """A file whose writes never fail; `error` is the first one that would have."""

    def __init__(self, file: io.FileIO) -> None:
        super().__init__()
        self.file = file
        self.error: OSError | None = None
        self.kept: list[tuple[int, bytes]] = []
        self.position = self.end = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.end}[whence]
        self.position = start + offset
        return self.position

    def tell(self) -> int:
        return self.position

    def write(self, data: Any) -> int:
        block = bytes(data)
        if self.error is None:
            try:
                self._write(block)
            except OSError as error:
                self.error = error
        if self.error is not None and sum(len(kept) for _, kept in self.kept) < KEPT_BYTES:
            self.kept.append((self.position, block))
        self.position += len(block)
        self.end = max(self.end, self.position)
        return len(block)

    def _write(self, block: bytes) -> None:
        self.file.seek(self.position)
        written = 0
        while written < len(block):  # a disk that fills up takes a part first
            written += self.file.write(block[written:])

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        self.file.seek(self.position)
        found = self.file.read(len(view))
        view[:] = found + bytes(len(view) - len(found))
        for start, block in self.kept:
            low, high = max(start, self.position), min(start + len(block), self.position + len(view))
            if low < high:
                view[low - self.position : high - self.position] = block[low - start : high - start]
        self.position += len(view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        self.end = self.position if size is None else size
        if self.error is None:
            self.file.truncate(self.end)
        return self.end

    def flush(self) -> None:
        return

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


@contextmanager
def created(path: Path, **options: Any) -> Iterator[h5py.File]:
    """A new file to write to.

    Raises:
        OSError: the disk is full, or the file cannot be written for another reason.
    """
    with io.FileIO(path, "w+") as raw:
        stream = PatientStream(raw)
        with h5py.File(stream, "w", **options) as file:
            yield file
        if stream.error is not None:
            raise stream.error
