// Vectors of sixteen float32, loaded from bfloat16 and rounded to it; powers of 2; loops over vectors. AVX-512.

#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <initializer_list>

using bfloat16 = uint16_t;

constexpr int64_t LANES = 16;
constexpr float LOG2_E = 1.44269504f;

// The mask of the first `count` lanes: none below 1, all from 32 on.
inline __mmask32 first_lanes(int64_t count) { return count >= 32 ? ~0u : count <= 0 ? 0u : (1u << count) - 1; }

// Sixteen bfloat16 as float32; 0 in masked lanes. bfloat16 is the upper half of a float32.
inline __m512 widened(const bfloat16* x, __mmask16 lanes = 0xffff) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, x)), 16));
}

// Stores sixteen float32, rounded to bfloat16.
inline void store_rounded(bfloat16* to, __m512 x, __mmask16 lanes = 0xffff) {
    _mm256_mask_storeu_epi16(to, lanes, (__m256i)_mm512_cvtneps_pbh(x));
}

// 2^x with a relative error of 3e-6; rounding to bfloat16 costs 2e-3. NaN gives NaN.
// 2^x = 2^n p(x - n) with n = round(x) and p a polynomial of degree 4.
inline __m512 power_of_two(__m512 x) {
    const __m512 whole = _mm512_roundscale_ps(x, 0), rest = _mm512_sub_ps(x, whole);
    __m512 y = _mm512_set1_ps(9.58284e-3f);
    for (float coefficient : {5.59064e-2f, 0.240241f, 0.693124f, 1.0f})
        y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(coefficient));
    return _mm512_scalef_ps(y, whole);
}

// Calls `body` with the index of each vector's first element and the mask of the lanes below `size`.
template <typename Body>
void for_each_vector(int64_t size, Body body) {
    for (int64_t i = 0; i < size; i += LANES) body(i, first_lanes(std::min(size - i, LANES)));
}

// result = x, or result += x if `accumulate`; `size` elements.
inline void set_or_add(const float* x, int64_t size, float* result, bool accumulate) {
    for_each_vector(size, [&](int64_t i, __mmask16 lanes) {
        const __m512 before = accumulate ? _mm512_maskz_loadu_ps(lanes, result + i) : _mm512_setzero_ps();
        _mm512_mask_storeu_ps(result + i, lanes, _mm512_add_ps(_mm512_maskz_loadu_ps(lanes, x + i), before));
    });
}
