// Products of bfloat16 matrices on the processor's matrix unit (AMX).
//
// A tile holds 16 rows of 64 bytes. One instruction computes C += A B:
//
//     A   16 rows x 32 bfloat16
//     B   32 x 16 bfloat16, stored as 16 rows of 16 pairs: row k holds elements 2k and 2k + 1 of each column
//     C   16 x 16 float32
//
// Operands are packed into tiles first and padded with zeros. K is the axis that a product sums over.

#pragma once

#include <algorithm>
#include <cstdlib>

#include "vectors.h"

namespace {

constexpr int64_t TILE_BYTES = 1024;
constexpr int64_t SIDE = LANES;  // rows of A, columns of B
constexpr int64_t DEPTH = 32;    // elements of K that one instruction sums over; also the side of 2 x 2 tiles of C
static_assert(DEPTH == 2 * SIDE);

// `size` rounded up to whole tiles.
int64_t padded(int64_t size) { return (size + DEPTH - 1) / DEPTH * DEPTH; }

// The operand of _tile_loadconfig: eight tiles of 16 rows x 64 bytes.
struct alignas(64) TileShapes {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t num_rows[16] = {};

    TileShapes() {
        std::fill_n(row_bytes, 8, 64);
        std::fill_n(num_rows, 8, SIDE);
    }
};

// Memory of one thread that is kept between calls.
class Buffer {
   public:
    // At least `count` elements, aligned to 64 bytes; growing discards the content.
    template <typename Element>
    Element* hold(int64_t count) {
        const int64_t bytes = (count * static_cast<int64_t>(sizeof(Element)) + 63) / 64 * 64;
        if (bytes > size_) {
            std::free(memory_);
            memory_ = std::aligned_alloc(64, bytes);
            if (memory_ == nullptr) std::abort();
            size_ = bytes;
        }
        return static_cast<Element*>(memory_);
    }

    ~Buffer() { std::free(memory_); }

   private:
    void* memory_ = nullptr;
    int64_t size_ = 0;
};

// Transposes 16 x 16 elements of 32 bits.
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

// Byte offset of the packed tile with row (of A) or column (of B) `index` and element `k`. Tiles of one row along K are
// neighbours; `num_steps` is their number, padded(K) / DEPTH.
int64_t tile_at(int64_t num_steps, int64_t index, int64_t k = 0) {
    return (index / SIDE * num_steps + k / DEPTH) * TILE_BYTES;
}

// Packs X (rows x columns) into 16x32 tiles along K = columns: A of X, or B of X^T if `transposed`.
template <bool transposed>
void pack_rows(const bfloat16* x, int64_t stride, int64_t num_rows, int64_t num_columns, char* tiles) {
    for (int64_t row = 0; row < padded(num_rows); row += SIDE)
        for (int64_t column = 0; column < padded(num_columns); column += DEPTH, tiles += TILE_BYTES) {
            const __mmask32 lanes = first_lanes(num_columns - column);
            __m512i block[SIDE];
            for (int64_t i = 0; i < SIDE; i++)
                block[i] = _mm512_maskz_loadu_epi16(row + i < num_rows ? lanes : 0, x + (row + i) * stride + column);
            if (transposed) transpose(block);
            for (int64_t i = 0; i < SIDE; i++) _mm512_store_si512(tiles + 64 * i, block[i]);
        }
}

// Packs X (rows x columns) into 32x16 tiles along K = rows: B of X, or A of X^T if `transposed`.
template <bool transposed>
void pack_columns(const bfloat16* x, int64_t stride, int64_t num_rows, int64_t num_columns, char* tiles) {
    const int64_t num_steps = padded(num_rows) / DEPTH;
    const __m512i low = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), high = _mm512_add_epi64(low, _mm512_set1_epi64(4));
    for (int64_t row = 0; row < padded(num_rows); row += DEPTH)
        for (int64_t column = 0; column < padded(num_columns); column += DEPTH) {
            const __mmask32 lanes = first_lanes(num_columns - column);
            __m512i left[SIDE], right[SIDE];
            for (int64_t i = 0; i < SIDE; i++) {
                const int64_t even_row = row + 2 * i;
                const bfloat16* from = x + even_row * stride + column;
                // The hardware prefetcher does not follow strides this large.
                _mm_prefetch(from + DEPTH * stride, _MM_HINT_T0);
                _mm_prefetch(from + (DEPTH + 1) * stride, _MM_HINT_T0);
                const __m512i even = _mm512_maskz_loadu_epi16(even_row < num_rows ? lanes : 0, from);
                const __m512i odd = _mm512_maskz_loadu_epi16(even_row + 1 < num_rows ? lanes : 0, from + stride);
                const __m512i lower = _mm512_unpacklo_epi16(even, odd), upper = _mm512_unpackhi_epi16(even, odd);
                left[i] = _mm512_permutex2var_epi64(lower, low, upper);
                right[i] = _mm512_permutex2var_epi64(lower, high, upper);
            }
            if (transposed) transpose(left), transpose(right);
            char* to = tiles + tile_at(num_steps, column, row);
            for (int64_t i = 0; i < SIDE; i++) {
                _mm512_store_si512(to + 64 * i, left[i]);
                _mm512_store_si512(to + num_steps * TILE_BYTES + 64 * i, right[i]);
            }
        }
}

// An operand in memory: its first tile and three strides in bytes. `row_stride` leads to the next row of a tile,
// `side_stride` to the tile of the next 16 rows (A) or columns (B). `depth_stride` leads to the next tile along K.
struct Tiles {
    const char* first;
    int64_t row_stride, side_stride, depth_stride;
};

