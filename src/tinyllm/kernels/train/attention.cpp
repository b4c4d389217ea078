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
    Buffer turned_keys, turned_queries, keys, key_columns, values, queries, query_pairs, gradients, gradient_pairs;
    Buffer scores, of_weights, weights, of_scores, pairs, query_sums, key_sums, value_sums;
};

thread_local Workspace work;

// Of sixteen queries from `first` on, those that see the key at `place`.
__mmask16 see(int64_t first, int64_t place) {
    return place <= first ? 0xffff : place - first >= HALF ? 0 : 0xffff << (place - first);
}

// Of 32 numbers, sixteen of each row, the two of a column side by side.
__m512i in_pairs(__m512 even, __m512 odd) {
    const __m512i place = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i below = _mm512_slli_epi32(_mm512_add_epi32(place, _mm512_set1_epi32(HALF)), 16);
    return _mm512_permutexvar_epi16(_mm512_or_si512(place, below), (__m512i)_mm512_cvtne2ps_pbh(odd, even));
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
// largest, in pairs of keys, a tile of 32 after the other; 0 where a query does not see a key. Gives of each query the
// logarithm of the powers' sum, and what makes a softmax of them.
void powers(const float* scores, float scale, int64_t first, int64_t num_keys, char* weights, float* logs,
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
    for (int64_t block = 0; block < num_keys; block += STEP, weights += TILE)
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
    int64_t stride() const { return (num_heads + 2 * num_kv_heads) * num_channels; }  // from token to token
    int64_t output_stride() const { return num_heads * num_channels; }
    float scale() const { return 1 / std::sqrt(static_cast<float>(num_channels)); }
    float scale_for_powers_of_two() const { return scale() * LOG2_OF_E; }
};

// Cosines and sines of every token's angles, (T, C/2) each.
struct Angles {
    const float *cosines, *sines;
};

// Pointers to the first token of one key/value head of one text, and of its query heads; `logs` are (H, T).
struct Heads {
    const bfloat16 *query, *key, *value;
    bfloat16* output;
    float* logs;
    const bfloat16* gradient = nullptr;
    bfloat16 *of_query = nullptr, *of_key = nullptr, *of_value = nullptr;
};

// A head of some tokens from `first` on, turned by their angles: channel i turns with channel i + C/2. `direction` is 1,
// or -1 for back.
void turn(const bfloat16* x, int64_t x_stride, const Angles& angles, float direction, int64_t first, int64_t num_tokens,
          int64_t num_channels, bfloat16* turned, int64_t stride) {
    const int64_t half = num_channels / 2;
    const __m512 directions = _mm512_set1_ps(direction);
    for (int64_t token = 0; token < num_tokens; token++) {
        // Rows to come: processors do not foresee steps so wide.
        for (int64_t i = 0; i < num_channels; i += STEP) _mm_prefetch(x + (token + HALF) * x_stride + i, _MM_HINT_T0);
        for (int64_t i = 0; i < half; i += HALF) {
            const __mmask16 lanes = first_lanes(std::min(half - i, HALF));
            const int64_t angle = (first + token) * half + i;
            const __m512 cosine = _mm512_maskz_loadu_ps(lanes, angles.cosines + angle);
            const __m512 sine = _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes, angles.sines + angle), directions);
            const bfloat16* from = x + token * x_stride + i;
            bfloat16* to = turned + token * stride + i;
            const __m512 one = widened(from, lanes), other = widened(from + half, lanes);
            store_rounded(to, _mm512_fmsub_ps(one, cosine, _mm512_mul_ps(other, sine)), lanes);
            store_rounded(to + half, _mm512_fmadd_ps(one, sine, _mm512_mul_ps(other, cosine)), lanes);
        }
    }
}

