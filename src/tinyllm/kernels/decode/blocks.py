"""Block sizes of the compiled program, each named after what it counts, and the relations between them.

Memory is padded to whole blocks, so that the inner loops have no remainder. This module does not import Numba.
"""

LANES = 16
"""Float32 numbers of one vector."""
COLUMN_BLOCK = 32
"""Columns of a matrix, and the activations that they multiply, are padded with zeros to a multiple of this."""
POSITION_BLOCK = 32
"""Positions that the key and value caches store side by side for each channel."""
BLOCK_ACTIVATIONS = 2**17
"""Activations that pass by each tile of matrix rows and stay in a core's cache: 512 KB of float32."""
MAX_TILE_INPUTS = 4
"""Activation rows of one tile, at most (see `vectors`)."""
MIN_SHARED_ROWS = 17
"""Smallest number of activation rows that the threads normalize and pack together; one thread does fewer rows."""
SUM_BLOCK = 1024
"""Weights of tokens that are summed in float32; the sums of blocks are added in float64."""
CACHE_LINE_BYTES = 64

assert COLUMN_BLOCK % (2 * LANES) == 0, "an int8 product reads two vectors of columns"
assert POSITION_BLOCK == 2 * LANES, "a block of positions is two vectors"
assert POSITION_BLOCK == COLUMN_BLOCK, "values are a matrix whose columns are positions"
assert SUM_BLOCK % LANES == 0, "a block of summed weights is whole vectors"
assert CACHE_LINE_BYTES % (4 * LANES) == 0, "a vector lies in one cache line"
