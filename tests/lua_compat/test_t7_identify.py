"""Files that are no .t7 file are called by their names."""

import gzip
import io
import pickle
import zipfile

import numpy as np
import pytest

import lua_compat
from lua_compat import T7Error


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", b"x")
    return file.getvalue()


def numpy_file() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(2))
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (pickle.dumps({}, protocol=2), "Python pickle"),
        (pickle.dumps({}, protocol=4), "Python pickle"),
        (zipped(), "zip archive; a PyTorch"),
        (gzip.compress(b"x"), "gzip"),
        (numpy_file(), "numpy.load"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x98\x20\0\0\0\0\0\0" + b'{"__metadata__":{}', "a safetensors file"),
        (b"<!DOCTYPE html><html>Not found</html>", "HTML or XML page, perhaps an error page"),
        (b"  <html>", "HTML or XML page"),
        (b"This is a caption.\nAnd more.", "text: 'This is a caption. And more.'"),
        ("größer".encode(), "text: 'größer'"),
        (b"4\r\n1\r\n3\r\nV 1\r\n", "Windows line ends"),
        (b"\xef\xbb\xbf4\n1\n3\nV 1\n", "byte order mark"),
        (b"", "an empty file"),
        (b"\x04\x00", "only 2 bytes"),
        (b"\xde\xad\xbe\xef", "type id from 0 to 8, found 4022250974"),
    ],
)
def test_what_a_file_is(data: bytes, name: str) -> None:
    with pytest.raises(T7Error) as caught:
        lua_compat.loads(data)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
