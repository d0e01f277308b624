/* Numbers in fewer bits, and the products of a few rows with a panel of weights in registers.

   Three kinds: float32, bf16 (two in a cell), int8 with a scale for each row (four in a cell; coordinates are first
   multiplied by powers of two, and weights divided by them, so that extreme coordinates do not take all the digits). */

#ifndef TILES_H
#define TILES_H

#include "vectors.h"

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define HAS_BF16 1
#endif
#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define HAS_INT8 1
#endif
#if defined(__AVX512F__)
#define MR 12 /* rows in a tile */
#else
#define MR 6
#endif
#define NR (2 * VL) /* latents in a tile, and in a panel of packed weights */
#define ALWAYS static inline __attribute__((always_inline))

/* A kind is one of these, plus AMX if matrix registers make the products. */
enum { SINGLE = 0, BF16 = 1, INT8 = 2, AMX = 4 };
#define GROUP 32 /* rows in a tile then */

static inline int digits_of(int64_t kind) { return (int)(kind & ~AMX); }
static inline int64_t tall_of(int64_t kind) { return kind & AMX ? GROUP : MR; }

typedef uint32_t cell; /* numbers that follow each other along the width */

static inline int64_t depth_of(int64_t kind, int64_t width) {
  int64_t numbers = digits_of(kind) == INT8 ? 4 : digits_of(kind) == BF16 ? 2 : 1, cells = (width + numbers - 1) / numbers;
  return kind & AMX ? (cells + 15) / 16 * 16 : cells;
}

typedef struct { /* where the cells of a row are: `step` apart, and 16 of them `hop` from the next 16 */
  cell *cells;
  int64_t step, hop;
} place_of_row;

/* Row r of some, of `depth` cells each. */
static inline place_of_row row_place(int64_t kind, cell *rows, int64_t depth, int64_t r) {
  if (kind & AMX) return (place_of_row){rows + r / 16 * 16 * depth + r % 16 * 16, 1, 256};
  return (place_of_row){rows + r / MR * MR * depth + r % MR, MR, 16 * MR};
}

#if defined(__AVX512F__)
/* Write n of 16 cells. */
static inline void put_cells(place_of_row to, int64_t i, __m512i cells, int64_t n) {
  cell *out = to.cells + i / 16 * to.hop, each[16];
  if (to.step == 1) {
    _mm512_mask_storeu_epi32(out, lanes(n), cells);
    return;
  }
  _mm512_storeu_si512(each, cells);
  for (int64_t j = 0; j < n; j++) out[j * to.step] = each[j];
}
#endif

typedef struct { /* of a row: step between numbers; lengths as it was, times factors, rounded (not int8), and the most
                    that rounding took away */
  float scale, plain, length, rounded, error;
  int32_t sum; /* by how much it makes products of integers too large */
} facts;

#ifdef HAS_BF16
static facts pack_bf16(const float *row, int64_t width, place_of_row to) {
  vf of_rounded = {0}, of_error = {0}, of_length = {0};
  for (int64_t i = 0; i < width; i += 32) {
    int64_t left = width - i;
    __m512 a = _mm512_maskz_loadu_ps(lanes(left), row + i), b = _mm512_maskz_loadu_ps(lanes(left - 16), row + i + 16);
    __m512i both = (__m512i)_mm512_cvtne2ps_pbh(b, a);
    __m512i ia = _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(both)), 16);
    __m512i ib = _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(both, 1)), 16);
    vf ra = (vf)ia, rb = (vf)ib, ea = (vf)a - ra, eb = (vf)b - rb;
    of_rounded += ra * ra + rb * rb;
    of_error += ea * ea + eb * eb;
    of_length += (vf)a * (vf)a + (vf)b * (vf)b;
    put_cells(to, i / 2, both, left >= 32 ? 16 : (left + 1) / 2);
  }
  float length = sqrtf(total(of_length));
  return (facts){1, length, length, sqrtf(total(of_rounded)), sqrtf(total(of_error)), 0};
}
#endif

#ifdef HAS_INT8
typedef struct { /* of numbers of a row */
  vf of_length, of_plain, cross;
  __m512i sum;
} sums_of;

/* The largest of n <= 32 numbers, each times its factor, and of those in `most`. */
ALWAYS void largest_of(const float *row, const float *factors, int64_t n, __m512 most[2]) {
#pragma GCC unroll 2
  for (int j = 0; j < 2; j++) {
    __mmask16 there = lanes(n - 16 * j);
    __m512 x = _mm512_mul_ps(_mm512_maskz_loadu_ps(there, row + 16 * j), _mm512_maskz_loadu_ps(there, factors + 16 * j));
    most[j] = _mm512_max_ps(most[j], _mm512_abs_ps(x));
    __builtin_prefetch(row + 16 * j + AHEAD);
  }
}

