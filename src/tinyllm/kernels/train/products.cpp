// The gradient of a linear layer's weight in bfloat16, for x86 processors with AMX.
//
// Other products are PyTorch's. Here the columns of dY must become rows first; packing them inside the cache is faster
// than PyTorch's copy in memory.
//
// Shapes: N tokens, O outputs and I inputs of the layer.

#include <omp.h>

#include <algorithm>

#include "tiles.h"

namespace {

constexpr int64_t TOKEN_BLOCK = 256;
constexpr int64_t MAX_SUMS = 1 << 18;  // float32 sums of one block: they stay in a core's cache beside the packed tiles

struct Workspace {
    Buffer grad_tiles, x_tiles, sums;
};

thread_local Workspace work;

}  // namespace

extern "C" {

// dW = dY^T X, or dW += dY^T X if `accumulate`. grad_out dY (N, O), x X (N, I), grad_weight dW (O, I) in float32.
// Each thread computes a range of rows of dW.
void weight_gradient(const bfloat16* grad_out, const bfloat16* x, float* grad_weight, int64_t num_tokens,
                     int64_t num_out, int64_t num_in, int64_t accumulate, int num_threads) {
    const TileShapes tile_shapes;
    const int64_t padded_in = padded(num_in), num_tiles = (num_out + SIDE - 1) / SIDE;
    const int64_t row_block = std::max(MAX_SUMS / padded_in / DEPTH, int64_t{1}) * DEPTH;
#pragma omp parallel num_threads(num_threads)
    {
        _tile_loadconfig(&tile_shapes);
        const int64_t thread = omp_get_thread_num(), team_size = omp_get_num_threads();
        const int64_t end = std::min(num_out, num_tiles * (thread + 1) / team_size * SIDE);
        char* grad_tiles = work.grad_tiles.hold<char>(TOKEN_BLOCK * row_block * 2);
        char* x_tiles = work.x_tiles.hold<char>(TOKEN_BLOCK * padded_in * 2);
        float* sums = work.sums.hold<float>(row_block * padded_in);
        for (int64_t row = num_tiles * thread / team_size * SIDE; row < end; row += row_block) {
            const int64_t num_rows = std::min(row_block, end - row);
            for (int64_t first = 0; first < num_tokens; first += TOKEN_BLOCK) {
                const int64_t count = std::min(TOKEN_BLOCK, num_tokens - first), num_steps = padded(count) / DEPTH;
                pack_columns<true>(grad_out + first * num_out + row, num_out, count, num_rows, grad_tiles);
                pack_columns<false>(x + first * num_in, num_in, count, num_in, x_tiles);
                multiply(packed(grad_tiles, num_steps), packed(x_tiles, num_steps), num_steps, first > 0, sums,
                         padded_in, num_rows, num_in);
            }
            for (int64_t i = 0; i < num_rows; i++)
                set_or_add(sums + i * padded_in, num_in, grad_weight + (row + i) * num_in, accumulate);
        }
        _tile_release();
    }
}

}  // extern "C"
