"""How the work of xnor.cu is cut into blocks: which kernel, how many blocks and threads, how much shared memory.

Plain arithmetic, so that the tests without a GPU launch the same kernels in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["KERNELS", "TILES", "Tile", "choose_tile", "has_tensor_core", "pack_lanes"]

_STAGES = 3
_ROW_BYTES = 64  # of a row in a stage, per slice
_ROW_DATA_BYTES = 32  # struct RowData
_SLAB_COLUMNS = 64


@dataclass(frozen=True)
class Tile:
    """A block's part of the product, as struct Tile of xnor.cu: output pixels by filters."""

    family: str  # "tensor" or "popcount"
    rows: int
    columns: int
    slices: int
    threads: int

    @property
    def name(self) -> str:
        return f"{self.family}_{self.rows}x{self.columns}"

    def kernel(self, words: int) -> str:
        """Copies of two words need an even number of them per pixel."""
        return f"xnor_{self.name}_{2 if words % 2 == 0 else 1}"

    @property
    def shared_bytes(self) -> int:
        pipeline = _STAGES * self.slices * (self.rows + self.columns) * _ROW_BYTES
        slab = self.slices * min(self.columns, _SLAB_COLUMNS) * (self.rows + 4) * 4
        return max(pipeline, slab) + self.rows * _ROW_DATA_BYTES

    def grid(self, rows: int, columns: int) -> tuple[int, int]:
        return -(-rows // self.rows), -(-columns // self.columns)


TILES = (  # per family from the largest, which reuses most, to the one for little work
    Tile("tensor", 128, 128, slices=1, threads=256),
    Tile("tensor", 128, 64, slices=1, threads=256),
    Tile("tensor", 32, 32, slices=4, threads=128),
    Tile("popcount", 64, 64, slices=1, threads=256),
    Tile("popcount", 32, 32, slices=4, threads=256),
)

KERNELS = (
    "xnor_pack",
    "xnor_pixel_info",
    "xnor_place_sums",
    "xnor_pool_signs",
    *(tile.kernel(words) for tile in TILES for words in (1, 2)),
)


def has_tensor_core(capability: tuple[int, int]) -> bool:
    """Whether the one-bit product of 16 x 8 x 256 is native: compute capability 8.0 to 9.x.

    Older GPUs know another shape only, later ones emulate it; there the words are counted by __popc.
    """
    return (8, 0) <= capability < (10, 0)


def choose_tile(capability: tuple[int, int], n_multiprocessors: int, rows: int, columns: int) -> Tile:
    """The largest tile that still gives three quarters of the multiprocessors a block."""
    family = "tensor" if has_tensor_core(capability) else "popcount"
    tiles = [tile for tile in TILES if tile.family == family]
    for tile in tiles[:-1]:
        across, down = tile.grid(rows, columns)
        too_wide = tile.columns > _SLAB_COLUMNS >= columns
        if not too_wide and 4 * across * down >= 3 * n_multiprocessors:
            return tile
    return tiles[-1]


def pack_lanes(words: int) -> int:
    """Words of a pixel that a block of xnor_pack makes at a time: 1, 2, 4 or 8."""
    return min(8, 1 << (words - 1).bit_length())
