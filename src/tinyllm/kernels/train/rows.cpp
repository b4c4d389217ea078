// RMSNorm, SwiGLU and cross entropy, and their gradients: everything between the products of matrices.
//
// Inputs and results are bfloat16; sums run in float32. For x86 processors with AVX-512. Each row is read from memory
// once; later passes over it hit the cache.
//
// Shapes: N tokens, D model size, F feed-forward size, V vocabulary.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "vectors.h"

namespace {

// 1 / (1 + e^-x) with a relative error of 6e-5; rounding to bfloat16 costs 2e-3.
__m512 sigmoid(__m512 x) {
    const __m512 power = power_of_two(_mm512_mul_ps(x, _mm512_set1_ps(-LOG2_E)));
    return _mm512_rcp14_ps(_mm512_add_ps(_mm512_set1_ps(1), power));
}

float widened_one(bfloat16 x) {
    const uint32_t bits = static_cast<uint32_t>(x) << 16;
    float number;
    std::memcpy(&number, &bits, sizeof number);
    return number;
}

// log2(sum_i e^x_i) = m + log2(sum_i 2^(x_i log2(e) - m)) with m = max_i x_i log2(e), so that no power overflows.
float log2_sum_exp(const bfloat16* x, int64_t size) {
    __m512 top = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps();
    for_each_vector(size, [&](int64_t i, __mmask16 lanes) {
        top = _mm512_mask_max_ps(top, lanes, top, widened(x + i, lanes));
    });
    const float highest = _mm512_reduce_max_ps(top) * LOG2_E;
    const __m512 scale = _mm512_set1_ps(LOG2_E), shift = _mm512_set1_ps(highest);
    for_each_vector(size, [&](int64_t i, __mmask16 lanes) {
        const __m512 power = power_of_two(_mm512_fmsub_ps(widened(x + i, lanes), scale, shift));
        sum = _mm512_mask_add_ps(sum, lanes, sum, power);
    });
    return highest + std::log2(_mm512_reduce_add_ps(sum));
}

// dz = (softmax(z) - onehot(target)) * grad_loss with softmax(z) = 2^(z log2(e) - log_sum); dz = 0 if target < 0.
void cross_entropy_backward_row(const bfloat16* logits, int64_t size, int64_t target, float log_sum, float grad_loss,
                                bfloat16* grad_logits) {
    if (target < 0) {
        std::fill_n(grad_logits, size, bfloat16{0});
        return;
    }
    const __m512 scale = _mm512_set1_ps(LOG2_E), shift = _mm512_set1_ps(log_sum), factors = _mm512_set1_ps(grad_loss);
    for_each_vector(size, [&](int64_t i, __mmask16 lanes) {
        const __m512 share = power_of_two(_mm512_fmsub_ps(widened(logits + i, lanes), scale, shift));
        store_rounded(grad_logits + i, _mm512_mul_ps(share, factors), lanes);
    });
    const float share = std::exp2(widened_one(logits[target]) * LOG2_E - log_sum);
    store_rounded(grad_logits + target, _mm512_set1_ps((share - 1) * grad_loss), 1);
}

// normed = x r gain; returns r = 1 / sqrt(mean(x^2) + eps).
float rms_norm_row(const bfloat16* x, const bfloat16* gain, float eps, int64_t size, bfloat16* normed) {
    __m512 squares = _mm512_setzero_ps();
    for_each_vector(size, [&](int64_t i, __mmask16 lanes) {
        const __m512 wide = widened(x + i, lanes);
        squares = _mm512_fmadd_ps(wide, wide, squares);
    });
    const float inverse_rms = 1 / std::sqrt(_mm512_reduce_add_ps(squares) / size + eps);
    const __m512 r = _mm512_set1_ps(inverse_rms);
    for_each_vector(size, [&](int64_t i, __mmask16 lanes) {
        const __m512 scaled = _mm512_mul_ps(widened(x + i, lanes), r);
        store_rounded(normed + i, _mm512_mul_ps(scaled, widened(gain + i, lanes)), lanes);
    });
    return inverse_rms;
}

// dx = r (g dy - x r^2 mean(x g dy)) + grad_residual,   dg += dy x r.
// `grad_residual` may be null. `grad_gain` is padded to whole vectors.
void rms_norm_backward_row(const bfloat16* x, const bfloat16* gain, float inverse_rms, const bfloat16* grad_normed,
                           const bfloat16* grad_residual, int64_t size, bfloat16* grad_x, float* grad_gain) {
    const __m512 r = _mm512_set1_ps(inverse_rms);
    __m512 sum = _mm512_setzero_ps();
    for_each_vector(size, [&](int64_t i, __mmask16 lanes) {
        const __m512 product = _mm512_mul_ps(widened(x + i, lanes), widened(grad_normed + i, lanes));
        sum = _mm512_fmadd_ps(product, widened(gain + i, lanes), sum);
        _mm512_storeu_ps(grad_gain + i, _mm512_fmadd_ps(product, r, _mm512_loadu_ps(grad_gain + i)));
    });
    const __m512 along_x = _mm512_set1_ps(_mm512_reduce_add_ps(sum) * inverse_rms * inverse_rms / size);
    for_each_vector(size, [&](int64_t i, __mmask16 lanes) {
        const __m512 scaled = _mm512_mul_ps(widened(grad_normed + i, lanes), widened(gain + i, lanes));
        const __m512 difference = _mm512_fnmadd_ps(widened(x + i, lanes), along_x, scaled);
        const __m512 residual = grad_residual == nullptr ? _mm512_setzero_ps() : widened(grad_residual + i, lanes);
        store_rounded(grad_x + i, _mm512_fmadd_ps(difference, r, residual), lanes);
    });
}

}  // namespace

