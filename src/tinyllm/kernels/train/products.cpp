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
constexpr int64_t SUMS_AT_ONCE = 1 << 18;  // so many stay in a core's cache beside what is summed up

struct Workspace {
    Buffer columns, pairs, sums;
};

thread_local Workspace work;

}  // namespace

extern "C" {

// gradient (N, O), x (N, I): the first's columns times the second's are set, or added if `adds`, to of_weight (O, I),
// float32. Each thread has a part of the columns.
void weight_gradient(const bfloat16* gradient, const bfloat16* x, float* of_weight, int64_t num_tokens, int64_t num_out,
                     int64_t num_in, int64_t adds, int num_threads) {
    const TileShapes tile_shapes;
    const int64_t wide = padded(num_in), num_tiles = (num_out + HALF - 1) / HALF;
    const int64_t rows_at_once = std::max(SUMS_AT_ONCE / wide / STEP, int64_t{1}) * STEP;
#pragma omp parallel num_threads(num_threads)
    {
        _tile_loadconfig(&tile_shapes);
        const int64_t part = omp_get_thread_num(), num_parts = omp_get_num_threads();
        const int64_t end = std::min(num_out, num_tiles * (part + 1) / num_parts * HALF);
        char* columns = work.columns.hold<char>(TOKENS_AT_ONCE * rows_at_once * 2);
        char* pairs = work.pairs.hold<char>(TOKENS_AT_ONCE * wide * 2);
        float* sums = work.sums.hold<float>(rows_at_once * wide);
        for (int64_t row = num_tiles * part / num_parts * HALF; row < end; row += rows_at_once) {
            const int64_t num_rows = std::min(rows_at_once, end - row);
            for (int64_t first = 0; first < num_tokens; first += TOKENS_AT_ONCE) {
                const int64_t count = std::min(TOKENS_AT_ONCE, num_tokens - first), num_steps = padded(count) / STEP;
                pack_columns<true>(gradient + first * num_out + row, num_out, count, num_rows, columns);
                pack_columns<false>(x + first * num_in, num_in, count, num_in, pairs);
                multiply(packed(columns, num_steps), packed(pairs, num_steps), num_steps, first > 0, sums, wide,
                         num_rows, num_in);
            }
            for (int64_t i = 0; i < num_rows; i++) store(sums + i * wide, num_in, of_weight + (row + i) * num_in, adds);
        }
        _tile_release();
    }
}

}  // extern "C"
