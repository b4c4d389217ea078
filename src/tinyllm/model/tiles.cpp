// Causal attention and its gradients in bfloat16, for x86 processors with AMX.
//
// A tile holds 16 rows of 64 bytes. One instruction multiplies tile A (16 rows of 32 numbers) with tile B (32 numbers
// for each of 16 columns, neighbours of a column side by side) and adds to a tile of 16 x 16 float32. What is
// multiplied is packed into such tiles first, filled up with zeros. No matrix of all scores is ever in memory: some
// queries at a time go through all their keys inside one core's cache (FlashAttention, Dao et al. 2022).
//
// Letters: B texts, T tokens, H query heads, K key/value heads, C channels of a head.

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace {

using bfloat16 = uint16_t;

constexpr int64_t TILE = 1024;           // bytes
constexpr int64_t STEP = 32;             // numbers that one instruction sums over
constexpr int64_t HALF = 16;             // rows, or columns, of a tile
constexpr int64_t QUERIES_AT_ONCE = 64;  // more would not fit a core's cache

int64_t padded(int64_t size) { return (size + STEP - 1) / STEP * STEP; }

__mmask32 first_lanes(int64_t count) { return count >= 32 ? ~0u : count <= 0 ? 0u : (1u << count) - 1; }

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

struct Workspace {
    Buffer keys, key_pairs, values, queries, query_pairs, gradients, gradient_pairs;
    Buffer scores, of_weights, weights, of_scores, turned, query_sums, key_sums, value_sums;
};

thread_local Workspace work;

// Sixteen rows of sixteen 32-bit numbers become columns.
void transpose(__m512i* rows) {
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

// Numbers of two rows in turn, sixteen of each.
__m512i interleaved(__m256i even, __m256i odd) {
    __m256i low = _mm256_unpacklo_epi16(even, odd), high = _mm256_unpackhi_epi16(even, odd);
    __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
    return _mm512_shuffle_i64x2(both, both, 0b11'01'10'00);
}

// The tiles of a matrix, row after row of tiles. In pairs a tile holds 32 rows and 16 columns, else 16 rows and 32
// columns. Summed over rows it takes (true, true) to make an A of its columns and (true, false) to make a B; summed
// over columns (false, false) to make an A of its rows and (false, true) to make a B.
template <bool in_pairs, bool transposed>
void pack(const bfloat16* x, int64_t stride, int64_t num_rows, int64_t num_columns, char* tiles) {
    constexpr int64_t height = in_pairs ? STEP : HALF, width = in_pairs ? HALF : STEP;
    for (int64_t row = 0; row < padded(num_rows); row += height)
        for (int64_t column = 0; column < padded(num_columns); column += width, tiles += TILE) {
            const __mmask32 lanes = first_lanes(std::min(width, num_columns - column));
            const bfloat16* from = x + row * stride + column;
            __m512i block[16];
            for (int64_t i = 0; i < 16; i++) {
                const int64_t first = in_pairs ? 2 * i : i, left = num_rows - row - first;
                const bfloat16* here = from + first * stride;
                if (in_pairs) {
                    __m256i even = _mm256_maskz_loadu_epi16(left > 0 ? lanes : 0, here);
                    __m256i odd = _mm256_maskz_loadu_epi16(left > 1 ? lanes : 0, here + stride);
                    block[i] = interleaved(even, odd);
                } else {
                    block[i] = _mm512_maskz_loadu_epi16(left > 0 ? lanes : 0, here);
                }
            }
            if (transposed) transpose(block);
            for (int64_t i = 0; i < 16; i++) _mm512_store_si512(tiles + 64 * i, block[i]);
        }
}

// Where 16-bit tiles lie: bytes from row to row of a tile, to the tile beside it, and to that of the next step.
struct Tiles {
    const char* first;
    int64_t row, beside, step;
};

// Packed tiles of a matrix with so many tiles in a row, summed over columns or over rows; and rows as they are.
Tiles over_columns(const char* packed, int64_t num_across) { return {packed, 64, num_across * TILE, TILE}; }
Tiles over_rows(const char* packed, int64_t num_across) { return {packed, 64, TILE, num_across * TILE}; }
Tiles plain(const bfloat16* x, int64_t stride) {
    return {reinterpret_cast<const char*>(x), 2 * stride, 2 * HALF * stride, 64};
}

// Sums of 32 rows and 16 or 32 columns over `num_steps` tiles, set or added to.
template <bool both>
void multiply_block(Tiles a, Tiles b, int64_t num_steps, bool adds, float* sums, int64_t stride) {
    float* below = sums + HALF * stride;
    asm volatile("" ::: "memory");  // compilers do not know that tiles read what was stored before
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    if (adds) {
        _tile_loadd(0, sums, 4 * stride);
        _tile_loadd(1, below, 4 * stride);
        if (both) _tile_loadd(2, sums + HALF, 4 * stride);
        if (both) _tile_loadd(3, below + HALF, 4 * stride);
    }
    for (int64_t i = 0; i < num_steps; i++, a.first += a.step, b.first += b.step) {
        _tile_loadd(4, a.first, a.row);
        _tile_loadd(6, b.first, b.row);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(5, a.first + a.beside, a.row);
        _tile_dpbf16ps(1, 5, 6);
        if (both) _tile_loadd(7, b.first + b.beside, b.row);
        if (both) _tile_dpbf16ps(2, 4, 7);
        if (both) _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, sums, 4 * stride);
    _tile_stored(1, below, 4 * stride);
    if (both) _tile_stored(2, sums + HALF, 4 * stride);
    if (both) _tile_stored(3, below + HALF, 4 * stride);
}

// The same for any number of columns that fill tiles.
void multiply(Tiles a, Tiles b, int64_t num_steps, bool adds, float* sums, int64_t stride, int64_t num_columns) {
    for (int64_t column = 0; column < num_columns; column += STEP, b.first += 2 * b.beside)
        if (num_columns - column > HALF)
            multiply_block<true>(a, b, num_steps, adds, sums + column, stride);
        else
            multiply_block<false>(a, b, num_steps, adds, sums + column, stride);
}

// Rows of float32, rounded.
void write(const float* x, int64_t x_stride, int64_t num_rows, int64_t num_columns, bfloat16* result, int64_t stride) {
    for (int64_t row = 0; row < num_rows; row++)
        for (int64_t column = 0; column < num_columns; column += STEP) {
            const float* from = x + row * x_stride + column;
            __m512bh rounded = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(from + HALF), _mm512_loadu_ps(from));
            bfloat16* to = result + row * stride + column;
            _mm512_mask_storeu_epi16(to, first_lanes(num_columns - column), (__m512i)rounded);
        }
}

__m512 widened(const bfloat16* x, __mmask16 lanes = 0xffff) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, x)), 16));
}

