"""The compiled program of the CPU engine: a whole pass in one call, its heavy parts shared with helper threads.

A pass takes rows (see `forward`) through the model. It is a series of jobs (QKV, attention, output, gate and up,
down, vocabulary), each cut into chunks. One thread leads: it does what is small, opens a job by writing its ticket,
takes chunks like everyone, and waits until all are done. Helpers take chunks while there are any. Nobody waits for a
helper that has not taken a chunk: one that the system has put aside costs speed, never the result.

The ticket is one number: how many chunks the open job has, and the next one to take. Taking is one atomic addition;
whoever gets a number below the count holds the job open until it counts the chunk as done.
"""

from typing import Any

from numba import cfunc, types

from tinyllm.config import WeightsKind
from tinyllm.kernels.decode import plan as at
from tinyllm.kernels.decode.blocks import MIN_TILED_ROWS, TILE_INPUTS
from tinyllm.kernels.decode.choice import choose
from tinyllm.kernels.decode.forward import (
    FAST,
    attend,
    compiled,
    gate,
    multiply,
    multiply_many,
    norm,
    pack,
    remember,
    turn,
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
BEFORE = 8
"""A job's number plus this is what comes before it, where the rows are so many that it is worth sharing."""
CHUNK_BITS = 16
SPINS_BEFORE_YIELD = 1024

POINTERS = {"fp32": (floats, floats), "bf16": (halves, floats), "int8": (bytes_, words)}
"""As what each kind of weights lies in memory, and as what the activations that meet them."""


def compile_entry(weights_kind: WeightsKind) -> Any:
    """`enter` for one kind of weights, as a C function of the plan's address and a role."""
    to_weights, to_packed = POINTERS[weights_kind]

    @cfunc(types.void(types.int64, types.int64), **FAST)
    def entry(address, role):
        plan = plan_at(address)
        enter(plan, role, to_weights(plan.weights), to_packed(plan.packed))

    return entry


@compiled
def enter(plan, role, weights, packed):
    """Does what `role` says. The types of `weights` and `packed` say how weights are kept."""
    if role == at.READ:
        read(plan, weights, packed)
    elif role == at.HELP:
        help_out(plan, weights, packed)
    else:
        if plan.num_samples == 1:
            choose(plan, 0, 0)
        else:
            share_out(plan, weights, packed, SAMPLING, 0)


@compiled
def read(plan, weights, packed):
    """Every row through every layer, from its token to the cache, and to the logits of what comes next if wanted."""
    num_layer_jobs = JOBS_PER_LAYER * plan.num_layers
    embed(plan, weights)
    for number in range(num_layer_jobs + (1 if plan.num_outputs > 0 else 0)):
        layer, job = number // JOBS_PER_LAYER, number % JOBS_PER_LAYER
        if number == num_layer_jobs:
            job = VOCABULARY
        num_rows = plan.num_outputs if job == VOCABULARY else plan.num_rows
        if num_rows > TILE_INPUTS:
            share_out(plan, weights, packed, job + BEFORE, layer)
        else:
            prepare(plan, packed, job, layer, num_rows, 0, num_rows)
        share_out(plan, weights, packed, job, layer)


@compiled
def prepare(plan, packed, job, layer, num_rows, first, last):
    """What comes before `job`, for rows `first` to `last`: keys and values cached, or activations made ready."""
    if job == ATTENTION:
        remember(plan, layer, first, last)
        return
    if job == QKV or job == GATE_UP or job == VOCABULARY:
        norm(plan, 2 * layer + (1 if job == GATE_UP else 0), first, last)
    scales, source, columns = floats(plan.packed_scales), plan.normed, plan.hidden_columns
    if job == OUTPUT:
        source = plan.attended
    elif job == DOWN:
        source, columns = plan.gated, plan.intermediate_columns
    for row in range(first, last):
        if num_rows >= MIN_TILED_ROWS:
            turn(plan, floats(source), row, columns)
        else:
            scales[row] = pack(floats(source), row * columns, packed, row * columns, columns)


@compiled
def embed(plan, weights):
    """The embedding of every row's token, into its stream."""
    tokens, scales = integers(plan.tokens), floats(plan.scales)
    size, columns = plan.hidden_size, plan.hidden_columns
    for row in range(plan.num_rows):
        scale = scales[plan.embedding_row + tokens[row]]
        widen(weights, plan.embedding_start + tokens[row] * columns, scale, size, floats(plan.residual), row * size)


@compiled
def share_out(plan, weights, packed, job, layer):
    """Leads one job: opens it, works on it, and returns when all of it is done."""
    queue, num_chunks, spins = integers(plan.queue), plan.num_chunks, 0
    queue[at.OPEN_JOB], queue[at.OPEN_LAYER], queue[at.DONE] = job, layer, 0
    atomic_store(queue, at.TICKET, num_chunks << CHUNK_BITS)
    take_chunks(plan, weights, packed)
    while atomic_load(queue, at.DONE) < num_chunks:
        spins += 1
        if spins % SPINS_BEFORE_YIELD == 0 and plan.yield_function != 0:
            # A helper was put aside in the middle of a chunk; it may need this very core to go on.
            call(plan.yield_function)
        pause()


@compiled
def help_out(plan, weights, packed):
    """Takes chunks as they come; returns when there was nothing for a while, so that the thread can sleep."""
    idle = 0
    while idle < plan.idle_rounds:
        idle = 0 if take_chunks(plan, weights, packed) else idle + 1
        pause()


@compiled
def take_chunks(plan, weights, packed):
    """Takes and runs chunks of the open job until there are none left; says whether it got any."""
    queue, mask, found = integers(plan.queue), (1 << CHUNK_BITS) - 1, False
    while True:
        ticket = atomic_load(queue, at.TICKET)
        if ticket & mask >= ticket >> CHUNK_BITS:
            return found
        ticket = atomic_add(queue, at.TICKET, 1)
        chunk, num_chunks = ticket & mask, ticket >> CHUNK_BITS
        if chunk < num_chunks:
            # Until DONE counts this chunk its job stays open, so the job and layer that stand there are its own.
            run_chunk(plan, weights, packed, queue[at.OPEN_JOB], queue[at.OPEN_LAYER], chunk, num_chunks)
            atomic_add(queue, at.DONE, 1)
            found = True


@compiled
def run_chunk(plan, weights, packed, job, layer, chunk, num_chunks):
    """One part of a job: some heads of the attention, or some rows of a matrix."""
    # A helper may have waited since before the plan was written: it trusts no address that it did not read just now.
    weights, packed = like(plan.weights, weights), like(plan.packed, packed)
    if job >= BEFORE:
        count = plan.num_outputs if job == VOCABULARY + BEFORE else plan.num_rows
        # Rows are laid out sixteen side by side (see `turn`), but for attention; two threads in one cache line would
        # wait for each other.
        step = 1 if job == ATTENTION + BEFORE else TILE_INPUTS
        steps = (count + step - 1) // step
        first, last = steps * chunk // num_chunks * step, min(count, steps * (chunk + 1) // num_chunks * step)
        prepare(plan, packed, job - BEFORE, layer, count, first, last)
        return
    if job == SAMPLING:
        count = plan.num_samples
        for row in range(count * chunk // num_chunks, count * (chunk + 1) // num_chunks):
            choose(plan, row, chunk)
        return
    hidden, inner, columns = plan.hidden_size, plan.intermediate_size, plan.hidden_columns
    num_qkv = (plan.num_heads + 2 * plan.num_kv_heads) * plan.head_size
    if job == ATTENTION:
        count = plan.num_rows * plan.num_heads
        attend(plan, layer, count * chunk // num_chunks, count * (chunk + 1) // num_chunks, chunk)
        return
    # The matrices of a layer lie one after the other.
    start, row = layer * plan.layer_weights, layer * plan.layer_rows
    count, result, stride, num_rows = num_qkv, floats(plan.qkv), num_qkv, plan.num_rows
    if job == OUTPUT:
        start, row = start + num_qkv * columns, row + num_qkv
        count, result, stride = hidden, floats(plan.residual), hidden
    elif job == GATE_UP:
        start, row = start + (num_qkv + hidden) * columns, row + num_qkv + hidden
        count, result, stride = inner, floats(plan.gate_up), 2 * inner
    elif job == DOWN:
        start, row = start + (num_qkv + hidden + 2 * inner) * columns, row + num_qkv + hidden + 2 * inner
        count, result, stride, columns = hidden, floats(plan.residual), hidden, plan.intermediate_columns
    elif job == VOCABULARY:
        start, row, count = plan.output_start, plan.output_row, plan.vocab_size
        result, stride, num_rows = floats(plan.logits), count, plan.num_outputs
    first, last = count * chunk // num_chunks, count * (chunk + 1) // num_chunks
    adds = job == OUTPUT or job == DOWN
    for up in range(0, 2 * inner if job == GATE_UP else 1, inner):
        # The same rows of up as of gate, so that this chunk can multiply them.
        y, end = first + up, last + up
        if num_rows >= MIN_TILED_ROWS:
            multiply_many(plan, weights, num_rows, chunk, start, row, columns, result, stride, y, end, adds)
            continue
        for index in range(num_rows):
            multiply(plan, weights, packed, index, start, row, columns, result, stride, y, end, adds)
    if job == GATE_UP:
        for index in range(num_rows):
            gate(plan, index, first, last)
