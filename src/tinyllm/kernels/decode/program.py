"""The compiled program of the CPU engine: a whole pass in one call, its heavy jobs shared with helper threads.

A pass takes rows (see `forward`) through the model as a series of jobs. Each layer has QKV, attention, output, gate and
up, down; the vocabulary comes last. Each job is divided into chunks. One thread leads: it prepares a job, opens it by
writing its ticket, takes chunks like everyone, and waits until all are done. Helpers take chunks while there are any.
Nobody waits for a helper that has not taken a chunk: a suspended helper costs speed, never the result.

The ticket is one number: the open job's number of chunks, and the next chunk to take. A thread takes a chunk by one
atomic addition. A thread whose chunk is below the count holds the job open until it counts the chunk as done.
"""

from typing import Any

from numba import cfunc, types

from tinyllm.config import WeightsKind
from tinyllm.kernels.decode import plan as at
from tinyllm.kernels.decode.blocks import MIN_SHARED_ROWS
from tinyllm.kernels.decode.choice import choose
from tinyllm.kernels.decode.forward import (
    FAST,
    append_to_cache,
    attend,
    compiled,
    multiply_rows,
    normalize,
    pack,
    swiglu,
    widen,
)
from tinyllm.kernels.decode.memory import (
    atomic_add,
    atomic_load,
    atomic_store,
    bytes_,
    call,
    floats,
    halves,
    integers,
    like,
    pause,
    plan_at,
    words,
)

QKV, ATTENTION, OUTPUT, GATE_UP, DOWN, VOCABULARY, SAMPLING = range(7)
JOBS_PER_LAYER = 5
PREPARE_OFFSET = 8
"""Job id + PREPARE_OFFSET is the job's preparation step, parallel only for large batches."""
CHUNK_BITS = 16
SPINS_BEFORE_YIELD = 1024

POINTERS = {"fp32": (floats, floats), "bf16": (halves, floats), "int8": (bytes_, words)}
"""The pointer types of each kind of weights, and of the activations that they multiply."""


def compile_entry(weights_kind: WeightsKind) -> Any:
    """The program for one kind of weights, as a C function of the plan's address and a role."""
    to_weights, to_packed = POINTERS[weights_kind]

    @cfunc(types.void(types.int64, types.int64), **FAST)
    def entry(address, role):
        plan = plan_at(address)
        enter(plan, role, to_weights(plan.weights), to_packed(plan.packed))

    return entry


@compiled
def enter(plan, role, weights, packed):
    """Runs one role. The types of `weights` and `packed` select the arithmetic."""
    if role == at.READ:
        read(plan, weights, packed)
    elif role == at.HELP:
        help_leader(plan, weights, packed)
    elif plan.num_samples == 1:
        choose(plan, 0, 0)
    else:
        lead(plan, weights, packed, SAMPLING, 0)


@compiled
def read(plan, weights, packed):
    """Takes every row through every layer, from its token to the cache, and computes the logits of output rows."""
    embed(plan, weights)
    for layer in range(plan.num_layers):
        for job in range(JOBS_PER_LAYER):
            prepare_and_lead(plan, weights, packed, job, layer, plan.num_rows)
    if plan.num_outputs > 0:
        prepare_and_lead(plan, weights, packed, VOCABULARY, plan.num_layers, plan.num_outputs)


@compiled
def embed(plan, weights):
    """Writes the embedding of every row's token into the residual stream."""
    tokens, scales, residual = integers(plan.tokens), floats(plan.scales), floats(plan.residual)
    for row in range(plan.num_rows):
        start = plan.embedding_start + tokens[row] * plan.hidden_columns
        scale = scales[plan.embedding_row + tokens[row]]
        widen(weights, start, scale, plan.hidden_size, residual, row * plan.hidden_size)


@compiled
def prepare_and_lead(plan, weights, packed, job, layer, num_rows):
    """Runs a job and, before it, its preparation: by all threads for many rows, else by this one."""
    if num_rows >= MIN_SHARED_ROWS:
        lead(plan, weights, packed, job + PREPARE_OFFSET, layer)
    else:
        prepare(plan, packed, job, layer, 0, num_rows)
    lead(plan, weights, packed, job, layer)


@compiled
def prepare(plan, packed, job, layer, first, last):
    """The preparation of `job` for rows `first` to `last`: the cache of attention, or the input of a product."""
    if job == ATTENTION:
        append_to_cache(plan, layer, first, last)
        return
    if job == QKV or job == GATE_UP or job == VOCABULARY:
        normalize(plan, 2 * layer + (1 if job == GATE_UP else 0), first, last)
    scales, source, columns = floats(plan.packed_scales), plan.normed, plan.hidden_columns
    if job == OUTPUT:
        source = plan.attended
    elif job == DOWN:
        source, columns = plan.gated, plan.intermediate_columns
    for row in range(first, last):
        scales[row] = pack(floats(source), row * columns, packed, row * columns, columns)


