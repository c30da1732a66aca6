"""PNG files written by hand: what Pillow reads but does not write, and bombs."""

import struct
import zlib


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, kind, rows, extra=b""):
    """A PNG file by hand, for what Pillow reads but does not write."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + extra + body


def bomb(path, width=60_000, height=60_000):
    """A one-bit PNG of a few kilobytes that would be 3.6 gigapixels."""
    path.write_bytes(png(width, height, 1, 0, b"\0" * 100_000))
    return path
