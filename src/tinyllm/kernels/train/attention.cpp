// Causal attention with rotary positions, and its gradients, in bfloat16, for x86 processors with AMX.
//
// The T x T scores are never in memory: a block of queries reads all its keys inside one core's cache (FlashAttention,
// Dao et al. 2022). Scores are transposed, keys down and queries across, so that a softmax reduces lane by lane.
//
//     S = rotate(Q) rotate(K)^T / sqrt(C),   P = softmax(S),   O = P V,   log_sum = log2(sum_k e^S)
//
// Shapes: B texts, T tokens, H query heads, K key/value heads, C channels of a head.

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "tiles.h"

namespace {

constexpr int64_t QUERY_BLOCK = 64;  // its scores for all keys fit a core's cache

// Memory of one thread. `_tiles` are packed operands: A of X or B of X^T. `_columns` are A of X^T, `_pairs` B of X.
struct Workspace {
    Buffer rotated_keys, rotated_queries, key_tiles, key_columns, value_tiles, query_tiles, query_pairs;
    Buffer grad_out_tiles, grad_out_pairs, scores, grad_weights, weights, grad_scores, grad_score_tiles;
    Buffer query_sums, grad_key, grad_value;
};

thread_local Workspace work;

// The mask of sixteen queries from position `first` on that see the key at position `key`: key <= query.
__mmask16 visible(int64_t first, int64_t key) {
    return key <= first ? 0xffff : key - first >= SIDE ? 0 : 0xffff << (key - first);
}

// Rounds two rows of sixteen to bfloat16 and interleaves them: the pairs of one row of a B tile.
__m512i interleave(__m512 even, __m512 odd) {
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i upper = _mm512_slli_epi32(_mm512_add_epi32(lane, _mm512_set1_epi32(SIDE)), 16);
    return _mm512_permutexvar_epi16(_mm512_or_si512(lane, upper), (__m512i)_mm512_cvtne2ps_pbh(odd, even));
}

float dot(const bfloat16* a, const bfloat16* b, int64_t size) {
    __m512 sum = _mm512_setzero_ps();
    for (int64_t i = 0; i < size; i += SIDE) {
        const __mmask16 lanes = first_lanes(std::min(size - i, SIDE));
        sum = _mm512_fmadd_ps(widened(a + i, lanes), widened(b + i, lanes), sum);
    }
    return _mm512_reduce_add_ps(sum);
}

// Softmax numerators of sixteen queries from position `first` on.
// With x = scores * scale, keys down and queries across, and m the maximum of x over the visible keys:
//
//     weight = 2^(x - m), 0 for invisible keys,   log_sum = m + log2(sum_k weight),   inverse_sum = 1 / sum_k weight
//
// `weights` are written as B tiles along K = keys.
void exponentiate(const float* scores, float scale, int64_t first, int64_t num_keys, char* weights, float* log_sums,
                  float* inverse_sums) {
    constexpr int64_t stride = QUERY_BLOCK;
    __m512 top = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps();
    for (int64_t key = 0; key < std::min(first + SIDE, num_keys); key++)
        top = _mm512_mask_max_ps(top, visible(first, key), top, _mm512_load_ps(scores + key * stride));
    const __m512 scales = _mm512_set1_ps(scale), highest = _mm512_mul_ps(top, scales);
    const auto power = [&](int64_t key) {
        const __m512 x = _mm512_fmsub_ps(_mm512_load_ps(scores + key * stride), scales, highest);
        return _mm512_maskz_mov_ps(visible(first, key), power_of_two(x));
    };
    for (int64_t block = 0; block < num_keys; block += DEPTH, weights += TILE_BYTES)
        for (int64_t i = 0; i < DEPTH; i += 2) {
            const __m512 even = power(block + i), odd = power(block + i + 1);
            sum = _mm512_add_ps(sum, _mm512_add_ps(even, odd));
            _mm512_store_si512(weights + i * 32, interleave(even, odd));
        }
    _mm512_store_ps(inverse_sums, _mm512_div_ps(_mm512_set1_ps(1), sum));
    alignas(64) float highests[SIDE], sums[SIDE];
    _mm512_store_ps(highests, highest);
    _mm512_store_ps(sums, sum);
    for (int64_t i = 0; i < SIDE; i++) log_sums[i] = highests[i] + std::log2(sums[i]);
}

struct Shape {
    int64_t num_tokens, num_heads, num_kv_heads, num_channels;

