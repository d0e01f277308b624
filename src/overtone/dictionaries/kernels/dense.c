/* Dense float32 products in C: plain pointers, no headers but the standard ones, no state, no threads of its own.

   out (m, n) = or += a b^T with a (m, k) and b (n, k), each with any strides, so that transposes need no copy. A tile of
   MR x NR sums stays in registers; what it reads was packed into the order in which it is read: DEPTH x WIDE numbers of
   b, which stay in the second-level cache, and a few tiles' worth of rows of a. Each number is the sum over k in one
   order, whatever the sizes and however callers split m and n: threads do not change results. */

#include "amx.h"

#define DEPTH 256     /* numbers that are summed before a tile is written */
#define WIDE 512      /* columns whose numbers are packed together: a multiple of NR */
#define TALL (8 * MR) /* rows that are packed together: where a is transposed they share cache lines */

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
static inline void put(vf (*sums)[2], float *out, int64_t step, int64_t rows, int64_t columns, int add) {
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

#ifdef HAS_AMX
/* By matrix registers: a number is the sum of three bf16 numbers, h + m + l, each of which has the next eight binary
   digits and a sign, so that nothing is lost; the products hh, hm, mh, hl, mm and lh, summed in float32, leave out 2^-24
   of each product at most (of numbers below 1e-33 the last digits are lost). Planes: 16 rows x 32 numbers of each of the
   three, for two groups of 16 rows or columns. */
#define STEP 32 /* numbers along k in a register */
#define PLANES 3
#define BLOCK_OF (PLANES * 2 * 16 * STEP) /* numbers of a step */
#define AMX_TALL 64 /* rows, numbers along k and columns that are split together: those of the columns stay in the cache */
#define AMX_DEPTH 512
#define AMX_WIDE 256

/* The next bf16 of 32 numbers, which lose it. What is not finite becomes NaN. */
ALWAYS __m512i next_parts(__m512 *low, __m512 *high) {
  __m512i parts = (__m512i)_mm512_cvtne2ps_pbh(*high, *low);
  __m512i of_low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(parts));
  __m512i of_high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(parts, 1));
  *low = _mm512_sub_ps(*low, (__m512)_mm512_slli_epi32(of_low, 16));
  *high = _mm512_sub_ps(*high, (__m512)_mm512_slli_epi32(of_high, 16));
  return parts;
}

/* Planes of GROUP rows of `given` numbers, `stride` apart, with zeros up to `depth`, a multiple of STEP, and beyond
   `live`. */
static void split_rows(const float *rows, int64_t stride, int64_t live, int64_t depth, int64_t given, uint16_t *to) {
  for (int64_t r = 0; r < GROUP; r++)
    for (int64_t q = 0; q < depth; q += STEP) {
      int64_t left = r < live ? given - q : 0;
      const float *row = rows + r * stride + q;
      __m512 a = _mm512_maskz_loadu_ps(lanes(left), row), b = _mm512_maskz_loadu_ps(lanes(left - 16), row + 16);
      uint16_t *out = to + q / STEP * BLOCK_OF + r * STEP;
      for (int p = 0; p < PLANES; p++) _mm512_store_si512(out + p * 2 * 16 * STEP, next_parts(&a, &b));
    }
}

/* Planes of a panel that `pack` made: NR columns, of which two numbers that follow each other are side by side. */
static void split_panel(const float *panel, int64_t depth, int64_t given, uint16_t *to) {
  uint16_t order[32];
  for (int i = 0; i < 32; i++) order[i] = (uint16_t)(i / 2 + i % 2 * 16);
  __m512i pairs = _mm512_loadu_si512(order);
  for (int64_t q = 0; q < depth; q += 2)
    for (int64_t h = 0; h < 2; h++) {
      const float *at = panel + q * NR + h * 16;
      __m512 a = _mm512_maskz_loadu_ps(lanes(q < given ? 16 : 0), at);
      __m512 b = _mm512_maskz_loadu_ps(lanes(q + 1 < given ? 16 : 0), at + NR);
      uint16_t *out = to + q / STEP * BLOCK_OF + h * 16 * STEP + q % STEP * 16;
      for (int p = 0; p < PLANES; p++)
        _mm512_store_si512(out + p * 2 * 16 * STEP, _mm512_permutexvar_epi16(pairs, next_parts(&a, &b)));
    }
}

/* `tall` rows of `depth` numbers side by side, AMX_DEPTH apart, of a matrix with any strides. */
static void turn(const float *matrix, int64_t by_row, int64_t by_column, int64_t tall, int64_t depth, float *to) {
  int64_t turned = by_row == 1 ? depth / 16 * 16 : 0, whole = tall / 16 * 16;
  for (int64_t q = 0; q < turned; q += 16)
    for (int64_t r = 0; r < whole; r += 16)
      transpose16(matrix + r + q * by_column, by_column, 16, to + r * AMX_DEPTH + q, AMX_DEPTH, 16);
  for (int64_t r = 0; r < tall; r++)
    for (int64_t q = r < whole ? turned : 0; q < depth; q++)
      to[r * AMX_DEPTH + q] = matrix[r * by_row + q * by_column];
}