// Packed tiles from row (A) or column (B) `index` and element `k` on.
Tiles packed(const char* tiles, int64_t num_steps, int64_t index = 0, int64_t k = 0) {
    return {tiles + tile_at(num_steps, index, k), 64, num_steps * TILE_BYTES, TILE_BYTES};
}

// The rows of a matrix as tiles of A, without packing.
Tiles unpacked(const bfloat16* x, int64_t stride) {
    return {reinterpret_cast<const char*>(x), 2 * stride, 2 * SIDE * stride, 64};
}

// C = A B, or C += A B if `accumulate`, for `down` x `across` tiles of C (1 or 2 each) and `num_steps` tiles along K.
// C is `sums` with `stride` elements a row. Registers: 0 to 3 C, 4 and 5 A, 6 and 7 B.
template <int down, int across>
void multiply_block(Tiles a, Tiles b, int64_t num_steps, bool accumulate, float* sums, int64_t stride) {
    float* below = sums + SIDE * stride;
    asm volatile("" ::: "memory");  // the compiler does not see that tile loads read memory written before
    _tile_zero(0);
    if (down > 1) _tile_zero(1);
    if (across > 1) _tile_zero(2);
    if (down > 1 && across > 1) _tile_zero(3);
    if (accumulate) {
        _tile_loadd(0, sums, 4 * stride);
        if (down > 1) _tile_loadd(1, below, 4 * stride);
        if (across > 1) _tile_loadd(2, sums + SIDE, 4 * stride);
        if (down > 1 && across > 1) _tile_loadd(3, below + SIDE, 4 * stride);
    }
    for (int64_t i = 0; i < num_steps; i++, a.first += a.depth_stride, b.first += b.depth_stride) {
        _tile_loadd(4, a.first, a.row_stride);
        if (down > 1) _tile_loadd(5, a.first + a.side_stride, a.row_stride);
        _tile_loadd(6, b.first, b.row_stride);
        if (across > 1) _tile_loadd(7, b.first + b.side_stride, b.row_stride);
        _tile_dpbf16ps(0, 4, 6);
        if (down > 1) _tile_dpbf16ps(1, 5, 6);
        if (across > 1) _tile_dpbf16ps(2, 4, 7);
        if (down > 1 && across > 1) _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, sums, 4 * stride);
    if (down > 1) _tile_stored(1, below, 4 * stride);
    if (across > 1) _tile_stored(2, sums + SIDE, 4 * stride);
    if (down > 1 && across > 1) _tile_stored(3, below + SIDE, 4 * stride);
}

// C = A B, or C += A B, for any numbers of rows and columns; C is written in whole tiles.
void multiply(Tiles a, Tiles b, int64_t num_steps, bool accumulate, float* sums, int64_t stride, int64_t num_rows,
              int64_t num_columns) {
    for (int64_t row = 0; row < num_rows; row += DEPTH, a.first += 2 * a.side_stride) {
        Tiles right = b;
        for (int64_t column = 0; column < num_columns; column += DEPTH, right.first += 2 * b.side_stride) {
            const bool down = num_rows - row > SIDE, across = num_columns - column > SIDE;
            const auto block = down ? (across ? multiply_block<2, 2> : multiply_block<2, 1>)
                                    : (across ? multiply_block<1, 2> : multiply_block<1, 1>);
            block(a, right, num_steps, accumulate, sums + row * stride + column, stride);
        }
    }
}

// result = scale * X, rounded to bfloat16; X (rows x columns).
void write_rows(const float* x, int64_t x_stride, int64_t num_rows, int64_t num_columns, bfloat16* result,
                int64_t stride, float scale) {
    const __m512 factor = _mm512_set1_ps(scale);
    for (int64_t row = 0; row < num_rows; row++)
        for (int64_t column = 0; column < num_columns; column += DEPTH) {
            const float* from = x + row * x_stride + column;
            const __m512 low = _mm512_mul_ps(_mm512_load_ps(from), factor);
            __m512bh rounded = _mm512_cvtne2ps_pbh(_mm512_mul_ps(_mm512_load_ps(from + SIDE), factor), low);
            bfloat16* to = result + row * stride + column;
            _mm512_mask_storeu_epi16(to, first_lanes(num_columns - column), (__m512i)rounded);
        }
}

// result = (X diag(factors))^T, rounded to bfloat16; X (rows x columns), `factors` one for each column.
void write_transposed(const float* x, int64_t x_stride, const float* factors, int64_t num_columns, int64_t num_rows,
                      bfloat16* result, int64_t stride) {
    for (int64_t column = 0; column < num_columns; column += SIDE) {
        const __m512 factor = _mm512_load_ps(factors + column);
        for (int64_t row = 0; row < num_rows; row += SIDE) {
            __m512i block[SIDE];
            for (int64_t i = 0; i < SIDE; i++)
                block[i] = (__m512i)_mm512_mul_ps(_mm512_load_ps(x + (row + i) * x_stride + column), factor);
            transpose(block);
            const __mmask16 lanes = first_lanes(std::min(num_rows - row, SIDE));
            for (int64_t i = 0; i < std::min(num_columns - column, SIDE); i++)
                _mm256_mask_storeu_epi16(result + (column + i) * stride + row, lanes,
                                         (__m256i)_mm512_cvtneps_pbh((__m512)block[i]));
        }
    }
}

}  // namespace
