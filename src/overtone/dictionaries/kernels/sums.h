/* Sums of the rows of a matrix, each times a value. */

#ifndef SUMS_H
#define SUMS_H

#include <unistd.h>

#include "vectors.h"

#define CHUNK 16 /* vectors of a sum that stay in registers */

/* sum (width) = sum over the places from..to of value x the matrix row of the place; INDEX and VALUE name those of
   place j, ASK is done width / (CHUNK * VL) times for each. */
#define SUM_ROWS(INDEX, VALUE, ASK)                                                                                 \
  int64_t i = 0;                                                                                                    \
  for (; i + CHUNK * VL <= width; i += CHUNK * VL) {                                                                \
    vf s[CHUNK];                                                                                                    \
    _Pragma("GCC unroll 16") for (int c = 0; c < CHUNK; c++) s[c] = (vf){0};                                        \
    for (int64_t j = from; j < to; j++) {                                                                           \
      const float *row = matrix + (int64_t)(INDEX) * width + i;                                                     \
      float v = (VALUE);                                                                                            \
      ASK;                                                                                                          \
      _Pragma("GCC unroll 16") for (int c = 0; c < CHUNK; c++) s[c] += v * LOAD(row + c * VL);                      \
    }                                                                                                               \
    _Pragma("GCC unroll 16") for (int c = 0; c < CHUNK; c++) STORE(sum + i + c * VL, s[c]);                         \
  }                                                                                                                 \
  for (; i + VL <= width; i += VL) {                                                                                \
    vf s = {0};                                                                                                     \
    for (int64_t j = from; j < to; j++) s += (VALUE) * LOAD(matrix + (int64_t)(INDEX) * width + i);                 \
    STORE(sum + i, s);                                                                                              \
  }                                                                                                                 \
  if (i < width) {                                                                                                  \
    vf s = {0};                                                                                                     \
    for (int64_t j = from; j < to; j++)                                                                             \
      s += (VALUE) * some(matrix + (int64_t)(INDEX) * width + i, width - i);                                        \
    memcpy(sum + i, &s, 4 * (size_t)(width - i));                                                                   \
  }

#define SLICE 64 /* columns of a matrix that are packed together, where rows are taken from it in any order */

typedef struct { /* places by latent: rows of the matrix, where each latent's begin */
  const int32_t *rows, *starts;
  int64_t n_latents, n;
} by_latent_of;

static inline int64_t start_at(const by_latent_of *at, int64_t latent) {
  return latent < at->n_latents ? at->starts[latent] : at->n;
}

/* Bytes of the second cache, 0 if not known. */
static inline int64_t second_cache(void) {
#if defined(SECOND_CACHE)
  return SECOND_CACHE;
#elif defined(_SC_LEVEL2_CACHE_SIZE)
  return sysconf(_SC_LEVEL2_CACHE_SIZE);
#else
  return 0;
#endif
}

/* Whether sums by latent may be faster slice by slice: one fits the second cache, the matrix does not, and each row is
   taken from it often. */
static inline int may_be_sliced(int64_t n_rows, int64_t width, int64_t places) {
  int64_t cache = second_cache();
  return n_rows * SLICE * 4 <= cache && n_rows * width * 4 > cache && places >= 8 * n_rows;
}

static inline int64_t slices_of(int64_t width) { return (width + SLICE - 1) / SLICE; }

/* Numbers of working memory for that. */
static inline int64_t slice_room(int64_t n_rows, int64_t width) { return n_rows * slices_of(width) * SLICE; }

/* Put rows first..last of a matrix slice by slice into memory of slice_room, what is beyond its width being 0. */
static void pack_slices(const float *matrix, int64_t n_rows, int64_t first, int64_t last, int64_t width,
                        float *slices) {
  for (int64_t r = first; r < last; r++)
    for (int64_t i = 0; i < width; i += SLICE) {
      int64_t columns = width - i < SLICE ? width - i : SLICE;
      float *to = slices + (i * n_rows + r * SLICE);
      memcpy(to, matrix + r * width + i, 4 * (size_t)columns);
      memset(to + columns, 0, 4 * (size_t)(SLICE - columns));
    }
}

/* out (latents first..last) = the sums that SUM_ROWS makes, number for number, slice by slice. values: by latent, as the
   places are; slices: what pack_slices made. */
static void sum_slices(const float *values, const by_latent_of *at, int64_t first, int64_t last, int64_t n_rows,
                       int64_t width, float *out, const float *slices) {
  for (int64_t i = 0; i < width; i += SLICE) {
    const float *slice = slices + i * n_rows;
    int64_t columns = width - i < SLICE ? width - i : SLICE;
    for (int64_t l = first; l < last; l++) {
      float part[SLICE], *to = columns == SLICE ? out + (l - first) * width + i : part;
      vf s[SLICE / VL];
#pragma GCC unroll 16
      for (int c = 0; c < SLICE / VL; c++) s[c] = (vf){0};
      for (int64_t j = at->starts[l], stop = start_at(at, l + 1); j < stop; j++) {
        const float *row = slice + (int64_t)at->rows[j] * SLICE;
        float v = values[j];
#pragma GCC unroll 16
        for (int c = 0; c < SLICE / VL; c++) s[c] += v * LOAD(row + c * VL);
      }
#pragma GCC unroll 16
      for (int c = 0; c < SLICE / VL; c++) STORE(to + c * VL, s[c]);
      if (to == part) memcpy(out + (l - first) * width + i, part, 4 * (size_t)columns);
    }
  }
}

#endif