// e^x to 2e-7 (Cephes' polynomial); x below -88 counts as -88, and a NaN stays one.
__m512 exponential(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-88), x);
    __m512 power = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 0);
    __m512 rest = _mm512_fnmadd_ps(power, _mm512_set1_ps(0.693359375f), x);
    rest = _mm512_fnmadd_ps(power, _mm512_set1_ps(-2.12194440e-4f), rest);
    __m512 y = _mm512_set1_ps(1.9875691500e-4f);
    for (float factor : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
        y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(factor));
    y = _mm512_add_ps(_mm512_fmadd_ps(_mm512_mul_ps(y, rest), rest, rest), _mm512_set1_ps(1));
    return _mm512_scalef_ps(y, power);
}

// Of sixteen places from `place` on, those up to `last`.
__mmask16 up_to(int64_t place, int64_t last) { return first_lanes(std::min(last + 1 - place, HALF)); }

void store_rounded(bfloat16* to, __m512 x) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(to), (__m256i)_mm512_cvtneps_pbh(x));
}

float dot(const bfloat16* a, const bfloat16* b, int64_t size) {
    __m512 sum = _mm512_setzero_ps();
    for (int64_t i = 0; i < size; i += HALF) {
        const __mmask16 lanes = up_to(i, size - 1);
        sum = _mm512_fmadd_ps(widened(a + i, lanes), widened(b + i, lanes), sum);
    }
    return _mm512_reduce_add_ps(sum);
}

