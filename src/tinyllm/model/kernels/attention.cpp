// Causal attention and its gradients in bfloat16, for x86 processors with AMX.
//
// No matrix of all scores is ever in memory: some queries at a time go through all their keys inside one core's cache
// (FlashAttention, Dao et al. 2022).
//
// Letters: B texts, T tokens, H query heads, K key/value heads, C channels of a head.

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "tiles.h"

namespace {

constexpr int64_t QUERIES_AT_ONCE = 64;  // all their scores fit a core's cache

struct Workspace {
    Buffer keys, key_columns, values, queries, query_pairs, gradients, gradient_pairs;
    Buffer scores, of_weights, weights, of_scores, pairs, query_sums, key_sums, value_sums;
};

thread_local Workspace work;

// Of sixteen queries from `first` on, those that see the key at `place`.
__mmask16 see(int64_t first, int64_t place) {
    return place <= first ? 0xffff : place - first >= HALF ? 0 : 0xffff << (place - first);
}

// Of 32 numbers, sixteen of each row, the two of a column side by side.
__m512i in_pairs(__m512 even, __m512 odd) {
    const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(odd, even);
    return interleaved(_mm512_castsi512_si256(both), _mm512_extracti64x4_epi64(both, 1));
}

float dot(const bfloat16* a, const bfloat16* b, int64_t size) {
    __m512 sum = _mm512_setzero_ps();
    for (int64_t i = 0; i < size; i += HALF) {
        const __mmask16 lanes = first_lanes(std::min(size - i, HALF));
        sum = _mm512_fmadd_ps(widened(a + i, lanes), widened(b + i, lanes), sum);
    }
    return _mm512_reduce_add_ps(sum);
}

// Scores of keys (down) by sixteen queries (across, `first` and so on) become powers of 2, relative to each query's
// largest, in pairs of keys, `step` bytes from 32 keys to the next; 0 where a query does not see a key. Gives of each
// query the logarithm of the powers' sum, and what makes a softmax of them.
void powers(const float* scores, float scale, int64_t first, int64_t num_keys, char* weights, int64_t step, float* logs,
            float* factors) {
    constexpr int64_t stride = QUERIES_AT_ONCE;
    __m512 top = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps();
    for (int64_t key = 0; key < std::min(first + HALF, num_keys); key++)
        top = _mm512_mask_max_ps(top, see(first, key), top, _mm512_load_ps(scores + key * stride));
    const __m512 scales = _mm512_set1_ps(scale), highest = _mm512_mul_ps(top, scales);
    const auto power = [&](int64_t key) {
        const __m512 x = _mm512_fmsub_ps(_mm512_load_ps(scores + key * stride), scales, highest);
        return _mm512_maskz_mov_ps(see(first, key), power_of_two(x));
    };
    for (int64_t block = 0; block < num_keys; block += STEP, weights += step)
        for (int64_t i = 0; i < STEP; i += 2) {
            const __m512 even = power(block + i), odd = power(block + i + 1);
            sum = _mm512_add_ps(sum, _mm512_add_ps(even, odd));
            _mm512_store_si512(weights + i * 32, in_pairs(even, odd));
        }
    _mm512_store_ps(factors, _mm512_div_ps(_mm512_set1_ps(1), sum));
    alignas(64) float highests[HALF], sums[HALF];
    _mm512_store_ps(highests, highest);
    _mm512_store_ps(sums, sum);
    for (int64_t i = 0; i < HALF; i++) logs[i] = highests[i] + std::log2(sums[i]);
}

struct Shape {
    int64_t num_tokens, num_heads, num_kv_heads, num_channels;

