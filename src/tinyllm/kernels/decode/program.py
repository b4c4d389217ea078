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
from tinyllm.kernels.decode import forward, memory
from tinyllm.kernels.decode import plan as at
from tinyllm.kernels.decode.blocks import COLUMN_BLOCK, MIN_SHARED_ROWS
from tinyllm.kernels.decode.choice import choose
from tinyllm.kernels.decode.forward import FAST, compiled
from tinyllm.kernels.decode.memory import floats, integers

QKV, OUTPUT, GATE_UP, DOWN, VOCABULARY, ATTENTION, SAMPLING = range(7)
"""Jobs. The first four are the products of a layer, in the order of their matrices."""
LAYER_JOBS = (QKV, ATTENTION, OUTPUT, GATE_UP, DOWN)
MATRICES_PER_LAYER, MATRIX_BYTES = 4, at.MATRIX.itemsize
PREPARE_OFFSET = 8
"""Job id + PREPARE_OFFSET is the job's preparation step, parallel only for large batches."""
CHUNK_BITS = 16
SPINS_BEFORE_YIELD = 1024

POINTERS = {"fp32": (floats, floats), "bf16": (memory.halves, floats), "int8": (memory.bytes_, memory.words)}
"""The pointer types of each kind of weights, and of the activations that they multiply."""


def compile_entry(weights_kind: WeightsKind) -> Any:
    """The program for one kind of weights, as a C function of the plan's address and a role."""
    to_weights, to_packed = POINTERS[weights_kind]

    @cfunc(types.void(types.int64, types.int64), **FAST)
    def entry(address, role):
        plan = memory.plan_at(address)
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
        for job in LAYER_JOBS:
            prepare_and_lead(plan, weights, packed, job, layer, plan.num_rows)
    if plan.num_outputs > 0:
        prepare_and_lead(plan, weights, packed, VOCABULARY, plan.num_layers, plan.num_outputs)


@compiled
def embed(plan, weights):
    """Writes the embedding of every row's token into the residual stream."""
    tokens, scales, residual = integers(plan.tokens), floats(plan.scales), floats(plan.residual)
    table = memory.matrix_at(plan.matrices)
    for row in range(plan.num_rows):
        start, scale = table.start + tokens[row] * table.columns, scales[table.row + tokens[row]]
        forward.widen(weights, start, scale, plan.hidden_size, residual, row * plan.hidden_size)


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
        forward.append_to_cache(plan, layer, first, last)
        return
    if job == QKV or job == GATE_UP or job == VOCABULARY:
        forward.normalize(plan, 2 * layer + (1 if job == GATE_UP else 0), first, last)
    scales, source, columns = floats(plan.packed_scales), plan.normed, plan.hidden_columns
    if job == OUTPUT:
        source, columns = plan.attended, plan.attention_columns
    elif job == DOWN:
        source, columns = plan.gated, plan.intermediate_columns
    for row in range(first, last):
        scales[row] = forward.pack(floats(source), row * columns, packed, row * columns, columns)


@compiled
def lead(plan, weights, packed, job, layer):
    """Opens a job, works on it, and returns when all of it is done."""
    queue, num_chunks, spins = integers(plan.queue), plan.num_chunks, 0
    queue[at.OPEN_JOB], queue[at.OPEN_LAYER], queue[at.DONE] = job, layer, 0
    memory.atomic_store(queue, at.TICKET, num_chunks << CHUNK_BITS)
    take_chunks(plan, weights, packed)
    while memory.atomic_load(queue, at.DONE) < num_chunks:
        spins += 1
        if spins % SPINS_BEFORE_YIELD == 0 and plan.yield_function != 0:
            # The system suspended a helper inside a chunk; it may need this core to go on.
            memory.call(plan.yield_function)
        memory.pause()


@compiled
def help_leader(plan, weights, packed):
    """Takes chunks as they come; returns after `idle_rounds` without one, so that the thread can sleep."""
    idle = 0
    while idle < plan.idle_rounds:
        idle = 0 if take_chunks(plan, weights, packed) else idle + 1
        memory.pause()


@compiled
def take_chunks(plan, weights, packed):
    """Takes and runs chunks of the open job until none is left; returns whether it got any."""
    queue, mask, found = integers(plan.queue), (1 << CHUNK_BITS) - 1, False
    while True:
        ticket = memory.atomic_load(queue, at.TICKET)
        if ticket & mask >= ticket >> CHUNK_BITS:
            return found
        ticket = memory.atomic_add(queue, at.TICKET, 1)
        chunk, num_chunks = ticket & mask, ticket >> CHUNK_BITS
        if chunk < num_chunks:
            # The job stays open until DONE counts this chunk, so OPEN_JOB and OPEN_LAYER belong to the chunk.
            run_chunk(plan, weights, packed, queue[at.OPEN_JOB], queue[at.OPEN_LAYER], chunk, num_chunks)
            memory.atomic_add(queue, at.DONE, 1)
            found = True


@compiled
def run_chunk(plan, weights, packed, job, layer, chunk, num_chunks):
    """Runs one chunk of a job."""
    # A helper may wait since before the plan was written, so it reads the addresses anew.
    weights, packed = memory.like(plan.weights, weights), memory.like(plan.packed, packed)
    if job >= PREPARE_OFFSET:
        num_rows = plan.num_outputs if job == PREPARE_OFFSET + VOCABULARY else plan.num_rows
        first, last = part(num_rows, chunk, num_chunks)
        prepare(plan, packed, job - PREPARE_OFFSET, layer, first, last)
    elif job == ATTENTION:
        first, last = part(forward.attention_items(plan), chunk, num_chunks)
        forward.attend(plan, layer, first, last, chunk)
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
def run_product(plan, weights, packed, job, layer, chunk, num_chunks):
    """A chunk of a matrix product: output and down are added to the residual stream, the others are set.

    A chunk of gate and up has both for the same channels, and ends with SwiGLU's product of them. Biases are added
    after the product; only matrices of layers have them.
    """
    index = 1 + MATRICES_PER_LAYER * layer + (0 if job == VOCABULARY else job)
    matrix = memory.matrix_at(plan.matrices + MATRIX_BYTES * index)
    place = matrix.start, matrix.row, matrix.columns, matrix.columns, COLUMN_BLOCK
    num_rows, result, adds = plan.num_rows, plan.residual, job == OUTPUT or job == DOWN
    if job == QKV:
        result = plan.qkv
    elif job == GATE_UP:
        result = plan.gate_up
    elif job == VOCABULARY:
        num_rows, result = plan.num_outputs, plan.logits
    target = floats(result), matrix.num_rows
    count = matrix.num_rows // 2 if job == GATE_UP else matrix.num_rows
    first, last = part(count, chunk, num_chunks)
    for y in range(0, matrix.num_rows, count):
        forward.multiply_rows(plan, weights, packed, num_rows, place, target, y + first, y + last, adds)
        if plan.biases != 0 and job != VOCABULARY:
            forward.add_biases(plan, num_rows, place, target, y + first, y + last)
    if job == GATE_UP:
        for row in range(num_rows):
            forward.swiglu(plan, row, first, last)
