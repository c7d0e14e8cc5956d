"""Files that settings name: an error names the file, because commands print it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from clients.alipayhk.regular_file import open_regular, read_regular


def test_regular_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"contents")
    assert read_regular(file) == b"contents"


@pytest.mark.parametrize(
    ("make", "number"), [(Path.mkdir, errno.EISDIR), (os.mkfifo, errno.EINVAL)], ids=["directory", "pipe"]
)
def test_error_of_a_file_that_is_not_regular_has_its_path_and_number(
    tmp_path: Path, make: Callable[[Path], None], number: int
) -> None:
    path = tmp_path / "file"
    make(path)
    with pytest.raises(OSError) as refused:  # noqa: PT011  (the fields are compared)
        open_regular(path)
    assert (refused.value.filename, refused.value.errno) == (str(path), number)