/* n <= 64 numbers as bytes; see pack_int8. */
ALWAYS __m512i bytes_of(const float *row, const float *factors, const float *own, const float *other, int64_t n,
                        int raised, float back, sums_of *s) {
  __m512i whole[4];
#pragma GCC unroll 4
  for (int j = 0; j < 4; j++) {
    __mmask16 there = lanes(n - 16 * j);
    vf plain = (vf)_mm512_maskz_loadu_ps(there, row + 16 * j);
    vf x = plain * (vf)_mm512_maskz_loadu_ps(there, factors + 16 * j);
    vf dither = (vf)_mm512_maskz_loadu_ps(there, own + 16 * j);
    __m512 steps = (__m512)(x * back + dither);
    __mmask16 usual = _mm512_cmp_ps_mask(_mm512_abs_ps(steps), _mm512_set1_ps(128), _CMP_LT_OQ); /* not NaN */
    whole[j] = _mm512_maskz_cvtps_epi32(usual, steps);
    vf r = (vf)_mm512_cvtepi32_ps(whole[j]);
    s->of_plain += plain * plain, s->of_length += x * x;
    s->cross += (vf)_mm512_maskz_loadu_ps(there, other + 16 * j) * (raised ? r - dither : r);
    s->sum = _mm512_add_epi32(s->sum, whole[j]);
  }
  __m512i low = _mm512_packs_epi32(whole[0], whole[1]), high = _mm512_packs_epi32(whole[2], whole[3]);
  __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15); /* packing goes by quarters */
  __m512i bytes = _mm512_permutexvar_epi32(order, _mm512_packs_epi16(low, high));
  return _mm512_xor_si512(bytes, _mm512_set1_epi8(raised ? (char)0x80 : 0));
}

/* own, other: the dithers of these rows and of those they meet. raised: add 128 to each number. */
ALWAYS facts pack_int8(const float *row, const float *factors, const float *own, const float *other, int64_t width,
                       int raised, place_of_row to) {
  __m512 most[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
  int64_t i = 0;
  for (; i + 32 <= width; i += 32) largest_of(row + i, factors + i, 32, most);
  if (i < width) largest_of(row + i, factors + i, width - i, most);
  float largest = _mm512_reduce_max_ps(_mm512_max_ps(most[0], most[1])), scale = largest / 126.5f;
  int left = scale > 1e-18f && scale < 1e30f; /* else its numbers are all zero, and its length is what it may be */
  float back = left ? 1 / scale : 0;
  sums_of s = {{0}, {0}, {0}, _mm512_setzero_si512()};
  for (i = 0; i + 64 <= width; i += 64)
    put_cells(to, i / 4, bytes_of(row + i, factors + i, own + i, other + i, 64, raised, back, &s), 16);
  if (i < width)
    put_cells(to, i / 4, bytes_of(row + i, factors + i, own + i, other + i, width - i, raised, back, &s),
              (width - i + 3) / 4);
  int32_t more = (int32_t)rintf(total(s.cross)), all = raised ? 0 : 128 * _mm512_reduce_add_epi32(s.sum);
  float length = left ? sqrtf(total(s.of_length)) : largest * sqrtf((float)width);
  return (facts){left ? scale : 0, sqrtf(total(s.of_plain)), length, 0, 0.5f * (left ? scale : 0) * sqrtf((float)width),
                 all + more};
}
#endif

/* Write a row as cells, what is beyond the width being zero. A row that is not finite has a length that is not. grid: see
   ot_grid. */
ALWAYS facts pack_row(int64_t kind, const float *row, const float *grid, int64_t width, int is_weight, place_of_row to) {
#ifdef HAS_INT8
  if (digits_of(kind) == INT8)
    return pack_int8(row, grid + is_weight * width, grid + (2 + is_weight) * width, grid + (3 - is_weight) * width,
                     width, is_weight, to);
#endif
#ifdef HAS_BF16
  if (digits_of(kind) == BF16) return pack_bf16(row, width, to);
#endif
  (void)kind, (void)grid, (void)is_weight;
  for (int64_t i = 0; i < width; i++) memcpy(to.cells + i * to.step, row + i, 4);
  float length = sqrtf(dot(row, row, width));
  return (facts){1, length, length, 0, 0, 0};
}

/* acc = products of MR rows with a panel; of integers (weights + 128) as integers, which begin with NR others. */
ALWAYS void tile(int kind, const cell *rows, const cell *panel, int64_t depth, const int32_t *begin,
                 vf acc[MR][2]) {
  (void)kind, (void)begin;
  vf s[MR][2];
#pragma GCC unroll 12
  for (int r = 0; r < MR; r++) {
    s[r][0] = s[r][1] = (vf){0};
#ifdef HAS_INT8
    if (kind == INT8) s[r][0] = (vf)_mm512_loadu_si512(begin), s[r][1] = (vf)_mm512_loadu_si512(begin + VL);
#endif
  }
  for (int64_t q = 0; q < depth; q++) {
    vf w0 = LOAD((const float *)panel + q * NR), w1 = LOAD((const float *)panel + q * NR + VL);
#pragma GCC unroll 12
    for (int r = 0; r < MR; r++) {
      const cell *x = rows + q * MR + r;
#ifdef HAS_INT8
      if (kind == INT8) { /* by hand: compilers move the sums to and fro */
        __m512i numbers = _mm512_set1_epi32((int)*x);
        __asm__("vpdpbusd %2, %1, %0" : "+v"(s[r][0]) : "v"(w0), "v"(numbers));
        __asm__("vpdpbusd %2, %1, %0" : "+v"(s[r][1]) : "v"(w1), "v"(numbers));
        continue;
      }
#endif
#ifdef HAS_BF16
      if (kind == BF16) {
        __m512bh numbers = (__m512bh)_mm512_set1_epi32((int)*x);
        s[r][0] = (vf)_mm512_dpbf16_ps((__m512)s[r][0], numbers, (__m512bh)w0);
        s[r][1] = (vf)_mm512_dpbf16_ps((__m512)s[r][1], numbers, (__m512bh)w1);
        continue;
      }
#endif
      float number;
      memcpy(&number, x, 4);
      s[r][0] += number * w0;
      s[r][1] += number * w1;
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < MR; r++) acc[r][0] = s[r][0], acc[r][1] = s[r][1];
}

#endif