// Powers of e of one row's scores up to `last`, relative to the largest, 0 from there to `end`. Gives their sum's
// logarithm, and in `factor` what makes a softmax of them.
float powers(const float* scores, float scale, int64_t last, int64_t end, bfloat16* weights, float* factor) {
    __m512 top = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps();
    for (int64_t i = 0; i <= last; i += HALF)
        top = _mm512_mask_max_ps(top, up_to(i, last), top, _mm512_load_ps(scores + i));
    const float highest = _mm512_reduce_max_ps(top) * scale;
    for (int64_t i = 0; i < end; i += HALF) {
        __m512 x = _mm512_fmsub_ps(_mm512_load_ps(scores + i), _mm512_set1_ps(scale), _mm512_set1_ps(highest));
        __m512 power = i > last ? _mm512_setzero_ps() : _mm512_maskz_mov_ps(up_to(i, last), exponential(x));
        sum = _mm512_add_ps(sum, power);
        store_rounded(weights + i, power);
    }
    const float total = _mm512_reduce_add_ps(sum);
    *factor = 1 / total;
    return highest + std::log(total);
}

struct Shape {
    int64_t num_tokens, num_heads, num_kv_heads, num_channels;

    int64_t group() const { return num_heads / num_kv_heads; }
    int64_t stride() const { return num_heads * num_channels; }
    int64_t kv_stride() const { return num_kv_heads * num_channels; }
    float scale() const { return 1 / std::sqrt(static_cast<float>(num_channels)); }
};

// Pointers to the first token of one key/value head of one text, and of its query heads; `logs` are (H, T).
struct Heads {
    const bfloat16 *query, *key, *value;
    bfloat16* output;
    float* logs;
    const bfloat16* gradient = nullptr;
    bfloat16 *of_query = nullptr, *of_key = nullptr, *of_value = nullptr;
};

// The output, and of each query the logarithm of its softmax's sum.
void attend(const Shape& shape, const Heads& heads) {
    const int64_t channels = shape.num_channels, wide = padded(channels), across = wide / STEP, stride = shape.stride();
    const int64_t end = padded(shape.num_tokens), size = QUERIES_AT_ONCE;
    char* keys = work.keys.hold<char>(end * wide * 2);
    char* values = work.values.hold<char>(end * wide * 2);
    char* queries = work.queries.hold<char>(size * wide * 2);
    float* scores = work.scores.hold<float>(size * end);
    bfloat16* weights = work.weights.hold<bfloat16>(size * end);
    float* mixed = work.query_sums.hold<float>(size * wide);
    pack<false, true>(heads.key, shape.kv_stride(), shape.num_tokens, channels, keys);
    pack<true, false>(heads.value, shape.kv_stride(), shape.num_tokens, channels, values);
    for (int64_t head = 0; head < shape.group(); head++)
        for (int64_t first = 0; first < shape.num_tokens; first += size) {
            const int64_t count = std::min(size, shape.num_tokens - first), start = first * stride + head * channels;
            float* logs = heads.logs + head * shape.num_tokens + first;
            float factors[QUERIES_AT_ONCE];
            pack<false, false>(heads.query + start, stride, count, channels, queries);
            for (int64_t row = 0; row < count; row += STEP) {
                const int64_t seen = first + row + STEP;
                const Tiles some = over_columns(queries + row * wide * 2, across);
                multiply(some, over_columns(keys, across), across, false, scores + row * end, end, seen);
                for (int64_t i = row; i < row + STEP; i++) {
                    bfloat16* at = weights + i * end;
                    if (i < count)
                        logs[i] = powers(scores + i * end, shape.scale(), first + i, seen, at, factors + i);
                    else
                        std::memset(at, 0, seen * 2);
                }
                const Tiles here = plain(weights + row * end, end);
                multiply(here, over_rows(values, 2 * across), seen / STEP, false, mixed + row * wide, wide, channels);
            }
            for (int64_t i = 0; i < count; i++)
                for (int64_t c = i * wide; c < (i + 1) * wide; c += HALF)
                    _mm512_store_ps(mixed + c, _mm512_mul_ps(_mm512_load_ps(mixed + c), _mm512_set1_ps(factors[i])));
            write(mixed, wide, count, channels, heads.output + start, stride);
        }
}