    int64_t group() const { return num_heads / num_kv_heads; }
    int64_t stride() const { return (num_heads + 2 * num_kv_heads) * num_channels; }  // from token to token
    int64_t output_stride() const { return num_heads * num_channels; }
    float scale() const { return 1 / std::sqrt(static_cast<float>(num_channels)); }
    float scale_of_powers() const { return scale() * LOG2_E; }  // e^(scale s) = 2^(scale_of_powers s)
};

// Cosines and sines of the rotation angles, (T, C/2) each.
struct Angles {
    const float *cosines, *sines;
};

// The first token of one key/value head of one text, and of its group of query heads; `log_sums` are (H, T).
struct Heads {
    const bfloat16 *query, *key, *value;
    bfloat16* output;
    float* log_sums;
    const bfloat16* grad_out = nullptr;
    bfloat16 *grad_query = nullptr, *grad_key = nullptr, *grad_value = nullptr;
};

// Rotates one head of the tokens from position `first` on. `direction` is 1, or -1 for the reverse rotation.
//
//     y_i = x_i cos - x_(i + C/2) sin,   y_(i + C/2) = x_i sin + x_(i + C/2) cos,   i < C/2
void rotate(const bfloat16* x, int64_t x_stride, const Angles& angles, float direction, int64_t first,
            int64_t num_tokens, int64_t num_channels, bfloat16* rotated, int64_t stride) {
    const int64_t half = num_channels / 2;
    const __m512 directions = _mm512_set1_ps(direction);
    for (int64_t token = 0; token < num_tokens; token++) {
        // The hardware prefetcher does not follow strides this large.
        for (int64_t i = 0; i < num_channels; i += DEPTH) _mm_prefetch(x + (token + SIDE) * x_stride + i, _MM_HINT_T0);
        for (int64_t i = 0; i < half; i += SIDE) {
            const __mmask16 lanes = first_lanes(std::min(half - i, SIDE));
            const int64_t angle = (first + token) * half + i;
            const __m512 cosine = _mm512_maskz_loadu_ps(lanes, angles.cosines + angle);
            const __m512 sine = _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes, angles.sines + angle), directions);
            const bfloat16* from = x + token * x_stride + i;
            bfloat16* to = rotated + token * stride + i;
            const __m512 a = widened(from, lanes), b = widened(from + half, lanes);
            store_rounded(to, _mm512_fmsub_ps(a, cosine, _mm512_mul_ps(b, sine)), lanes);
            store_rounded(to + half, _mm512_fmadd_ps(a, sine, _mm512_mul_ps(b, cosine)), lanes);
        }
    }
}