    int64_t group() const { return num_heads / num_kv_heads; }
    int64_t stride() const { return num_heads * num_channels; }
    int64_t kv_stride() const { return num_kv_heads * num_channels; }
    float scale() const { return 1 / std::sqrt(static_cast<float>(num_channels)); }
    float scale_for_powers_of_two() const { return scale() * LOG2_OF_E; }
};

// Pointers to the first token of one key/value head of one text, and of its query heads; `logs` are (H, T).
struct Heads {
    const bfloat16 *query, *key, *value;
    bfloat16* output;
    float* logs;
    const bfloat16* gradient = nullptr;
    bfloat16 *of_query = nullptr, *of_key = nullptr, *of_value = nullptr;
};

// The output, and of each query the logarithm, to base 2, of its softmax's sum.
void attend(const Shape& shape, const Heads& heads) {
    const int64_t channels = shape.num_channels, wide = padded(channels), across = wide / STEP, stride = shape.stride();
    const int64_t end = padded(shape.num_tokens), size = QUERIES_AT_ONCE;
    char* keys = work.keys.hold<char>(end * wide * 2);
    char* values = work.values.hold<char>(end * wide * 2);
    char* queries = work.queries.hold<char>(size * wide * 2);
    float* scores = work.scores.hold<float>(size * end);
    char* weights = work.weights.hold<char>(size * end * 2);
    float* mixed = work.query_sums.hold<float>(size * wide);
    const float scale = shape.scale_for_powers_of_two();
    alignas(64) float logs[QUERIES_AT_ONCE], factors[QUERIES_AT_ONCE];
    pack<false, false>(heads.key, shape.kv_stride(), shape.num_tokens, channels, keys);
    pack<true, true>(heads.value, shape.kv_stride(), shape.num_tokens, channels, values);
    for (int64_t head = 0; head < shape.group(); head++)
        for (int64_t first = 0; first < shape.num_tokens; first += size) {
            const int64_t count = std::min(size, shape.num_tokens - first), start = first * stride + head * channels;
            pack<false, true>(heads.query + start, stride, count, channels, queries);
            for (int64_t column = 0; column < count; column += STEP) {
                const int64_t seen = first + column + STEP;
                const Tiles some = over_columns(queries + column * wide * 2, across);
                multiply(over_columns(keys, across), some, across, false, scores + column, size, seen, STEP);
                for (int64_t i = column; i < column + STEP; i += HALF)
                    powers(scores + i, scale, first + i, seen, weights + i * 64, size * 64, logs + i, factors + i);
                multiply(over_rows(values, 2 * across), over_rows(weights + column * 64, size / HALF), seen / STEP,
                         false, mixed + column, size, channels, STEP);
            }
            std::copy_n(logs, count, heads.logs + head * shape.num_tokens + first);
            write_turned(mixed, size, factors, count, channels, heads.output + start, stride);
        }
}

// Of 32 keys (down) and some queries (across, the first `lead` places after the first key) the weights once more, from
// the logs, and the scores' gradients, but for the scale, from the weights'. The latter are put in pairs of keys too.
void weights_again(const float* scores, const float* of_weights, float scale, int64_t lead, int64_t num_queries,
                   const float* logs, const float* row_sums, bfloat16* weights, bfloat16* of_scores, char* pairs) {
    constexpr int64_t stride = QUERIES_AT_ONCE;
    const __m512 scales = _mm512_set1_ps(scale);
    for (int64_t query = 0; query < num_queries; query += HALF) {
        const __m512 log = _mm512_load_ps(logs + query), row_sum = _mm512_load_ps(row_sums + query);
        const auto gradient = [&](int64_t key) {
            const int64_t at = key * stride + query;
            const __m512 power = power_of_two(_mm512_fmsub_ps(_mm512_load_ps(scores + at), scales, log));
            const __m512 weight = _mm512_maskz_mov_ps(see(lead + query, key), power);
            const __m512 of_score = _mm512_mul_ps(_mm512_sub_ps(_mm512_load_ps(of_weights + at), row_sum), weight);
            store_rounded(weights + at, weight);
            store_rounded(of_scores + at, of_score);
            return of_score;
        };
        for (int64_t key = 0; key < STEP; key += 2) {
            const __m512 even = gradient(key), odd = gradient(key + 1);
            _mm512_store_si512(pairs + query * 64 + key * 32, in_pairs(even, odd));
        }
    }
}

// The gradients of query, key and value (algorithm 4 of the paper): weights are computed once more, from the logs.
void attend_backward(const Shape& shape, const Heads& heads) {
    const int64_t channels = shape.num_channels, wide = padded(channels), across = wide / STEP, stride = shape.stride();
    const int64_t end = padded(shape.num_tokens), size = QUERIES_AT_ONCE;
    char* keys = work.keys.hold<char>(end * wide * 2);
    char* key_columns = work.key_columns.hold<char>(end * wide * 2);
    char* values = work.values.hold<char>(end * wide * 2);
    char* queries = work.queries.hold<char>(size * wide * 2);
    char* query_pairs = work.query_pairs.hold<char>(size * wide * 2);
    char* gradients = work.gradients.hold<char>(size * wide * 2);
    char* gradient_pairs = work.gradient_pairs.hold<char>(size * wide * 2);
    float* scores = work.scores.hold<float>(size * STEP);
    float* of_weights = work.of_weights.hold<float>(size * STEP);
    bfloat16* weights = work.weights.hold<bfloat16>(size * STEP);
    bfloat16* of_scores = work.of_scores.hold<bfloat16>(size * STEP);
    char* pairs = work.pairs.hold<char>(size * end * 2);
    float* query_sums = work.query_sums.hold<float>(size * wide);
    float* key_sums = work.key_sums.hold<float>(end * wide);
    float* value_sums = work.value_sums.hold<float>(end * wide);
    const float scale = shape.scale_for_powers_of_two();
    alignas(64) float logs[QUERIES_AT_ONCE], row_sums[QUERIES_AT_ONCE], factors[QUERIES_AT_ONCE];
    std::fill_n(factors, size, shape.scale());
    std::memset(key_sums, 0, end * wide * 4);
    std::memset(value_sums, 0, end * wide * 4);
    pack<false, false>(heads.key, shape.kv_stride(), shape.num_tokens, channels, keys);
    pack<true, true>(heads.key, shape.kv_stride(), shape.num_tokens, channels, key_columns);
    pack<false, false>(heads.value, shape.kv_stride(), shape.num_tokens, channels, values);
    for (int64_t head = 0; head < shape.group(); head++)
        for (int64_t first = 0; first < shape.num_tokens; first += size) {
            const int64_t count = std::min(size, shape.num_tokens - first), start = first * stride + head * channels;
            const int64_t columns = padded(count);
            std::fill_n(logs, size, 0.0f);  // of places without a query too: nothing may become infinite there
            std::fill_n(row_sums, size, 0.0f);
            std::copy_n(heads.logs + head * shape.num_tokens + first, count, logs);
            for (int64_t i = 0; i < count; i++)
                row_sums[i] = dot(heads.gradient + start + i * stride, heads.output + start + i * stride, channels);
            pack<false, true>(heads.query + start, stride, count, channels, queries);
            pack<true, false>(heads.query + start, stride, count, channels, query_pairs);
            pack<false, true>(heads.gradient + start, stride, count, channels, gradients);
            pack<true, false>(heads.gradient + start, stride, count, channels, gradient_pairs);
            for (int64_t key = 0; key < first + columns; key += STEP) {
                const int64_t column = std::max<int64_t>(key - first, 0), left = columns - column;
                const int64_t at = key * wide * 2, here = column * wide * 2;
                multiply(over_columns(keys + at, across), over_columns(queries + here, across), across, false,
                         scores + column, size, STEP, left);
                multiply(over_columns(values + at, across), over_columns(gradients + here, across), across, false,
                         of_weights + column, size, STEP, left);
                weights_again(scores + column, of_weights + column, scale, first + column - key, left, logs + column,
                              row_sums + column, weights + column, of_scores + column,
                              pairs + key * size * 2 + column * 64);
                multiply(plain(weights + column, size), over_rows(gradient_pairs + here, 2 * across), left / STEP,
                         true, value_sums + key * wide, wide, STEP, channels);
                multiply(plain(of_scores + column, size), over_rows(query_pairs + here, 2 * across), left / STEP, true,
                         key_sums + key * wide, wide, STEP, channels);
            }
            for (int64_t column = 0; column < columns; column += STEP)
                multiply(over_rows(key_columns, 2 * across), over_rows(pairs + column * 64, size / HALF),
                         (first + column + STEP) / STEP, false, query_sums + column, size, channels, STEP);
            write_turned(query_sums, size, factors, count, channels, heads.of_query + start, stride);
        }
    write(key_sums, wide, shape.num_tokens, channels, heads.of_key, shape.kv_stride(), shape.scale());
    write(value_sums, wide, shape.num_tokens, channels, heads.of_value, shape.kv_stride(), 1);
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
