"""Block sizes of the compiled program, each named after what it counts, and the relations between them.

Memory is padded to whole blocks, so that the inner loops have no remainder. This module does not import Numba.
"""

LANES = 16
"""Float32 numbers of one vector."""
COLUMN_BLOCK = 32
"""Columns of a matrix, and the activations that they multiply, are padded with zeros to a multiple of this."""
POSITION_BLOCK = 32
"""Positions that the key and value caches store side by side for each channel."""
HEAD_VECTOR_BLOCK = 16
"""Channels of a head whose partial sums are reduced together."""
TILE_INPUTS = 16
"""Rows of activations in one tile of a matrix product."""
MAX_TILE_ROWS = 16
"""Largest number of matrix rows in one tile; a CPU with few registers uses fewer."""
TILE_NUMBERS = TILE_INPUTS * MAX_TILE_ROWS
MIN_TILED_ROWS = 8
"""Smallest number of activation rows for which a pass multiplies tiles; fewer rows are multiplied one at a time."""
SUM_BLOCK = 1024
"""Weights of tokens that are summed in float32; the sums of blocks are added in float64."""
CACHE_LINE_BYTES = 64

assert COLUMN_BLOCK % (2 * LANES) == 0, "an int8 product reads two vectors of columns"
assert POSITION_BLOCK == 2 * LANES, "a block of positions is two vectors"
assert HEAD_VECTOR_BLOCK == LANES, "a reduction transposes a square of vectors"
assert TILE_INPUTS == LANES, "the inputs of a tile fill one vector"
assert MAX_TILE_ROWS <= LANES, "a tile is transposed in one square of vectors"
assert MIN_TILED_ROWS <= TILE_INPUTS, "the first tile is at least half full"
assert COLUMN_BLOCK % TILE_INPUTS == 0, "rows padded to a column block fill whole tiles"
assert SUM_BLOCK % LANES == 0, "a block of summed weights is whole vectors"
assert CACHE_LINE_BYTES % (4 * LANES) == 0, "a vector lies in one cache line"
