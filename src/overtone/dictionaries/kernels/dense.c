/* Dense float32 products in C: plain pointers, no headers but the standard ones, no state, no threads of its own.

   out (m, n) = or += a b^T with a (m, k) and b (n, k), each with any strides, so that transposes need no copy. A tile of
   MR x NR sums stays in registers; what it reads was packed into the order in which it is read: DEPTH x WIDE numbers of
   b, which stay in the second-level cache, and a few tiles' worth of rows of a. Each number is the sum over k in one
   order, whatever the sizes and however callers split m and n: threads do not change results. */

#include "tiles.h"

#define DEPTH 256     /* numbers that are summed before a tile is written */
#define WIDE 512      /* columns whose numbers are packed together: a multiple of NR */
#define TALL (8 * MR) /* rows that are packed together: where a is transposed they share cache lines */

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

/* Pack `count` rows of a matrix, from `first` on, `depth` numbers of each from `from` on, into panels of `group` rows:
   to[panel][q][row]. Missing rows are 0. */
static void pack(const float *matrix, int64_t by_row, int64_t by_column, int64_t first, int64_t count, int64_t from,
                 int64_t depth, int64_t group, float *to) {
  const float *start = matrix + first * by_row + from * by_column;
  if (by_row == 1 && by_column != 1) { /* rows beside each other: all panels get their part of each column */
    for (int64_t q = 0; q < depth; q++)
      for (int64_t r = 0; r < count; r += group) {
        float *cells = to + r * depth + q * group;
        const float *column = start + q * by_column + r;
        int64_t live = count - r < group ? count - r : group;
        if (live == NR)
          memcpy(cells, column, 4 * NR);
        else if (live == MR && group == MR)
          memcpy(cells, column, 4 * MR);
        else
          for (int64_t i = 0; i < group; i++) cells[i] = i < live ? column[i] : 0;
      }
    return;
  }
  for (int64_t r = 0; r < count; r += group) {
    float *cells = to + r * depth;
    const float *rows = start + r * by_row;
    int64_t live = count - r < group ? count - r : group, q = 0;
#if defined(__AVX512F__)
    if (by_column == 1)
      for (; q + 16 <= depth; q += 16)
        for (int64_t i = 0; i < group; i += 16)
          transpose16(rows + i * by_row + q, by_row, live - i, cells + q * group + i, group, group - i);
#endif
    for (; q < depth; q++)
      for (int64_t i = 0; i < group; i++) cells[q * group + i] = i < live ? rows[i * by_row + q * by_column] : 0;
  }
}

/* Write a tile, or add it, where `rows` x `columns` of it lie inside of the result. */
static inline void put(vf sums[MR][2], float *out, int64_t step, int64_t rows, int64_t columns, int add) {
  if (columns == NR) {
    for (int64_t r = 0; r < rows; r++) {
      float *to = out + r * step;
      STORE(to, add ? LOAD(to) + sums[r][0] : sums[r][0]);
      STORE(to + VL, add ? LOAD(to + VL) + sums[r][1] : sums[r][1]);
    }
    return;
  }
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < columns; c++) {
      float sum = c < VL ? sums[r][0][c] : sums[r][1][c - VL];
      out[r * step + c] = add ? out[r * step + c] + sum : sum;
    }
}

/* out (m, n), rows `step` apart, = a b^T, or += if `add`. Strides of a and b are given by row and by column. Returns 0,
   or -1 without memory. */
int64_t ot_product(const float *a, int64_t a_row, int64_t a_column, const float *b, int64_t b_row, int64_t b_column,
                   int64_t m, int64_t n, int64_t k, float *out, int64_t step, int64_t add) {
  float *packed_a = aligned_alloc(64, 4 * (size_t)(TALL * DEPTH)),
        *packed_b = aligned_alloc(64, 4 * (size_t)(WIDE * DEPTH));
  if (!packed_a || !packed_b) {
    free(packed_a), free(packed_b);
    return -1;
  }
  for (int64_t from = 0; from < k; from += DEPTH) {
    int64_t depth = k - from < DEPTH ? k - from : DEPTH;
    for (int64_t left = 0; left < n; left += WIDE) {
      int64_t wide = n - left < WIDE ? n - left : WIDE;
      pack(b, b_row, b_column, left, wide, from, depth, NR, packed_b);
      for (int64_t top = 0; top < m; top += TALL) {
        int64_t tall = m - top < TALL ? m - top : TALL;
        pack(a, a_row, a_column, top, tall, from, depth, MR, packed_a);
        for (int64_t r = 0; r < tall; r += MR)
          for (int64_t c = 0; c < wide; c += NR) {
            vf sums[MR][2];
            tile(SINGLE, (const cell *)(packed_a + r * depth), (const cell *)(packed_b + c * depth), depth, NULL, sums);
            put(sums, out + (top + r) * step + left + c, step, tall - r < MR ? tall - r : MR,
                wide - c < NR ? wide - c : NR, add || from);
          }
      }
    }
  }
  free(packed_a), free(packed_b);
  return 0;
}