// The output, and of each query the logarithm, to base 2, of its softmax's sum.
void attend(const Shape& shape, const Angles& angles, const Heads& heads) {
    const int64_t channels = shape.num_channels, wide = padded(channels), across = wide / STEP;
    const int64_t stride = shape.stride(), output_stride = shape.output_stride();
    const int64_t end = padded(shape.num_tokens), steps = end / STEP, size = QUERIES_AT_ONCE;
    bfloat16* turned_keys = work.turned_keys.hold<bfloat16>(end * channels);
    bfloat16* turned_queries = work.turned_queries.hold<bfloat16>(size * channels);
    char* keys = work.keys.hold<char>(end * wide * 2);
    char* values = work.values.hold<char>(end * wide * 2);
    char* queries = work.queries.hold<char>(size * wide * 2);
    float* scores = work.scores.hold<float>(size * end);
    char* weights = work.weights.hold<char>(size * end * 2);
    float* mixed = work.query_sums.hold<float>(size * wide);
    const float scale = shape.scale_for_powers_of_two();
    alignas(64) float logs[QUERIES_AT_ONCE], factors[QUERIES_AT_ONCE];
    turn(heads.key, stride, angles, 1, 0, shape.num_tokens, channels, turned_keys, channels);
    pack_rows<false>(turned_keys, channels, shape.num_tokens, channels, keys);
    pack_columns<true>(heads.value, stride, shape.num_tokens, channels, values);
    for (int64_t head = 0; head < shape.group(); head++)
        for (int64_t first = 0; first < shape.num_tokens; first += size) {
            const int64_t count = std::min(size, shape.num_tokens - first), start = first * stride + head * channels;
            turn(heads.query + start, stride, angles, 1, first, count, channels, turned_queries, channels);
            pack_rows<true>(turned_queries, channels, count, channels, queries);
            for (int64_t column = 0; column < count; column += STEP) {
                const int64_t seen = first + column + STEP;
                multiply(packed(keys, across), packed(queries, across, column), across, false, scores + column, size,
                         seen, STEP);
                for (int64_t i = column; i < column + STEP; i += HALF)
                    powers(scores + i, scale, first + i, seen, weights + tile_at(steps, i), logs + i, factors + i);
                multiply(packed(values, steps), packed(weights, steps, column), seen / STEP, false, mixed + column,
                         size, channels, STEP);
            }
            std::copy_n(logs, count, heads.logs + head * shape.num_tokens + first);
            write_turned(mixed, size, factors, count, channels,
                         heads.output + first * output_stride + head * channels, output_stride);
        }
}

// Of 32 keys (down) and some queries (across, the first `lead` places after the first key) the weights once more, from
// the logs, and the scores' gradients, but for the scale, from the weights'. The latter are put in pairs of keys too, in
// tiles with so many steps.
void weights_again(const float* scores, const float* of_weights, float scale, int64_t lead, int64_t num_queries,
                   const float* logs, const float* row_sums, bfloat16* weights, bfloat16* of_scores, char* pairs,
                   int64_t num_steps) {
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
            _mm512_store_si512(pairs + tile_at(num_steps, query) + key * 32, in_pairs(even, odd));
        }
    }
}

// The gradients of query, key and value (algorithm 4 of the paper): weights are computed once more, from the logs.
void attend_backward(const Shape& shape, const Angles& angles, const Heads& heads) {
    const int64_t channels = shape.num_channels, wide = padded(channels), across = wide / STEP;
    const int64_t stride = shape.stride(), output_stride = shape.output_stride();
    const int64_t end = padded(shape.num_tokens), steps = end / STEP, size = QUERIES_AT_ONCE;
    bfloat16* turned_keys = work.turned_keys.hold<bfloat16>(end * channels);
    bfloat16* turned_queries = work.turned_queries.hold<bfloat16>(size * channels);
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
    turn(heads.key, stride, angles, 1, 0, shape.num_tokens, channels, turned_keys, channels);
    pack_rows<false>(turned_keys, channels, shape.num_tokens, channels, keys);
    pack_columns<true>(turned_keys, channels, shape.num_tokens, channels, key_columns);
    pack_rows<false>(heads.value, stride, shape.num_tokens, channels, values);
    for (int64_t head = 0; head < shape.group(); head++)
        for (int64_t first = 0; first < shape.num_tokens; first += size) {
            const int64_t count = std::min(size, shape.num_tokens - first), start = first * stride + head * channels;
            const int64_t columns = padded(count), output_start = first * output_stride + head * channels;
            const bfloat16 *output = heads.output + output_start, *gradient = heads.gradient + output_start;
            std::fill_n(logs, size, 0.0f);  // of places without a query too: nothing may become infinite there
            std::fill_n(row_sums, size, 0.0f);
            std::copy_n(heads.logs + head * shape.num_tokens + first, count, logs);
            for (int64_t i = 0; i < count; i++)
                row_sums[i] = dot(gradient + i * output_stride, output + i * output_stride, channels);
            turn(heads.query + start, stride, angles, 1, first, count, channels, turned_queries, channels);
            pack_rows<true>(turned_queries, channels, count, channels, queries);
            pack_columns<false>(turned_queries, channels, count, channels, query_pairs);
            pack_rows<true>(gradient, output_stride, count, channels, gradients);
            pack_columns<false>(gradient, output_stride, count, channels, gradient_pairs);
            for (int64_t key = 0; key < first + columns; key += STEP) {
                const int64_t column = std::max<int64_t>(key - first, 0), left = columns - column;
                multiply(packed(keys, across, key), packed(queries, across, column), across, false, scores + column,
                         size, STEP, left);
                multiply(packed(values, across, key), packed(gradients, across, column), across, false,
                         of_weights + column, size, STEP, left);
                weights_again(scores + column, of_weights + column, scale, first + column - key, left, logs + column,
                              row_sums + column, weights + column, of_scores + column,
                              pairs + tile_at(steps, column, key), steps);
                multiply(plain(weights + column, size), packed(gradient_pairs, columns / STEP, 0, column), left / STEP,
                         true, value_sums + key * wide, wide, STEP, channels);
                multiply(plain(of_scores + column, size), packed(query_pairs, columns / STEP, 0, column), left / STEP,
                         true, key_sums + key * wide, wide, STEP, channels);
            }
            for (int64_t column = 0; column < columns; column += STEP)
                multiply(packed(key_columns, steps), packed(pairs, steps, column), (first + column + STEP) / STEP, false,
                         query_sums + column, size, channels, STEP);
            write_turned(query_sums, size, factors, count, channels, turned_queries, channels);
            turn(turned_queries, channels, angles, -1, first, count, channels, heads.of_query + start, stride);
        }
    write(key_sums, wide, shape.num_tokens, channels, turned_keys, channels, shape.scale());
    turn(turned_keys, channels, angles, -1, 0, shape.num_tokens, channels, heads.of_key, stride);
    write(value_sums, wide, shape.num_tokens, channels, heads.of_value, stride, 1);
}

