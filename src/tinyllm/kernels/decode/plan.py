"""The plan: one array of int64 numbers that tells the compiled code where everything lies and how large it is.

The names below are places in it: sizes, offsets and addresses. This module knows no Numba, so that a process whose
kernels are cached never imports it.
"""

NUM_FIELDS = 61
(
    # Sizes.
    NUM_LAYERS,
    NUM_HEADS,
    NUM_KV_HEADS,
    HEAD_SIZE,
    HIDDEN_SIZE,
    HIDDEN_COLUMNS,
    INTERMEDIATE_SIZE,
    INTERMEDIATE_COLUMNS,
    VOCAB_SIZE,
    SAMPLING_COLUMNS,
    NUM_POSITIONS,
    NUM_SLOTS,
    NUM_CHUNKS,
    HEAD_VECTORS,
    # Where matrices begin inside the weights, in numbers, and inside the scales, in rows.
    LAYER_NUMBERS,
    LAYER_ROWS,
    OUTPUT_START,
    OUTPUT_ROW,
    EMBEDDING_START,
    EMBEDDING_ROW,
    # Addresses of what the model is.
    WEIGHTS,
    SCALES,
    GAINS,
    NORM_EPS,
    COSINES,
    SINES,
    # Addresses of the cache, and of each row's activations.
    KEYS,
    VALUES,
    STREAM,
    NORMED,
    QKV,
    MIXED,
    GATE_UP,
    GATED,
    SCORES,
    HEAD_SUMS,
    LOGITS,
    PACKED,
    PACKED_SCALES,
    TURNED,
    TILES,
    TILES_STRIDE,
    # Which rows: their number, and for each its token, its place in the cache, and its position.
    NUM_ROWS,
    TOKENS,
    SLOTS,
    POSITIONS,
    # The rows after which logits are wanted.
    NUM_OUTPUTS,
    OUTPUT_ROWS,
    # Sampling: how many texts; addresses of settings, logits, what was seen, uniform numbers, and the results.
    NUM_SAMPLES,
    SETTINGS,
    SAMPLED_LOGITS,
    SEEN,
    UNIFORMS,
    CHOSEN,
    LOG_PROBABILITIES,
    NOT_FINITE,
    # Summaries of logits (see `choice`), and of how many texts they are those that the last pass computed.
    SUMMARIES,
    NUM_SUMMARIZED,
    # Addresses of what each chunk of sampling works on.
    SAMPLING_NUMBERS,
    SAMPLING_SUMS,
    # Address of the compiled choice, which is another object file's.
    CHOOSE,
) = range(NUM_FIELDS)

TEAM_FIELDS = 3
QUEUE, PATIENCE, YIELD = range(NUM_FIELDS, NUM_FIELDS + TEAM_FIELDS)
"""Of the team: the address of its queue, how long a helper waits, and the address of the system's yield function."""

READ, HELP, SAMPLE = range(3)
"""Roles: leading a pass of rows through the model, helping whoever leads, and leading the choice of tokens."""

TICKET, DONE, OPEN_JOB, OPEN_LAYER, QUEUE_SIZE = 0, 8, 16, 17, 24
"""Places in the queue, a cache line apart where several threads write."""

MANY_ROWS = 8
"""From here on a pass multiplies tiles of 16 rows at a time, and fewer rows one by one."""
MAX_TILE_NUMBERS = 16 * 16
"""Room for the largest tile."""
MAX_TILE_ROWS = 16
LANES = 16
"""Numbers of a vector."""
SUMMED_VECTORS = 16
"""A head's channels have a vector each, summed sixteen at a time: their number is filled up to a multiple of this."""

TEMPERATURE, TOP_K, TOP_P, MIN_P, REPETITION_PENALTY, NUM_SETTINGS = range(6)
"""Places in the settings of sampling."""
WEIGHTS_LEFT, POOL, PENALIZED, NUM_SAMPLING_NUMBERS = range(4)
"""What each chunk of sampling works on: float32 for each token."""
TOPS, SUMS, SHARPENED_SUMS, NUM_SUMMARIES = range(4)
"""What summaries tell of each block of a row of logits."""
SAMPLING_BLOCK = 64
"""Logits that have a summary together, and are passed over together where the largest of them is too small."""
NUM_CUTS = 8
"""Where weights of tokens are cut into parts, to find that in which top-p ends; their sums follow those of blocks."""