// Of one query's scores up to `last` the weights, and from the weights' gradients the scores'; 0 from there to `end`.
void weights_again(const float* scores, const float* of_weights, float scale, float log, float row_sum, int64_t last,
                   int64_t end, bfloat16* weights, bfloat16* of_scores) {
    const __m512 scales = _mm512_set1_ps(scale), logs = _mm512_set1_ps(log), row_sums = _mm512_set1_ps(row_sum);
    for (int64_t i = 0; i < end; i += HALF) {
        __m512 weight = _mm512_setzero_ps(), of_score = weight;
        if (i <= last) {
            const __m512 power = exponential(_mm512_fmsub_ps(_mm512_load_ps(scores + i), scales, logs));
            weight = _mm512_maskz_mov_ps(up_to(i, last), power);
            of_score = _mm512_sub_ps(_mm512_load_ps(of_weights + i), row_sums);
            of_score = _mm512_mul_ps(_mm512_mul_ps(of_score, weight), scales);
        }
        store_rounded(weights + i, weight);
        store_rounded(of_scores + i, of_score);
    }
}

// The gradients of query, key and value (algorithm 4 of the paper): weights are computed once more, from the logs.
void attend_backward(const Shape& shape, const Heads& heads) {
    const int64_t channels = shape.num_channels, wide = padded(channels), across = wide / STEP, stride = shape.stride();
    const int64_t end = padded(shape.num_tokens), size = QUERIES_AT_ONCE;
    char* keys = work.keys.hold<char>(end * wide * 2);
    char* key_pairs = work.key_pairs.hold<char>(end * wide * 2);
    char* values = work.values.hold<char>(end * wide * 2);
    char* queries = work.queries.hold<char>(size * wide * 2);
    char* query_pairs = work.query_pairs.hold<char>(size * wide * 2);
    char* gradients = work.gradients.hold<char>(size * wide * 2);
    char* gradient_pairs = work.gradient_pairs.hold<char>(size * wide * 2);
    char* turned = work.turned.hold<char>(size * end * 2);
    float* scores = work.scores.hold<float>(size * end);
    float* of_weights = work.of_weights.hold<float>(size * end);
    bfloat16* weights = work.weights.hold<bfloat16>(size * end);
    bfloat16* of_scores = work.of_scores.hold<bfloat16>(size * end);
    float* query_sums = work.query_sums.hold<float>(size * wide);
    float* key_sums = work.key_sums.hold<float>(end * wide);
    float* value_sums = work.value_sums.hold<float>(end * wide);
    std::memset(key_sums, 0, end * wide * 4);
    std::memset(value_sums, 0, end * wide * 4);
    pack<false, true>(heads.key, shape.kv_stride(), shape.num_tokens, channels, keys);
    pack<true, false>(heads.key, shape.kv_stride(), shape.num_tokens, channels, key_pairs);
    pack<false, true>(heads.value, shape.kv_stride(), shape.num_tokens, channels, values);
    for (int64_t head = 0; head < shape.group(); head++)
        for (int64_t first = 0; first < shape.num_tokens; first += size) {
            const int64_t count = std::min(size, shape.num_tokens - first), start = first * stride + head * channels;
            const int64_t rows = padded(count), seen = first + rows;
            const float* logs = heads.logs + head * shape.num_tokens + first;
            pack<false, false>(heads.query + start, stride, count, channels, queries);
            pack<true, false>(heads.query + start, stride, count, channels, query_pairs);
            pack<false, false>(heads.gradient + start, stride, count, channels, gradients);
            pack<true, false>(heads.gradient + start, stride, count, channels, gradient_pairs);
            for (int64_t row = 0; row < rows; row += STEP) {
                const int64_t at = row * wide * 2, here = first + row + STEP;
                const Tiles q = over_columns(queries + at, across), g = over_columns(gradients + at, across);
                multiply(q, over_columns(keys, across), across, false, scores + row * end, end, here);
                multiply(g, over_columns(values, across), across, false, of_weights + row * end, end, here);
            }
            for (int64_t i = 0; i < rows; i++) {
                const bool is_query = i < count;
                const int64_t last = is_query ? first + i : -1, at = start + i * stride, row = i * end;
                const float row_sum = is_query ? dot(heads.gradient + at, heads.output + at, channels) : 0;
                const float log = is_query ? logs[i] : 0;
                weights_again(scores + row, of_weights + row, shape.scale(), log, row_sum, last, seen, weights + row,
                              of_scores + row);
            }
            for (int64_t row = 0; row < rows; row += STEP) {
                const int64_t num_steps = (first + row + STEP) / STEP;
                const Tiles here = plain(of_scores + row * end, end);
                float* sums = query_sums + row * wide;
                multiply(here, over_rows(key_pairs, 2 * across), num_steps, false, sums, wide, channels);
            }
            write(query_sums, wide, count, channels, heads.of_query + start, stride);
            const auto add_over_queries = [&](const bfloat16* x, const char* pairs, float* sums) {
                pack<true, true>(x, end, rows, seen, turned);
                for (int64_t row = 0; row < seen; row += STEP) {
                    const Tiles a = over_rows(turned + row * 64, seen / HALF), b = over_rows(pairs, 2 * across);
                    multiply(a, b, rows / STEP, true, sums + row * wide, wide, channels);
                }
            };
            add_over_queries(weights, gradient_pairs, value_sums);
            add_over_queries(of_scores, query_pairs, key_sums);
        }
    write(key_sums, wide, shape.num_tokens, channels, heads.of_key, shape.kv_stride());
    write(value_sums, wide, shape.num_tokens, channels, heads.of_value, shape.kv_stride());
}