// Calls `work_on` for each key/value head of each text, with its place among all, and where it begins: its query heads,
// its key head, its value head, and the output of its query heads.
template <typename Work>
void for_all_heads(const Shape& shape, int64_t batch, int num_threads, Work work_on) {
    const TileShapes tile_shapes;
    const int64_t num_kv_heads = shape.num_kv_heads, channels = shape.num_channels;
#pragma omp parallel num_threads(num_threads)
    {
        _tile_loadconfig(&tile_shapes);
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < batch * num_kv_heads; i++) {
            const int64_t token = i / num_kv_heads * shape.num_tokens, head = i % num_kv_heads;
            const int64_t first = token * shape.stride(), key = (shape.num_heads + head) * channels;
            const int64_t query = head * shape.group() * channels;
            work_on(i * shape.group() * shape.num_tokens, first + query, first + key,
                    first + key + num_kv_heads * channels, token * shape.output_stride() + query);
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

// x (B, T, H + 2K, C): query heads, key heads, value heads of each token; cosines, sines (T, C/2): of the angles that
// queries and keys are turned by; output (B, T, H, C), logs (B, H, T).
void attention(const bfloat16* x, const float* cosines, const float* sines, bfloat16* output, float* logs,
               int64_t batch, int64_t num_tokens, int64_t num_heads, int64_t num_kv_heads, int64_t num_channels,
               int num_threads) {
    const Shape shape{num_tokens, num_heads, num_kv_heads, num_channels};
    for_all_heads(shape, batch, num_threads, [&](int64_t log, int64_t q, int64_t k, int64_t v, int64_t out) {
        attend(shape, {cosines, sines}, {x + q, x + k, x + v, output + out, logs + log});
    });
}

// The same, with the gradients of output and x.
void attention_backward(const bfloat16* x, const float* cosines, const float* sines, bfloat16* output, float* logs,
                        const bfloat16* gradient, bfloat16* of_x, int64_t batch, int64_t num_tokens, int64_t num_heads,
                        int64_t num_kv_heads, int64_t num_channels, int num_threads) {
    const Shape shape{num_tokens, num_heads, num_kv_heads, num_channels};
    for_all_heads(shape, batch, num_threads, [&](int64_t log, int64_t q, int64_t k, int64_t v, int64_t out) {
        attend_backward(shape, {cosines, sines},
                        {x + q, x + k, x + v, output + out, logs + log, gradient + out, of_x + q, of_x + k, of_x + v});
    });
}

}  // extern "C"