// O = softmax(S) V and log_sums for one key/value head: block by block of queries, S^T, then P^T, then O^T = V^T P^T.
void attend(const Shape& shape, const Angles& angles, const Heads& heads) {
    const int64_t channels = shape.num_channels, wide = padded(channels), across = wide / DEPTH;
    const int64_t stride = shape.stride(), output_stride = shape.output_stride();
    const int64_t end = padded(shape.num_tokens), steps = end / DEPTH, size = QUERY_BLOCK;
    bfloat16* rotated_keys = work.rotated_keys.hold<bfloat16>(end * channels);
    bfloat16* rotated_queries = work.rotated_queries.hold<bfloat16>(size * channels);
    char* key_tiles = work.key_tiles.hold<char>(end * wide * 2);
    char* value_tiles = work.value_tiles.hold<char>(end * wide * 2);
    char* query_tiles = work.query_tiles.hold<char>(size * wide * 2);
    float* scores = work.scores.hold<float>(size * end);
    char* weights = work.weights.hold<char>(size * end * 2);
    float* query_sums = work.query_sums.hold<float>(size * wide);
    const float scale = shape.scale_of_powers();
    alignas(64) float log_sums[QUERY_BLOCK], inverse_sums[QUERY_BLOCK];
    rotate(heads.key, stride, angles, 1, 0, shape.num_tokens, channels, rotated_keys, channels);
    pack_rows<false>(rotated_keys, channels, shape.num_tokens, channels, key_tiles);
    pack_columns<true>(heads.value, stride, shape.num_tokens, channels, value_tiles);
    for (int64_t head = 0; head < shape.group(); head++)
        for (int64_t first = 0; first < shape.num_tokens; first += size) {
            const int64_t count = std::min(size, shape.num_tokens - first), start = first * stride + head * channels;
            rotate(heads.query + start, stride, angles, 1, first, count, channels, rotated_queries, channels);
            pack_rows<true>(rotated_queries, channels, count, channels, query_tiles);
            for (int64_t column = 0; column < count; column += DEPTH) {
                const int64_t num_keys = first + column + DEPTH;
                multiply(packed(key_tiles, across), packed(query_tiles, across, column), across, false,
                         scores + column, size, num_keys, DEPTH);
                for (int64_t i = column; i < column + DEPTH; i += SIDE)
                    exponentiate(scores + i, scale, first + i, num_keys, weights + tile_at(steps, i), log_sums + i,
                                 inverse_sums + i);
                multiply(packed(value_tiles, steps), packed(weights, steps, column), num_keys / DEPTH, false,
                         query_sums + column, size, channels, DEPTH);
            }
            std::copy_n(log_sums, count, heads.log_sums + head * shape.num_tokens + first);
            write_transposed(query_sums, size, inverse_sums, count, channels,
                         heads.output + first * output_stride + head * channels, output_stride);
        }
}

// Recompute P for a 32-key tile from the log-sum-exp, then dS = P * (dP - rowsum), without the factor 1 / sqrt(C).
//
// Keys are down, queries across; the first query is `offset` positions after the first key. `row_sums` are
// rowsum(dO * O). dS is written twice: as rows, `grad_scores`, and as B tiles along K = keys, `grad_score_tiles`, with
// `num_steps` tiles a row.
void backward_scores(const float* scores, const float* grad_weights, float scale, int64_t offset, int64_t num_queries,
                     const float* log_sums, const float* row_sums, bfloat16* weights, bfloat16* grad_scores,
                     char* grad_score_tiles, int64_t num_steps) {
    constexpr int64_t stride = QUERY_BLOCK;
    const __m512 scales = _mm512_set1_ps(scale);
    for (int64_t query = 0; query < num_queries; query += SIDE) {
        const __m512 log_sum = _mm512_load_ps(log_sums + query), row_sum = _mm512_load_ps(row_sums + query);
        const auto grad_score = [&](int64_t key) {
            const int64_t at = key * stride + query;
            const __m512 power = power_of_two(_mm512_fmsub_ps(_mm512_load_ps(scores + at), scales, log_sum));
            const __m512 weight = _mm512_maskz_mov_ps(visible(offset + query, key), power);
            const __m512 result = _mm512_mul_ps(_mm512_sub_ps(_mm512_load_ps(grad_weights + at), row_sum), weight);
            store_rounded(weights + at, weight);
            store_rounded(grad_scores + at, result);
            return result;
        };
        for (int64_t key = 0; key < DEPTH; key += 2) {
            const __m512 even = grad_score(key), odd = grad_score(key + 1);
            _mm512_store_si512(grad_score_tiles + tile_at(num_steps, query) + key * 32, interleave(even, odd));
        }
    }
}

