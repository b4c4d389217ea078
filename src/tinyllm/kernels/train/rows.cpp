// What lies between the products of matrices, and its gradients: norm, SwiGLU, loss. Memory is read once; what
// is needed again is in the cache. For x86 processors with AVX-512; read and written in bfloat16, computed in float32.
//
// Letters: N tokens, D channels, V vocabulary.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "vectors.h"

namespace {

// To 6e-5, far less than what rounding costs.
__m512 sigmoid(__m512 x) {
    const __m512 power = power_of_two(_mm512_mul_ps(x, _mm512_set1_ps(-LOG2_OF_E)));
    return _mm512_rcp14_ps(_mm512_add_ps(_mm512_set1_ps(1), power));
}

float widened_one(bfloat16 x) {
    const uint32_t bits = static_cast<uint32_t>(x) << 16;
    float number;
    std::memcpy(&number, &bits, sizeof number);
    return number;
}

// The logarithm, to base 2, of the sum of e to the power of each of a row's numbers.
float log_of_sum(const bfloat16* x, int64_t size) {
    __m512 top = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps();
    for_all_places(size, [&](int64_t i, __mmask16 lanes) {
        top = _mm512_mask_max_ps(top, lanes, top, widened(x + i, lanes));
    });
    const float highest = _mm512_reduce_max_ps(top) * LOG2_OF_E;
    const __m512 scale = _mm512_set1_ps(LOG2_OF_E), shift = _mm512_set1_ps(highest);
    for_all_places(size, [&](int64_t i, __mmask16 lanes) {
        const __m512 power = power_of_two(_mm512_fmsub_ps(widened(x + i, lanes), scale, shift));
        sum = _mm512_mask_add_ps(sum, lanes, sum, power);
    });
    return highest + std::log2(_mm512_reduce_add_ps(sum));
}

// A row's softmax from its logarithm, times `factor`; at `target` 1 is taken from it first.
void gradient_of_loss(const bfloat16* x, int64_t size, int64_t target, float log, float factor, bfloat16* gradient) {
    const __m512 scale = _mm512_set1_ps(LOG2_OF_E), shift = _mm512_set1_ps(log), factors = _mm512_set1_ps(factor);
    for_all_places(size, [&](int64_t i, __mmask16 lanes) {
        const __m512 share = power_of_two(_mm512_fmsub_ps(widened(x + i, lanes), scale, shift));
        store_rounded(gradient + i, _mm512_mul_ps(share, factors), lanes);
    });
    const float share = std::exp2(widened_one(x[target]) * LOG2_OF_E - log);
    store_rounded(gradient + target, _mm512_set1_ps((share - 1) * factor), 1);
}

// Normalized rows: x times the inverse root of its mean square, which is given too, times a gain.
float normalize(const bfloat16* x, const bfloat16* gain, float eps, int64_t size, bfloat16* normed) {
    __m512 squares = _mm512_setzero_ps();
    for_all_places(size, [&](int64_t i, __mmask16 lanes) {
        const __m512 here = widened(x + i, lanes);
        squares = _mm512_fmadd_ps(here, here, squares);
    });
    const float inverse = 1 / std::sqrt(_mm512_reduce_add_ps(squares) / size + eps);
    const __m512 factor = _mm512_set1_ps(inverse);
    for_all_places(size, [&](int64_t i, __mmask16 lanes) {
        const __m512 here = _mm512_mul_ps(widened(x + i, lanes), factor);
        store_rounded(normed + i, _mm512_mul_ps(here, widened(gain + i, lanes)), lanes);
    });
    return inverse;
}

// The gradient of one row, to which `more` is added unless it is null; that of the gain is added to `of_gain`, which has
// places for whole vectors.
void normalize_backward(const bfloat16* x, const bfloat16* gain, float inverse, const bfloat16* gradient,
                        const bfloat16* more, int64_t size, bfloat16* of_x, float* of_gain) {
    const __m512 factor = _mm512_set1_ps(inverse);
    __m512 sum = _mm512_setzero_ps();
    for_all_places(size, [&](int64_t i, __mmask16 lanes) {
        const __m512 along = _mm512_mul_ps(widened(x + i, lanes), widened(gradient + i, lanes));
        sum = _mm512_fmadd_ps(along, widened(gain + i, lanes), sum);
        _mm512_storeu_ps(of_gain + i, _mm512_fmadd_ps(along, factor, _mm512_loadu_ps(of_gain + i)));
    });
    const __m512 back = _mm512_set1_ps(_mm512_reduce_add_ps(sum) * inverse * inverse / size);
    for_all_places(size, [&](int64_t i, __mmask16 lanes) {
        const __m512 straight = _mm512_mul_ps(widened(gradient + i, lanes), widened(gain + i, lanes));
        const __m512 rest = _mm512_fnmadd_ps(widened(x + i, lanes), back, straight);
        const __m512 so_far = more == nullptr ? _mm512_setzero_ps() : widened(more + i, lanes);
        store_rounded(of_x + i, _mm512_fmadd_ps(rest, factor, so_far), lanes);
    });
}

}  // namespace

