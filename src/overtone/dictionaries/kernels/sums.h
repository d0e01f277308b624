/* Sums of the rows of a matrix, each times a value. */

#ifndef SUMS_H
#define SUMS_H

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
  for (; i < width; i++) {                                                                                          \
    float s = 0;                                                                                                    \
    for (int64_t j = from; j < to; j++) s += (VALUE) * matrix[(int64_t)(INDEX) * width + i];                        \
    sum[i] = s;                                                                                                     \
  }

#endif
