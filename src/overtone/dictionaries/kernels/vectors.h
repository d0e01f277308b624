/* Vectors of float32 numbers for all processors, and the inner products that several files use.

   The kernels are plain C: plain pointers, no headers but the standard ones, no state, no threads of their own. Matrices
   are row-major and contiguous, float32. Callers split rows, panels or latents over threads as they like. One source
   serves all processors; what the compiler may use decides (bf16 dot products, AVX-512, AVX2, anything else). */

#ifndef VECTORS_H
#define VECTORS_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif
#if defined(__AVX512F__)
#define VL 16 /* floats in a vector */
#elif defined(__AVX2__) && defined(__FMA__)
#define VL 8
#else
#define VL 4
#endif

typedef float vf __attribute__((vector_size(4 * VL)));
typedef float vfu __attribute__((vector_size(4 * VL), aligned(4)));
#define AHEAD 1024 /* how many numbers before they are read memory is asked for them */
#define LOAD(p) ((vf) * (const vfu *)(p))
#define STORE(p, v) (*(vfu *)(p) = (v))

#if defined(__AVX512F__)
static inline __mmask16 lanes(int64_t left) { return left >= 16 ? 0xFFFF : left <= 0 ? 0 : (__mmask16)((1u << left) - 1); }
#endif

/* The first n numbers, with zeros behind them. */
static inline vf some(const float *p, int64_t n) {
#if defined(__AVX512F__)
  return (vf)_mm512_maskz_loadu_ps(lanes(n), p);
#else
  vf v = {0};
  memcpy(&v, p, 4 * (size_t)(n < VL ? n : VL));
  return v;
#endif
}

static inline float total(vf v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps((__m512)v);
#else
  float sum = 0;
  for (int i = 0; i < VL; i++) sum += v[i];
  return sum;
#endif
}

static inline float dot(const float *a, const float *b, int64_t n) {
  vf s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
  int64_t i = 0;
  for (; i + 4 * VL <= n; i += 4 * VL) {
    s0 += LOAD(a + i) * LOAD(b + i);
    s1 += LOAD(a + i + VL) * LOAD(b + i + VL);
    s2 += LOAD(a + i + 2 * VL) * LOAD(b + i + 2 * VL);
    s3 += LOAD(a + i + 3 * VL) * LOAD(b + i + 3 * VL);
  }
  for (; i < n; i += VL) s0 += some(a + i, n - i) * some(b + i, n - i);
  return total((s0 + s1) + (s2 + s3));
}

#define TOGETHER 4 /* rows whose products with one state are made at once, so that memory is asked for in parallel */

/* sums = totals of TOGETHER vectors, each added up in the same order. */
static inline void totals(const vf *v, float *sums) {
#if defined(__AVX512F__)
  __m512 a = _mm512_add_ps(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
  __m512 b = _mm512_add_ps(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
  __m512d c = _mm512_castps_pd(a), d = _mm512_castps_pd(b);
  a = _mm512_castpd_ps(_mm512_unpacklo_pd(c, d)), b = _mm512_castpd_ps(_mm512_unpackhi_pd(c, d));
  vf all = a + b; /* four in each quarter */
  __m512d quarters = _mm512_castps_pd(all);
  __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm256_castpd_ps(_mm512_extractf64x4_pd(quarters, 1)));
  _mm_storeu_ps(sums, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
#else
  for (int r = 0; r < TOGETHER; r++) sums[r] = total(v[r]);
#endif
}

/* out = inner products of a with some rows, each summed in the same order whatever their number. */
static inline __attribute__((always_inline)) void dots_of(int count, const float *a, const float *const *rows, int64_t n,
                                                          float *out) {
  vf s[TOGETHER][2] = {{{0}}}, both[TOGETHER];
  float sums[TOGETHER];
  int64_t i = 0;
  for (; i + 2 * VL <= n; i += 2 * VL) {
    vf a0 = LOAD(a + i), a1 = LOAD(a + i + VL);
#pragma GCC unroll 4
    for (int r = 0; r < count; r++) s[r][0] += a0 * LOAD(rows[r] + i), s[r][1] += a1 * LOAD(rows[r] + i + VL);
  }
  for (; i < n; i += VL) {
    vf a0 = some(a + i, n - i);
#pragma GCC unroll 4
    for (int r = 0; r < count; r++) s[r][0] += a0 * some(rows[r] + i, n - i);
  }
#pragma GCC unroll 4
  for (int r = 0; r < TOGETHER; r++) both[r] = s[r][0] + s[r][1];
  totals(both, sums);
  for (int r = 0; r < count; r++) out[r] = sums[r];
}

/* The same for 1 to TOGETHER rows. */
static inline void dots(int64_t count, const float *a, const float *const *rows, int64_t n, float *out) {
  switch (count) {
  case 1: dots_of(1, a, rows, n, out); break;
  case 2: dots_of(2, a, rows, n, out); break;
  case 3: dots_of(3, a, rows, n, out); break;
  default: dots_of(4, a, rows, n, out);
  }
}

#if defined(__AVX512F__)
/* Transpose 16 rows of 16 numbers, `stride` apart; rows beyond `live` are 0, and of each result, `step` apart, the first
   `count` numbers are written. */
static inline void transpose16(const float *from, int64_t stride, int64_t live, float *to, int64_t step, int64_t count) {
  __m512 r[16], t[16];
  __mmask16 written = lanes(count);
#pragma GCC unroll 16
  for (int i = 0; i < 16; i++) r[i] = i < live ? _mm512_loadu_ps(from + i * stride) : _mm512_setzero_ps();
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++) {
    t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    r[4 * i] = _mm512_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
    r[4 * i + 1] = _mm512_shuffle_ps(t[4 * i], t[4 * i + 2], 0xEE);
    r[4 * i + 2] = _mm512_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
    r[4 * i + 3] = _mm512_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xEE);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    t[i] = _mm512_shuffle_f32x4(r[i], r[4 + i], 0x88);
    t[4 + i] = _mm512_shuffle_f32x4(r[i], r[4 + i], 0xDD);
    t[8 + i] = _mm512_shuffle_f32x4(r[8 + i], r[12 + i], 0x88);
    t[12 + i] = _mm512_shuffle_f32x4(r[8 + i], r[12 + i], 0xDD);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    _mm512_mask_storeu_ps(to + i * step, written, _mm512_shuffle_f32x4(t[i], t[8 + i], 0x88));
    _mm512_mask_storeu_ps(to + (8 + i) * step, written, _mm512_shuffle_f32x4(t[i], t[8 + i], 0xDD));
    _mm512_mask_storeu_ps(to + (4 + i) * step, written, _mm512_shuffle_f32x4(t[4 + i], t[12 + i], 0x88));
    _mm512_mask_storeu_ps(to + (12 + i) * step, written, _mm512_shuffle_f32x4(t[4 + i], t[12 + i], 0xDD));
  }
}
#endif

#endif