// The gradients of Q, K and V of one key/value head (algorithm 4 of the paper), with Q and K rotated:
//
//     dP = dO V^T,   dS = P * (dP - rowsum(dO * O)) / sqrt(C),   dQ = dS K,   dK = dS^T Q,   dV = P^T dO
//
// Blocks of queries outside, tiles of 32 keys inside. dQ and dK are rotated back at the end.
void attend_backward(const Shape& shape, const Angles& angles, const Heads& heads) {
    const int64_t channels = shape.num_channels, wide = padded(channels), across = wide / DEPTH;
    const int64_t stride = shape.stride(), output_stride = shape.output_stride();
    const int64_t end = padded(shape.num_tokens), steps = end / DEPTH, size = QUERY_BLOCK;
    bfloat16* rotated_keys = work.rotated_keys.hold<bfloat16>(end * channels);
    bfloat16* rotated_queries = work.rotated_queries.hold<bfloat16>(size * channels);
    char* key_tiles = work.key_tiles.hold<char>(end * wide * 2);
    char* key_columns = work.key_columns.hold<char>(end * wide * 2);
    char* value_tiles = work.value_tiles.hold<char>(end * wide * 2);
    char* query_tiles = work.query_tiles.hold<char>(size * wide * 2);
    char* query_pairs = work.query_pairs.hold<char>(size * wide * 2);
    char* grad_out_tiles = work.grad_out_tiles.hold<char>(size * wide * 2);
    char* grad_out_pairs = work.grad_out_pairs.hold<char>(size * wide * 2);
    float* scores = work.scores.hold<float>(size * DEPTH);
    float* grad_weights = work.grad_weights.hold<float>(size * DEPTH);
    bfloat16* weights = work.weights.hold<bfloat16>(size * DEPTH);
    bfloat16* grad_scores = work.grad_scores.hold<bfloat16>(size * DEPTH);
    char* grad_score_tiles = work.grad_score_tiles.hold<char>(size * end * 2);
    float* query_sums = work.query_sums.hold<float>(size * wide);
    float* grad_key = work.grad_key.hold<float>(end * wide);
    float* grad_value = work.grad_value.hold<float>(end * wide);
    const float scale = shape.scale_of_powers();
    alignas(64) float log_sums[QUERY_BLOCK], row_sums[QUERY_BLOCK], scales[QUERY_BLOCK];
    std::fill_n(scales, size, shape.scale());
    std::memset(grad_key, 0, end * wide * 4);
    std::memset(grad_value, 0, end * wide * 4);
    rotate(heads.key, stride, angles, 1, 0, shape.num_tokens, channels, rotated_keys, channels);
    pack_rows<false>(rotated_keys, channels, shape.num_tokens, channels, key_tiles);
    pack_columns<true>(rotated_keys, channels, shape.num_tokens, channels, key_columns);
    pack_rows<false>(heads.value, stride, shape.num_tokens, channels, value_tiles);
    for (int64_t head = 0; head < shape.group(); head++)
        for (int64_t first = 0; first < shape.num_tokens; first += size) {
            const int64_t count = std::min(size, shape.num_tokens - first), start = first * stride + head * channels;
            const int64_t columns = padded(count), output_start = first * output_stride + head * channels;
            const bfloat16 *output = heads.output + output_start, *grad_out = heads.grad_out + output_start;
            std::fill_n(log_sums, size, 0.0f);  // padding too: nothing may become infinite there
            std::fill_n(row_sums, size, 0.0f);
            std::copy_n(heads.log_sums + head * shape.num_tokens + first, count, log_sums);
            for (int64_t i = 0; i < count; i++)
                row_sums[i] = dot(grad_out + i * output_stride, output + i * output_stride, channels);
            rotate(heads.query + start, stride, angles, 1, first, count, channels, rotated_queries, channels);
            pack_rows<true>(rotated_queries, channels, count, channels, query_tiles);
            pack_columns<false>(rotated_queries, channels, count, channels, query_pairs);
            pack_rows<true>(grad_out, output_stride, count, channels, grad_out_tiles);
            pack_columns<false>(grad_out, output_stride, count, channels, grad_out_pairs);
            for (int64_t key = 0; key < first + columns; key += DEPTH) {
                const int64_t column = std::max<int64_t>(key - first, 0), left = columns - column;
                multiply(packed(key_tiles, across, key), packed(query_tiles, across, column), across, false,
                         scores + column, size, DEPTH, left);
                multiply(packed(value_tiles, across, key), packed(grad_out_tiles, across, column), across, false,
                         grad_weights + column, size, DEPTH, left);
                backward_scores(scores + column, grad_weights + column, scale, first + column - key, left,
                                log_sums + column, row_sums + column, weights + column, grad_scores + column,
                                grad_score_tiles + tile_at(steps, column, key), steps);
                multiply(unpacked(weights + column, size), packed(grad_out_pairs, columns / DEPTH, 0, column),
                         left / DEPTH, true, grad_value + key * wide, wide, DEPTH, channels);
                multiply(unpacked(grad_scores + column, size), packed(query_pairs, columns / DEPTH, 0, column),
                         left / DEPTH, true, grad_key + key * wide, wide, DEPTH, channels);
            }
            for (int64_t column = 0; column < columns; column += DEPTH)
                multiply(packed(key_columns, steps), packed(grad_score_tiles, steps, column),
                         (first + column + DEPTH) / DEPTH, false, query_sums + column, size, channels, DEPTH);
            write_transposed(query_sums, size, scales, count, channels, rotated_queries, channels);
            rotate(rotated_queries, channels, angles, -1, first, count, channels, heads.grad_query + start, stride);
        }
    write_rows(grad_key, wide, shape.num_tokens, channels, rotated_keys, channels, shape.scale());
    rotate(rotated_keys, channels, angles, -1, 0, shape.num_tokens, channels, heads.grad_key, stride);
    write_rows(grad_value, wide, shape.num_tokens, channels, heads.grad_value, stride, 1);
}