extern "C" {

// x, normed (N, D), gain (D); `inverses` (N) are for the gradient. `eps` is one number.
void rms_norm(const bfloat16* x, const bfloat16* gain, const float* eps, bfloat16* normed, float* inverses,
              int64_t num_rows, int64_t size, int num_threads) {
#pragma omp parallel for num_threads(num_threads)
    for (int64_t row = 0; row < num_rows; row++)
        inverses[row] = normalize(x + row * size, gain, *eps, size, normed + row * size);
}

// From the gradient of what is normed those of x and gain. `more` (N, D), unless it is null, is added to that of x: what
// else x got. That of gain, float32, is set, or added to what is there if `adds`.
void rms_norm_backward(const bfloat16* x, const bfloat16* gain, const float* inverses, const bfloat16* gradient,
                       const bfloat16* more, bfloat16* of_x, float* of_gain, int64_t num_rows, int64_t size,
                       int64_t adds, int num_threads) {
    const int64_t stride = (size + LANES - 1) / LANES * LANES;
    std::vector<float> sums(num_threads * stride);  // a row for each thread
#pragma omp parallel for schedule(static, 1) num_threads(num_threads)
    for (int64_t part = 0; part < num_threads; part++)
        for (int64_t row = num_rows * part / num_threads; row < num_rows * (part + 1) / num_threads; row++)
            normalize_backward(x + row * size, gain, inverses[row], gradient + row * size,
                               more == nullptr ? nullptr : more + row * size, size, of_x + row * size,
                               sums.data() + part * stride);
    for (int64_t part = 0; part < num_threads; part++)
        store(sums.data() + part * stride, size, of_gain, adds || part > 0);
}

// All of `size` numbers: silu(gate) * up.
void swiglu(const bfloat16* gate, const bfloat16* up, bfloat16* product, int64_t size, int num_threads) {
#pragma omp parallel for num_threads(num_threads)
    for (int64_t i = 0; i < size; i += LANES) {
        const __mmask16 lanes = first_lanes(std::min(size - i, LANES));
        const __m512 x = widened(gate + i, lanes);
        const __m512 silu = _mm512_mul_ps(x, sigmoid(x));
        store_rounded(product + i, _mm512_mul_ps(silu, widened(up + i, lanes)), lanes);
    }
}

// From the gradient of the product (N, F) those of gate and up, one beside the other (N, 2F), and the product once more.
void swiglu_backward(const bfloat16* gate, const bfloat16* up, const bfloat16* gradient, bfloat16* of_both,
                     bfloat16* product, int64_t num_rows, int64_t size, int num_threads) {
#pragma omp parallel for num_threads(num_threads)
    for (int64_t row = 0; row < num_rows; row++)
        for_all_places(size, [&](int64_t i, __mmask16 lanes) {
            const int64_t at = row * size + i;
            const __m512 x = widened(gate + at, lanes), y = widened(up + at, lanes), g = widened(gradient + at, lanes);
            const __m512 open = sigmoid(x), silu = _mm512_mul_ps(x, open);
            const __m512 slope = _mm512_fmadd_ps(silu, _mm512_sub_ps(_mm512_set1_ps(1), open), open);
            store_rounded(of_both + row * size + at, _mm512_mul_ps(_mm512_mul_ps(g, y), slope), lanes);
            store_rounded(of_both + row * size + at + size, _mm512_mul_ps(g, silu), lanes);
            store_rounded(product + at, _mm512_mul_ps(silu, y), lanes);
        });
}

// logits (N, V), targets (N) in [0, V): losses in nats (N), and for the gradient the logs of the softmaxes' sums (N).
void cross_entropy(const bfloat16* logits, const int64_t* targets, float* losses, float* logs, int64_t num_rows,
                   int64_t vocab_size, int num_threads) {
#pragma omp parallel for num_threads(num_threads)
    for (int64_t row = 0; row < num_rows; row++) {
        const bfloat16* x = logits + row * vocab_size;
        logs[row] = log_of_sum(x, vocab_size);
        losses[row] = logs[row] / LOG2_OF_E - widened_one(x[targets[row]]);
    }
}

// The gradient of the logits, if each loss has the gradient `factor`, one number.
void cross_entropy_backward(const bfloat16* logits, const int64_t* targets, const float* logs, const float* factor,
                            bfloat16* of_logits, int64_t num_rows, int64_t vocab_size, int num_threads) {
#pragma omp parallel for num_threads(num_threads)
    for (int64_t row = 0; row < num_rows; row++) {
        const int64_t first = row * vocab_size;
        gradient_of_loss(logits + first, vocab_size, targets[row], logs[row], *factor, of_logits + first);
    }
}

}  // extern "C"