/* acc = products of GROUP rows with a panel. */
static void amx_tile_of_planes(const uint16_t *rows, const uint16_t *panel, int64_t depth, vf acc[GROUP][2]) {
#define LOAD_ROWS(plane) \
  _tile_loadd(4, a + (plane) * 2 * 16 * STEP, 64); \
  _tile_loadd(5, a + ((plane) * 2 + 1) * 16 * STEP, 64)
#define LOAD_PANEL(plane) \
  _tile_loadd(6, b + (plane) * 2 * 16 * STEP, 64); \
  _tile_loadd(7, b + ((plane) * 2 + 1) * 16 * STEP, 64)
#define MULTIPLY \
  _tile_dpbf16ps(0, 4, 6); \
  _tile_dpbf16ps(1, 4, 7); \
  _tile_dpbf16ps(2, 5, 6); \
  _tile_dpbf16ps(3, 5, 7)
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t q = 0; q < depth; q += STEP) {
    const uint16_t *a = rows + q / STEP * BLOCK_OF, *b = panel + q / STEP * BLOCK_OF;
    LOAD_PANEL(0);
    LOAD_ROWS(2);
    MULTIPLY;
    LOAD_ROWS(1);
    MULTIPLY;
    LOAD_PANEL(1);
    MULTIPLY;
    LOAD_ROWS(0);
    MULTIPLY;
    LOAD_PANEL(2);
    MULTIPLY;
    LOAD_PANEL(0);
    MULTIPLY;
  }
  amx_store(acc);
}

/* As ot_product. */
static int64_t amx_product(const float *a, int64_t a_row, int64_t a_column, const float *b, int64_t b_row,
                           int64_t b_column, int64_t m, int64_t n, int64_t k, float *out, int64_t step, int64_t add) {
  size_t planes = 2 * (size_t)PLANES * AMX_DEPTH;
  uint16_t *split_a = aligned_alloc(64, AMX_TALL * planes), *split_b = aligned_alloc(64, AMX_WIDE * planes);
  float *turned = aligned_alloc(64, 4 * (size_t)(AMX_TALL * AMX_DEPTH));
  shapes before;
  if (!split_a || !split_b || !turned) {
    free(split_a), free(split_b), free(turned);
    return -1;
  }
  amx_begin(&before);
  for (int64_t from = 0; from < k; from += AMX_DEPTH) {
    int64_t given = k - from < AMX_DEPTH ? k - from : AMX_DEPTH, depth = (given + STEP - 1) / STEP * STEP;
    for (int64_t left = 0; left < n; left += AMX_WIDE) {
      int64_t wide = n - left < AMX_WIDE ? n - left : AMX_WIDE;
      for (int64_t c = 0; c < wide; c += NR) {
        pack(b, b_row, b_column, left + c, wide - c < NR ? wide - c : NR, from, given, NR, turned);
        split_panel(turned, depth, given, split_b + c * PLANES * depth);
      }
      for (int64_t top = 0; top < m; top += AMX_TALL) {
        int64_t tall = m - top < AMX_TALL ? m - top : AMX_TALL;
        const float *rows = a + top * a_row + from * a_column;
        int64_t stride = a_row;
        if (a_column != 1) turn(rows, a_row, a_column, tall, given, turned), rows = turned, stride = AMX_DEPTH;
        for (int64_t r = 0; r < tall; r += GROUP)
          split_rows(rows + r * stride, stride, tall - r, depth, given, split_a + r * PLANES * depth);
        for (int64_t c = 0; c < wide; c += NR)
          for (int64_t r = 0; r < tall; r += GROUP) {
            vf sums[GROUP][2];
            amx_tile_of_planes(split_a + r * PLANES * depth, split_b + c * PLANES * depth, depth, sums);
            put(sums, out + (top + r) * step + left + c, step, tall - r < GROUP ? tall - r : GROUP,
                wide - c < NR ? wide - c : NR, add || from);
          }
      }
    }
  }
  amx_end(&before);
  free(split_a), free(split_b), free(turned);
  return 0;
}
#endif

/* out (m, n), rows `step` apart, = a b^T, or += if `add`. Strides of a and b are given by row and by column. kind: AMX if
   matrix registers may be used, else 0. Returns 0, or -1 without memory. */
int64_t ot_product(const float *a, int64_t a_row, int64_t a_column, const float *b, int64_t b_row, int64_t b_column,
                   int64_t m, int64_t n, int64_t k, float *out, int64_t step, int64_t add, int64_t kind) {
#ifdef HAS_AMX
  if (kind & AMX) return amx_product(a, a_row, a_column, b, b_row, b_column, m, n, k, out, step, add);
#endif
  (void)kind;
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
