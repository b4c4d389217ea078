// Products of matrices in bfloat16 with the processor's matrix unit (AMX).
//
// A tile holds 16 rows of 64 bytes. One instruction multiplies tile A (16 rows of 32 numbers) with tile B (32 numbers
// for each of 16 columns, neighbours of a column side by side) and adds to a tile of 16 x 16 float32. What is
// multiplied is packed into such tiles first, filled up with zeros.

#pragma once

#include <algorithm>
#include <cstdlib>

#include "vectors.h"

namespace {

constexpr int64_t TILE = 1024;   // bytes
constexpr int64_t STEP = 32;     // numbers that one instruction sums over
constexpr int64_t HALF = LANES;  // rows, or columns, of a tile

int64_t padded(int64_t size) { return (size + STEP - 1) / STEP * STEP; }

struct alignas(64) TileShapes {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t num_rows[16] = {};

    TileShapes() {
        std::fill_n(row_bytes, 8, 64);
        std::fill_n(num_rows, 8, HALF);
    }
};

// Memory of one thread, kept from call to call.
class Buffer {
   public:
    template <typename Number>
    Number* hold(int64_t count) {
        const int64_t bytes = (count * static_cast<int64_t>(sizeof(Number)) + 63) / 64 * 64;
        if (bytes > size_) {
            std::free(memory_);
            memory_ = std::aligned_alloc(64, bytes);
            if (memory_ == nullptr) std::abort();
            size_ = bytes;
        }
        return static_cast<Number*>(memory_);
    }

    ~Buffer() { std::free(memory_); }

   private:
    void* memory_ = nullptr;
    int64_t size_ = 0;
};

// Sixteen rows of sixteen 32-bit numbers become columns.
inline __attribute__((always_inline)) void transpose(__m512i* rows) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            rows[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + j + 2]);
            rows[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + j + 2]);
        }
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 16; j += 8) {
            t[i + j] = _mm512_shuffle_i32x4(rows[i + j], rows[i + j + 4], 0x88);
            t[i + j + 4] = _mm512_shuffle_i32x4(rows[i + j], rows[i + j + 4], 0xdd);
        }
    for (int i = 0; i < 8; i++) {
        rows[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        rows[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    }
}

// Of packed tiles with so many steps in all, where the one lies that holds row (or column) `place`, summed over from
// `summed` on.
int64_t tile_at(int64_t num_steps, int64_t place, int64_t summed = 0) {
    return (place / HALF * num_steps + summed / STEP) * TILE;
}

// The tiles of a matrix, those together that are summed over: those of its rows, 16 rows and 32 columns each, to sum over
// columns; `transposed` to make a B of them, else an A.
template <bool transposed>
void pack_rows(const bfloat16* x, int64_t stride, int64_t num_rows, int64_t num_columns, char* tiles) {
    for (int64_t row = 0; row < padded(num_rows); row += HALF)
        for (int64_t column = 0; column < padded(num_columns); column += STEP, tiles += TILE) {
            const __mmask32 lanes = first_lanes(num_columns - column);
            __m512i block[HALF];
            for (int64_t i = 0; i < HALF; i++)
                block[i] = _mm512_maskz_loadu_epi16(row + i < num_rows ? lanes : 0, x + (row + i) * stride + column);
            if (transposed) transpose(block);
            for (int64_t i = 0; i < HALF; i++) _mm512_store_si512(tiles + 64 * i, block[i]);
        }
}

// Those of its columns, 32 rows and 16 columns each, to sum over rows; `transposed` to make an A of them, else a B.
template <bool transposed>
void pack_columns(const bfloat16* x, int64_t stride, int64_t num_rows, int64_t num_columns, char* tiles) {
    const int64_t num_steps = padded(num_rows) / STEP;
    const __m512i low = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), high = _mm512_add_epi64(low, _mm512_set1_epi64(4));
    for (int64_t row = 0; row < padded(num_rows); row += STEP)
        for (int64_t column = 0; column < padded(num_columns); column += STEP) {
            const __mmask32 lanes = first_lanes(num_columns - column);
            __m512i left[HALF], right[HALF];
            for (int64_t i = 0; i < HALF; i++) {
                const int64_t here = row + 2 * i;
                const bfloat16* from = x + here * stride + column;
                // The rows of the next tiles: processors do not foresee steps so wide.
                _mm_prefetch(from + STEP * stride, _MM_HINT_T0);
                _mm_prefetch(from + (STEP + 1) * stride, _MM_HINT_T0);
                const __m512i even = _mm512_maskz_loadu_epi16(here < num_rows ? lanes : 0, from);
                const __m512i odd = _mm512_maskz_loadu_epi16(here + 1 < num_rows ? lanes : 0, from + stride);
                const __m512i one = _mm512_unpacklo_epi16(even, odd), other = _mm512_unpackhi_epi16(even, odd);
                left[i] = _mm512_permutex2var_epi64(one, low, other);
                right[i] = _mm512_permutex2var_epi64(one, high, other);
            }
            if (transposed) transpose(left), transpose(right);
            char* to = tiles + tile_at(num_steps, column, row);
            for (int64_t i = 0; i < HALF; i++) {
                _mm512_store_si512(to + 64 * i, left[i]);
                _mm512_store_si512(to + num_steps * TILE + 64 * i, right[i]);
            }
        }
}