// Calls `work_on` for each key/value head of each text, with where its query heads, itself and its logs begin.
template <typename Work>
void for_all_heads(const Shape& shape, int64_t batch, int num_threads, Work work_on) {
    const TileShapes tile_shapes;
    const int64_t num_heads = shape.num_kv_heads, channels = shape.num_channels;
#pragma omp parallel num_threads(num_threads)
    {
        _tile_loadconfig(&tile_shapes);
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < batch * num_heads; i++) {
            const int64_t first = i / num_heads * shape.num_tokens, head = i % num_heads;
            work_on(first * shape.stride() + head * shape.group() * channels,
                    first * shape.kv_stride() + head * channels, i * shape.group() * shape.num_tokens);
        }
        _tile_release();
    }
}

}  // namespace

extern "C" {

// Asks the system for the use of tiles; 0 if it refuses.
int prepare() {
    constexpr int ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

// query, output (B, T, H, C); key, value (B, T, K, C); logs (B, H, T).
void attention(const bfloat16* query, const bfloat16* key, const bfloat16* value, bfloat16* output, float* logs,
               int64_t batch, int64_t num_tokens, int64_t num_heads, int64_t num_kv_heads, int64_t num_channels,
               int num_threads) {
    const Shape shape{num_tokens, num_heads, num_kv_heads, num_channels};
    for_all_heads(shape, batch, num_threads, [&](int64_t q, int64_t kv, int64_t log) {
        attend(shape, {query + q, key + kv, value + kv, output + q, logs + log});
    });
}

// The same, with the gradients of output, query, key and value.
void attention_backward(const bfloat16* query, const bfloat16* key, const bfloat16* value, bfloat16* output,
                        float* logs, const bfloat16* gradient, bfloat16* of_query, bfloat16* of_key,
                        bfloat16* of_value, int64_t batch, int64_t num_tokens, int64_t num_heads,
                        int64_t num_kv_heads, int64_t num_channels, int num_threads) {
    const Shape shape{num_tokens, num_heads, num_kv_heads, num_channels};
    for_all_heads(shape, batch, num_threads, [&](int64_t q, int64_t kv, int64_t log) {
        attend_backward(shape, {query + q, key + kv, value + kv, output + q, logs + log, gradient + q, of_query + q,
                                of_key + kv, of_value + kv});
    });
}

}  // extern "C"
