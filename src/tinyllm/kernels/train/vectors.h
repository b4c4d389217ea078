// What the kernels share: vectors of sixteen float32, read from bfloat16 and rounded to it, and powers of 2.

#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <initializer_list>

using bfloat16 = uint16_t;

constexpr int64_t LANES = 16;
constexpr float LOG2_OF_E = 1.44269504f;

inline __mmask32 first_lanes(int64_t count) { return count >= 32 ? ~0u : count <= 0 ? 0u : (1u << count) - 1; }

inline __m512 widened(const bfloat16* x, __mmask16 lanes = 0xffff) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, x)), 16));
}

inline void store_rounded(bfloat16* to, __m512 x, __mmask16 lanes = 0xffff) {
    _mm256_mask_storeu_epi16(to, lanes, (__m256i)_mm512_cvtneps_pbh(x));
}

// 2^x to 3e-6, far less than what rounding to bfloat16 costs; a NaN stays one.
inline __m512 power_of_two(__m512 x) {
    const __m512 whole = _mm512_roundscale_ps(x, 0), rest = _mm512_sub_ps(x, whole);
    __m512 y = _mm512_set1_ps(9.58284e-3f);
    for (float factor : {5.59064e-2f, 0.240241f, 0.693124f, 1.0f})
        y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(factor));
    return _mm512_scalef_ps(y, whole);
}

// Calls `work_on` with sixteen places at a time, the first and which of them there are.
template <typename Work>
void for_all_places(int64_t size, Work work_on) {
    for (int64_t place = 0; place < size; place += LANES) work_on(place, first_lanes(std::min(size - place, LANES)));
}

// Sets `size` numbers, or adds to what is there.
inline void store(const float* x, int64_t size, float* result, bool adds) {
    for_all_places(size, [&](int64_t i, __mmask16 lanes) {
        const __m512 before = adds ? _mm512_maskz_loadu_ps(lanes, result + i) : _mm512_setzero_ps();
        _mm512_mask_storeu_ps(result + i, lanes, _mm512_add_ps(_mm512_maskz_loadu_ps(lanes, x + i), before));
    });
}