// Where 16-bit tiles lie: bytes from row to row of a tile, to the tile beside it, and to that of the next step.
struct Tiles {
    const char* first;
    int64_t row, beside, step;
};

// Packed tiles, from one on; and rows as they are.
Tiles packed(const char* tiles, int64_t num_steps, int64_t place = 0, int64_t summed = 0) {
    return {tiles + tile_at(num_steps, place, summed), 64, num_steps * TILE, TILE};
}
Tiles plain(const bfloat16* x, int64_t stride) {
    return {reinterpret_cast<const char*>(x), 2 * stride, 2 * HALF * stride, 64};
}

// Sums of one or two tiles down and across over `num_steps` tiles, set or added to.
template <int down, int across>
void multiply_block(Tiles a, Tiles b, int64_t num_steps, bool adds, float* sums, int64_t stride) {
    float* below = sums + HALF * stride;
    asm volatile("" ::: "memory");  // compilers do not know that tiles read what was stored before
    _tile_zero(0);
    if (down > 1) _tile_zero(1);
    if (across > 1) _tile_zero(2);
    if (down > 1 && across > 1) _tile_zero(3);
    if (adds) {
        _tile_loadd(0, sums, 4 * stride);
        if (down > 1) _tile_loadd(1, below, 4 * stride);
        if (across > 1) _tile_loadd(2, sums + HALF, 4 * stride);
        if (down > 1 && across > 1) _tile_loadd(3, below + HALF, 4 * stride);
    }
    for (int64_t i = 0; i < num_steps; i++, a.first += a.step, b.first += b.step) {
        _tile_loadd(4, a.first, a.row);
        if (down > 1) _tile_loadd(5, a.first + a.beside, a.row);
        _tile_loadd(6, b.first, b.row);
        if (across > 1) _tile_loadd(7, b.first + b.beside, b.row);
        _tile_dpbf16ps(0, 4, 6);
        if (down > 1) _tile_dpbf16ps(1, 5, 6);
        if (across > 1) _tile_dpbf16ps(2, 4, 7);
        if (down > 1 && across > 1) _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, sums, 4 * stride);
    if (down > 1) _tile_stored(1, below, 4 * stride);
    if (across > 1) _tile_stored(2, sums + HALF, 4 * stride);
    if (down > 1 && across > 1) _tile_stored(3, below + HALF, 4 * stride);
}

// The same for any number of rows and columns that fill tiles.
void multiply(Tiles a, Tiles b, int64_t num_steps, bool adds, float* sums, int64_t stride, int64_t num_rows,
              int64_t num_columns) {
    for (int64_t row = 0; row < num_rows; row += STEP, a.first += 2 * a.beside) {
        Tiles right = b;
        for (int64_t column = 0; column < num_columns; column += STEP, right.first += 2 * b.beside) {
            const bool down = num_rows - row > HALF, across = num_columns - column > HALF;
            const auto block = down ? (across ? multiply_block<2, 2> : multiply_block<2, 1>)
                                    : (across ? multiply_block<1, 2> : multiply_block<1, 1>);
            block(a, right, num_steps, adds, sums + row * stride + column, stride);
        }
    }
}

// Rows of float32, times a factor, rounded.
void write(const float* x, int64_t x_stride, int64_t num_rows, int64_t num_columns, bfloat16* result, int64_t stride,
           float scale) {
    const __m512 factor = _mm512_set1_ps(scale);
    for (int64_t row = 0; row < num_rows; row++)
        for (int64_t column = 0; column < num_columns; column += STEP) {
            const float* from = x + row * x_stride + column;
            const __m512 low = _mm512_mul_ps(_mm512_load_ps(from), factor);
            __m512bh rounded = _mm512_cvtne2ps_pbh(_mm512_mul_ps(_mm512_load_ps(from + HALF), factor), low);
            bfloat16* to = result + row * stride + column;
            _mm512_mask_storeu_epi16(to, first_lanes(num_columns - column), (__m512i)rounded);
        }
}

// Columns of float32, times a factor each, become rows and are rounded.
void write_turned(const float* x, int64_t x_stride, const float* factors, int64_t num_columns, int64_t num_rows,
                  bfloat16* result, int64_t stride) {
    for (int64_t column = 0; column < num_columns; column += HALF) {
        const __m512 factor = _mm512_load_ps(factors + column);
        for (int64_t row = 0; row < num_rows; row += HALF) {
            __m512i block[HALF];
            for (int64_t i = 0; i < HALF; i++)
                block[i] = (__m512i)_mm512_mul_ps(_mm512_load_ps(x + (row + i) * x_stride + column), factor);
            transpose(block);
            const __mmask16 lanes = first_lanes(std::min(num_rows - row, HALF));
            for (int64_t i = 0; i < std::min(num_columns - column, HALF); i++)
                _mm256_mask_storeu_epi16(result + (column + i) * stride + row, lanes,
                                         (__m256i)_mm512_cvtneps_pbh((__m512)block[i]));
        }
    }
}

}  // namespace
