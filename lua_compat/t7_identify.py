"""What a file that is not a .t7 file probably is."""

import re

__all__ = ["what_it_is"]

MAGICS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself; run `git lfs pull` to fetch it"),
    (b"PK\x03\x04", "a zip archive; a PyTorch (1.6 or later) file is one: use torch.load"),
    (b"\x1f\x8b", "a gzip file; unpack it first"),
    (b"\x89HDF\r\n", "an HDF5 file; use h5py"),
    (b"\x93NUMPY", "a NumPy file; use numpy.load"),
    (b"MATLAB", "a MATLAB file; use scipy.io.loadmat"),
    (b"BZh", "a bzip2 file; unpack it first"),
    (b"\xfd7zXZ", "an xz file; unpack it first"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GGUF", "a GGUF file of llama.cpp"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"7z\xbc\xaf", "a 7-Zip archive; unpack it first"),
)
PICKLE_PROTOCOLS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def what_it_is(head: bytes) -> str:
    """One sentence on a file that starts with `head` and no object of a .t7 file."""
    if not head:
        return "expected a .t7 file, found an empty file"
    guess = guess_from_head(head)
    if guess:
        return f"expected a .t7 file, found {guess}"
    if len(head) < 4:
        return f"expected a .t7 file, found only {len(head)} bytes: {head!r}"
    number = int.from_bytes(head[:4], "little")
    return f"expected a .t7 file, which starts with a type id from 0 to 8, found {number} ({head[:4]!r})"


def guess_from_head(head: bytes) -> str:
    """What a file probably is, "" where nothing is known."""
    for magic, name in MAGICS:
        if head.startswith(magic):
            return name
    if head[:2] in PICKLE_PROTOCOLS:
        return "a Python pickle; a PyTorch file (before 1.6) is one: use torch.load"
    if re.match(rb".{6}\x00\x00\{\s*\"", head, re.DOTALL):
        return "a safetensors file; use safetensors.torch.load_file, or XnorModel.load for a packed network"
    if re.match(rb"(\xef\xbb\xbf)?\s*[0-8]\r\n", head):
        return "an ascii .t7 file with Windows line ends; turn them into \\n (strings may be damaged)"
    if re.match(rb"\xef\xbb\xbf[0-8]\n", head):
        return "an ascii .t7 file with a byte order mark in front; remove its first three bytes"
    if re.match(rb"\s*<(!doctype|html|\?xml)", head, re.IGNORECASE):
        return "an HTML or XML page, perhaps an error page of a download: " + excerpt(head)
    if is_text(head):
        return "text: " + excerpt(head)
    return ""


def is_text(head: bytes) -> bool:
    """Whether bytes read as text: UTF-8 (cut anywhere) without control characters."""
    if any(byte < 32 and byte not in b"\t\n\r\f" for byte in head):
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start >= len(head) - 3 and error.reason == "unexpected end of data"
    return True


def excerpt(head: bytes) -> str:
    """The beginning of a text on one line."""
    line = " ".join(head[:200].decode("utf-8", "replace").split())
    return repr(line[:40] + ("..." if len(line) > 40 else ""))
