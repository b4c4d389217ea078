// The gradients of weights in bfloat16, for x86 processors with AMX.
//
// Other products are left to PyTorch. In this one the gradient's columns must become rows first, and packing them inside
// the cache is faster than what it does.
//
// Letters: N tokens, O numbers that come out of a layer, I that go into it.

#include <omp.h>

#include <algorithm>

#include "tiles.h"

namespace {

constexpr int64_t TOKENS_AT_ONCE = 256;
constexpr int64_t ROWS_AT_ONCE = 512;  // sums of so many stay in a core's cache, at these models' sizes

struct Workspace {
    Buffer columns, pairs, sums;
};

thread_local Workspace work;

}  // namespace

extern "C" {

// gradient (N, O), x (N, I), of_weight (O, I): the first's columns times the second's. Each thread has a part of the
// former.
void weight_gradient(const bfloat16* gradient, const bfloat16* x, bfloat16* of_weight, int64_t num_tokens,
                     int64_t num_out, int64_t num_in, int num_threads) {
    const TileShapes tile_shapes;
    const int64_t wide = padded(num_in), num_tiles = (num_out + HALF - 1) / HALF;
#pragma omp parallel num_threads(num_threads)
    {
        _tile_loadconfig(&tile_shapes);
        const int64_t part = omp_get_thread_num(), num_parts = omp_get_num_threads();
        const int64_t end = std::min(num_out, num_tiles * (part + 1) / num_parts * HALF);
        char* columns = work.columns.hold<char>(TOKENS_AT_ONCE * ROWS_AT_ONCE * 2);
        char* pairs = work.pairs.hold<char>(TOKENS_AT_ONCE * wide * 2);
        float* sums = work.sums.hold<float>(ROWS_AT_ONCE * wide);
        for (int64_t row = num_tiles * part / num_parts * HALF; row < end; row += ROWS_AT_ONCE) {
            const int64_t num_rows = std::min(ROWS_AT_ONCE, end - row), across = padded(num_rows) / HALF;
            for (int64_t first = 0; first < num_tokens; first += TOKENS_AT_ONCE) {
                const int64_t count = std::min(TOKENS_AT_ONCE, num_tokens - first);
                pack<true, true>(gradient + first * num_out + row, num_out, count, num_rows, columns);
                pack<true, false>(x + first * num_in, num_in, count, num_in, pairs);
                multiply(over_rows(columns, across), over_rows(pairs, wide / HALF), padded(count) / STEP, first > 0,
                         sums, wide, num_rows, num_in);
            }
            write(sums, wide, num_rows, num_in, of_weight + row * num_in, num_in, 1);
        }
        _tile_release();
    }
}

}  // extern "C"
