"""The zip file around a ``.pt2``. Its directory is checked before a single byte of a member is read.

``torch.save`` and ``torch.export.save`` store every member uncompressed. Something else made a file with a
compressed member, a member that is larger than the file, two members of one name, or a name that leaves the
archive.
"""

from __future__ import annotations

import zipfile
from pathlib import PurePosixPath
from typing import BinaryIO

import torch
from torch import Tensor

from fx_passes.errors import LoadError

# What is copied at once: a member never lies in memory twice.
_CHUNK = 1 << 24
# Larger than any description of a model: JSON needs many times its size in memory.
_MOST_TEXT = 1 << 28


class Archive:
    """The members of a zip file, by their names without the folder that contains them all.

    Args:
        file: open for reading; it stays open.
        what: the name of the file in an error.

    Raises:
        LoadError: the file is no zip file, or its directory lists what is not there.
    """

    def __init__(self, file: BinaryIO, what: str) -> None:
        self.what = what
        size = file.seek(0, 2)
        try:
            self._zip = zipfile.ZipFile(file)
        except Exception as error:  # the directory of a broken file raises one of many
            raise LoadError(f"{what} is not a torch.export archive: not a zip file ({error})") from error
        members = self._zip.infolist()
        for member in members:
            if reason := _refusal(member, size):
                raise LoadError(f"{what}: its member {member.filename[:80]!r} {reason}")
        if sum(member.file_size for member in members) > size:
            raise LoadError(f"{what}: its members overlap; together they are larger than the file")
        folders = {member.filename.partition("/")[0] for member in members}
        if len(folders) != 1:
            raise LoadError(f"{what} is not what torch saves: it has {len(folders)} folders, expected 1")
        self._members = {member.filename.partition("/")[2]: member for member in members}
        if len(self._members) < len(members):
            raise LoadError(f"{what}: two of its members have the same name")

    def names(self) -> list[str]:
        """All members."""
        return list(self._members)

    def text(self, name: str) -> str:
        """The UTF-8 text of a member.

        Raises:
            LoadError: there is no such member, or it cannot be read.
        """
        member = self._member(name)
        if member.file_size > _MOST_TEXT:
            raise LoadError(f"{self.what}: `{name}` has {member.file_size} bytes, at most {_MOST_TEXT}")
        return self.bytes_of(name).decode()

    def bytes_of(self, name: str) -> bytes:
        """A small member as it is."""
        return self.tensor(name).numpy().tobytes()

    def _member(self, name: str) -> zipfile.ZipInfo:
        if name not in self._members:
            raise LoadError(f"{self.what}: there is no `{name}` in it")
        return self._members[name]

    def tensor(self, name: str) -> Tensor:
        """The bytes of a member, uint8, read once.

        Raises:
            LoadError: there is no such member, it is cut off, or its checksum is wrong.
        """
        member = self._member(name)
        values = torch.empty(member.file_size, dtype=torch.uint8)
        view, at = memoryview(values.numpy()), 0  # type: ignore[arg-type]
        try:
            with self._zip.open(member) as file:
                while chunk := file.read(_CHUNK):
                    view[at : at + len(chunk)] = chunk
                    at += len(chunk)
        except Exception as error:  # a checksum, a header that differs, the end of the file
            raise LoadError(f"{self.what}: `{name}` cannot be read: {error}") from error
        if at != member.file_size:
            raise LoadError(f"{self.what}: `{name}` ends after {at} of {member.file_size} bytes")
        return values


def _refusal(member: zipfile.ZipInfo, size: int) -> str | None:
    """Why a member is not read, or None."""
    if member.compress_type != zipfile.ZIP_STORED:
        return "is compressed, which torch never does"
    if member.flag_bits & 1:
        return "is encrypted"
    if member.file_size != member.compress_size:
        return f"says it has {member.file_size} bytes, but {member.compress_size} are stored"
    if member.header_offset + member.file_size > size:
        return f"says it has {member.file_size} bytes, but the file has {size}"
    path = PurePosixPath(member.filename)
    if path.is_absolute() or ".." in path.parts or "\\" in member.filename or not path.parts[1:]:
        return "has a name that leaves the archive"
    return None