extern "C" {

// normed = x r gain, inverse_rms = r = 1 / sqrt(mean(x^2) + eps). x, normed (N, D), gain (D), inverse_rms (N); `eps` is
// one number.
void rms_norm(const bfloat16* x, const bfloat16* gain, const float* eps, bfloat16* normed, float* inverse_rms,
              int64_t num_rows, int64_t size, int num_threads) {
#pragma omp parallel for num_threads(num_threads)
    for (int64_t row = 0; row < num_rows; row++)
        inverse_rms[row] = rms_norm_row(x + row * size, gain, *eps, size, normed + row * size);
}

// grad_x (N, D) from grad_normed (N, D), plus grad_residual (N, D) unless that is null. grad_gain (D), float32, is set,
// or added to if `accumulate`. Formulas: `rms_norm_backward_row`.
void rms_norm_backward(const bfloat16* x, const bfloat16* gain, const float* inverse_rms, const bfloat16* grad_normed,
                       const bfloat16* grad_residual, bfloat16* grad_x, float* grad_gain, int64_t num_rows,
                       int64_t size, int64_t accumulate, int num_threads) {
    const int64_t stride = (size + LANES - 1) / LANES * LANES;
    std::vector<float> sums(num_threads * stride);  // one row of grad_gain for each thread
#pragma omp parallel for schedule(static, 1) num_threads(num_threads)
    for (int64_t part = 0; part < num_threads; part++)
        for (int64_t row = num_rows * part / num_threads; row < num_rows * (part + 1) / num_threads; row++)
            rms_norm_backward_row(x + row * size, gain, inverse_rms[row], grad_normed + row * size,
                                  grad_residual == nullptr ? nullptr : grad_residual + row * size, size,
                                  grad_x + row * size, sums.data() + part * stride);
    for (int64_t part = 0; part < num_threads; part++)
        set_or_add(sums.data() + part * stride, size, grad_gain, accumulate || part > 0);
}

// product = silu(gate) * up with silu(z) = z sigmoid(z); `size` elements each.
void swiglu(const bfloat16* gate, const bfloat16* up, bfloat16* product, int64_t size, int num_threads) {
#pragma omp parallel for num_threads(num_threads)
    for (int64_t i = 0; i < size; i += LANES) {
        const __mmask16 lanes = first_lanes(std::min(size - i, LANES));
        const __m512 z = widened(gate + i, lanes);
        const __m512 silu = _mm512_mul_ps(z, sigmoid(z));
        store_rounded(product + i, _mm512_mul_ps(silu, widened(up + i, lanes)), lanes);
    }
}

// With s = sigmoid(gate):   d_gate = d up s (1 + gate (1 - s)),   d_up = d gate s,   product = gate s up.
// gate, up, grad_product d, product (N, F); grad_gate_up [d_gate d_up] (N, 2F).
void swiglu_backward(const bfloat16* gate, const bfloat16* up, const bfloat16* grad_product, bfloat16* grad_gate_up,
                     bfloat16* product, int64_t num_rows, int64_t size, int num_threads) {
#pragma omp parallel for num_threads(num_threads)
    for (int64_t row = 0; row < num_rows; row++)
        for_each_vector(size, [&](int64_t i, __mmask16 lanes) {
            const int64_t at = row * size + i;
            const __m512 z = widened(gate + at, lanes), u = widened(up + at, lanes);
            const __m512 d = widened(grad_product + at, lanes);
            const __m512 s = sigmoid(z), silu = _mm512_mul_ps(z, s);
            const __m512 slope = _mm512_fmadd_ps(silu, _mm512_sub_ps(_mm512_set1_ps(1), s), s);  // s (1 + z (1 - s))
            store_rounded(grad_gate_up + row * size + at, _mm512_mul_ps(_mm512_mul_ps(d, u), slope), lanes);
            store_rounded(grad_gate_up + row * size + at + size, _mm512_mul_ps(d, silu), lanes);
            store_rounded(product + at, _mm512_mul_ps(silu, u), lanes);
        });
}

// log_sum = log2(sum_v e^z_v),   loss = log_sum / log2(e) - z_target, in nats; loss = 0 if target < 0.
// logits z (N, V), targets (N) below V, losses (N), log_sums (N).
void cross_entropy(const bfloat16* logits, const int64_t* targets, float* losses, float* log_sums, int64_t num_rows,
                   int64_t vocab_size, int num_threads) {
#pragma omp parallel for num_threads(num_threads)
    for (int64_t row = 0; row < num_rows; row++) {
        const bfloat16* z = logits + row * vocab_size;
        log_sums[row] = log2_sum_exp(z, vocab_size);
        losses[row] = targets[row] < 0 ? 0 : log_sums[row] / LOG2_E - widened_one(z[targets[row]]);
    }
}

// grad_logits (N, V); `grad_loss` is one number, the gradient of every loss. Formula: `cross_entropy_backward_row`.
void cross_entropy_backward(const bfloat16* logits, const int64_t* targets, const float* log_sums,
                            const float* grad_loss, bfloat16* grad_logits, int64_t num_rows, int64_t vocab_size,
                            int num_threads) {
#pragma omp parallel for num_threads(num_threads)
    for (int64_t row = 0; row < num_rows; row++) {
        const int64_t first = row * vocab_size;
        cross_entropy_backward_row(logits + first, vocab_size, targets[row], log_sums[row], *grad_loss,
                                   grad_logits + first);
    }
}

}  // extern "C"