// Calls `body` for each key/value head of each text with the offsets of its log sums, query heads, key head, value head
// and output.
template <typename Body>
void for_each_kv_head(const Shape& shape, int64_t batch, int num_threads, Body body) {
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
            body(i * shape.group() * shape.num_tokens, first + query, first + key,
                 first + key + num_kv_heads * channels, token * shape.output_stride() + query);
        }
        _tile_release();
    }
}

}  // namespace

extern "C" {

// Requests the processor's tiles from Linux, which grants them to a process on request only; returns 0 if refused.
int prepare() {
    constexpr int ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

// O = softmax(S) V and log_sums = log2(sum_k e^S), with S = rotate(Q) rotate(K)^T / sqrt(C), causal.
// Shapes: qkv (B, T, H + 2K, C), the query, key and value heads of each token; cosines, sines (T, C/2);
// output O (B, T, H, C); log_sums (B, H, T).
void attention(const bfloat16* qkv, const float* cosines, const float* sines, bfloat16* output, float* log_sums,
               int64_t batch, int64_t num_tokens, int64_t num_heads, int64_t num_kv_heads, int64_t num_channels,
               int num_threads) {
    const Shape shape{num_tokens, num_heads, num_kv_heads, num_channels};
    for_each_kv_head(shape, batch, num_threads, [&](int64_t log, int64_t q, int64_t k, int64_t v, int64_t out) {
        attend(shape, {cosines, sines}, {qkv + q, qkv + k, qkv + v, output + out, log_sums + log});
    });
}

// grad_qkv (B, T, H + 2K, C) from grad_out (B, T, H, C) and the arguments of `attention`. Formulas: `attend_backward`.
void attention_backward(const bfloat16* qkv, const float* cosines, const float* sines, bfloat16* output,
                        float* log_sums, const bfloat16* grad_out, bfloat16* grad_qkv, int64_t batch,
                        int64_t num_tokens, int64_t num_heads, int64_t num_kv_heads, int64_t num_channels,
                        int num_threads) {
    const Shape shape{num_tokens, num_heads, num_kv_heads, num_channels};
    for_each_kv_head(shape, batch, num_threads, [&](int64_t log, int64_t q, int64_t k, int64_t v, int64_t out) {
        attend_backward(shape, {cosines, sines},
                        {qkv + q, qkv + k, qkv + v, output + out, log_sums + log, grad_out + out, grad_qkv + q,
                         grad_qkv + k, grad_qkv + v});
    });
}

}  // extern "C"
