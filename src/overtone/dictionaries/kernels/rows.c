/* Passes over rows of states before they are encoded, see native_rows.py. */

#include "vectors.h"

/* Write a vector of what is not needed soon: past the caches, where it lies so that this is possible. */
static inline void put(float *to, vf numbers, int past) {
#if defined(__AVX512F__)
  if (past) {
    _mm512_stream_ps(to, (__m512)numbers);
    return;
  }
#endif
  (void)past;
  STORE(to, numbers);
}

/* Rows first <= r < last: inputs (rows, width) = x times a factor; centred = that less the centre (width). */
void ot_in_units(const float *x, float factor, const float *centre, int64_t first, int64_t last, int64_t width,
                 float *inputs, float *centred) {
  int past = ((uintptr_t)inputs | (uintptr_t)centred | (uintptr_t)(4 * width)) % 64 == 0;
  for (int64_t r = first * width; r < last * width; r += width) {
    int64_t i = 0;
    for (; i + VL <= width; i += VL) {
      vf numbers = LOAD(x + r + i) * factor;
      put(inputs + r + i, numbers, past);
      put(centred + r + i, numbers - LOAD(centre + i), past);
    }
    for (; i < width; i++) inputs[r + i] = x[r + i] * factor, centred[r + i] = inputs[r + i] - centre[i];
  }
#if defined(__AVX512F__)
  _mm_sfence(); /* other threads may read it */
#endif
}

/* Rows first <= r < last: out (rows, width) = x brought to a length; own (rows) = the lengths that these had. */
void ot_of_length(const float *x, float length, int64_t first, int64_t last, int64_t width, float *restrict out,
                  float *own) {
  for (int64_t r = first; r < last; r++) {
    const float *row = x + r * width;
    own[r] = sqrtf(dot(row, row, width));
    float factor = length / own[r];
    for (int64_t i = 0; i < width; i++) out[r * width + i] = row[i] * factor;
  }
}