@compiled
def lead(plan, weights, packed, job, layer):
    """Opens a job, works on it, and returns when all of it is done."""
    queue, num_chunks, spins = integers(plan.queue), plan.num_chunks, 0
    queue[at.OPEN_JOB], queue[at.OPEN_LAYER], queue[at.DONE] = job, layer, 0
    atomic_store(queue, at.TICKET, num_chunks << CHUNK_BITS)
    take_chunks(plan, weights, packed)
    while atomic_load(queue, at.DONE) < num_chunks:
        spins += 1
        if spins % SPINS_BEFORE_YIELD == 0 and plan.yield_function != 0:
            # The system suspended a helper inside a chunk; it may need this core to go on.
            call(plan.yield_function)
        pause()


@compiled
def help_leader(plan, weights, packed):
    """Takes chunks as they come; returns after `idle_rounds` without one, so that the thread can sleep."""
    idle = 0
    while idle < plan.idle_rounds:
        idle = 0 if take_chunks(plan, weights, packed) else idle + 1
        pause()


@compiled
def take_chunks(plan, weights, packed):
    """Takes and runs chunks of the open job until none is left; returns whether it got any."""
    queue, mask, found = integers(plan.queue), (1 << CHUNK_BITS) - 1, False
    while True:
        ticket = atomic_load(queue, at.TICKET)
        if ticket & mask >= ticket >> CHUNK_BITS:
            return found
        ticket = atomic_add(queue, at.TICKET, 1)
        chunk, num_chunks = ticket & mask, ticket >> CHUNK_BITS
        if chunk < num_chunks:
            # The job stays open until DONE counts this chunk, so OPEN_JOB and OPEN_LAYER belong to the chunk.
            run_chunk(plan, weights, packed, queue[at.OPEN_JOB], queue[at.OPEN_LAYER], chunk, num_chunks)
            atomic_add(queue, at.DONE, 1)
            found = True


@compiled
def run_chunk(plan, weights, packed, job, layer, chunk, num_chunks):
    """Runs one chunk of a job."""
    # A helper may wait since before the plan was written, so it reads the addresses anew.
    weights, packed = like(plan.weights, weights), like(plan.packed, packed)
    if job >= PREPARE_OFFSET:
        run_preparation(plan, packed, job - PREPARE_OFFSET, layer, chunk, num_chunks)
    elif job == ATTENTION:
        first, last = part(plan.num_rows * plan.num_heads, chunk, num_chunks)
        attend(plan, layer, first, last, chunk)
    elif job == GATE_UP:
        run_gate_up(plan, weights, packed, layer, chunk, num_chunks)
    elif job == SAMPLING:
        first, last = part(plan.num_samples, chunk, num_chunks)
        for row in range(first, last):
            choose(plan, row, chunk)
    else:
        run_product(plan, weights, packed, job, layer, chunk, num_chunks)


@compiled
def part(count, chunk, num_chunks):
    """The share of `count` items that belongs to a chunk: first and last."""
    return count * chunk // num_chunks, count * (chunk + 1) // num_chunks


@compiled
def run_preparation(plan, packed, job, layer, chunk, num_chunks):
    """A chunk of the preparation of `job`: some rows."""
    num_rows = plan.num_outputs if job == VOCABULARY else plan.num_rows
    first, last = part(num_rows, chunk, num_chunks)
    prepare(plan, packed, job, layer, first, last)


@compiled
def run_gate_up(plan, weights, packed, layer, chunk, num_chunks):
    """A chunk of gate and up: both for the same channels, then SwiGLU's product of them."""
    size, num_qkv = plan.intermediate_size, (plan.num_heads + 2 * plan.num_kv_heads) * plan.head_size
    matrix = layer_matrix(plan, layer, num_qkv + plan.hidden_size, plan.hidden_columns)
    result = (floats(plan.gate_up), 2 * size)
    first, last = part(size, chunk, num_chunks)
    for up in range(0, 2 * size, size):
        multiply_rows(plan, weights, packed, plan.num_rows, chunk, matrix, result, first + up, last + up, False)
    for row in range(plan.num_rows):
        swiglu(plan, row, first, last)


@compiled
def run_product(plan, weights, packed, job, layer, chunk, num_chunks):
    """A chunk of a matrix product: QKV and logits are set, output and down are added to the residual stream."""
    size, num_qkv = plan.hidden_size, (plan.num_heads + 2 * plan.num_kv_heads) * plan.head_size
    count, num_rows, result = size, plan.num_rows, (floats(plan.residual), size)
    if job == QKV:
        matrix, count, result = layer_matrix(plan, layer, 0, plan.hidden_columns), num_qkv, (floats(plan.qkv), num_qkv)
    elif job == OUTPUT:
        matrix = layer_matrix(plan, layer, num_qkv, plan.hidden_columns)
    elif job == DOWN:
        matrix = layer_matrix(plan, layer, num_qkv + size + 2 * plan.intermediate_size, plan.intermediate_columns)
    else:
        matrix = (plan.output_start, plan.output_row, plan.hidden_columns)
        count, num_rows, result = plan.vocab_size, plan.num_outputs, (floats(plan.logits), plan.vocab_size)
    first, last = part(count, chunk, num_chunks)
    adds = job == OUTPUT or job == DOWN
    multiply_rows(plan, weights, packed, num_rows, chunk, matrix, result, first, last, adds)


@compiled
def layer_matrix(plan, layer, row, columns):
    """A matrix of a layer: its first weight, its first scale, its columns. `row` counts the layer's rows before it."""
    return layer * plan.layer_weights + row * plan.hidden_columns, layer * plan.layer_rows + row, columns
