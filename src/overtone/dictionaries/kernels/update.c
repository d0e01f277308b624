/* What follows the gradients in a training step, with as few passes over memory as there can be, see update.py. */

#include "sums.h"

#define BLOCK 4096 /* squares that are added up in float32 */

/* Ask for the row that lies AHEAD of this one. */
static inline void approach(const float *row, int64_t width) {
  for (int64_t i = 0; i < width; i += 16) __builtin_prefetch(row + AHEAD + i);
}

/* The sum of the squares of n numbers. */
double ot_squares(const float *numbers, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i += BLOCK) {
    const float *block = numbers + i;
    sum += dot(block, block, n - i < BLOCK ? n - i : BLOCK);
  }
  return sum;
}

/* along (rows first..last) = how far gradients lie along the rows of a matrix, which are of length one. Returns the sum
   of the squares of what is left without that. */
double ot_along(const float *grads, const float *matrix, int64_t first, int64_t last, int64_t width, float *along) {
  double sum = 0;
  for (int64_t r = first; r < last; r++) {
    const float *grad = grads + r * width, *row = matrix + r * width;
    approach(grad, width), approach(row, width);
    float much = along[r] = dot(grad, row, width);
    vf squares = {0};
    for (int64_t i = 0; i < width; i += VL) {
      vf left = some(grad + i, width - i) - much * some(row + i, width - i);
      squares += left * left;
    }
    sum += total(squares);
  }
  return sum;
}

typedef struct { /* Adam's: factor of gradients, shares of new ones, learning rate over the mean's correction, one over
                    the square root of the square's */
  float factor, new1, old2, new2, step, back, least;
} rates;

/* One update of n numbers, whose gradients first lose `along` times these numbers. */
static inline __attribute__((always_inline)) void renew(float *restrict p, const float *restrict grad,
                                                        float *restrict mean, float *restrict square, int64_t n,
                                                        float along, rates a) {
  for (int64_t i = 0; i < n; i++) {
    float g = (grad[i] - along * p[i]) * a.factor;
    mean[i] += a.new1 * (g - mean[i]);
    square[i] = a.old2 * square[i] + a.new2 * g * g;
    p[i] -= a.step * mean[i] / (sqrtf(square[i]) * a.back + a.least);
  }
}

/* Returns the square of the length that the row has then. */
static inline float to_length_one(float *row, int64_t width, float least) {
  float square = dot(row, row, width), scale = 1 / fmaxf(sqrtf(square), least);
  for (int64_t i = 0; i < width; i++) row[i] *= scale;
  return square * scale * scale;
}

/* Rows first..last of a matrix get length one; those shorter than `least` are divided by that. */
void ot_to_length_one(float *matrix, int64_t first, int64_t last, int64_t width, float least) {
  for (int64_t r = first; r < last; r++) to_length_one(matrix + r * width, width, least);
}

/* Adam on rows first..last. along: what ot_along found, for rows that are to stay at length one; else null. */
void ot_adam(float *p, const float *grad, float *mean, float *square, int64_t first, int64_t last, int64_t width,
             const float *along, float least, double factor, double beta1, double beta2, double size, double root,
             double epsilon) {
  rates a = {(float)factor, (float)(1 - beta1), (float)beta2, (float)(1 - beta2), (float)size, (float)(1 / root),
             (float)epsilon};
  int64_t from = first * width;
  if (!along) renew(p + from, grad + from, mean + from, square + from, (last - first) * width, 0, a);
  for (int64_t r = first; along && r < last; r++) {
    from = r * width;
    approach(p + from, width), approach(grad + from, width), approach(mean + from, width);
    approach(square + from, width);
    renew(p + from, grad + from, mean + from, square + from, width, along[r], a);
    to_length_one(p + from, width, least);
  }
}

typedef struct { /* three rows that will be needed, and how much of them was asked for */
  const float *rows[3];
  int64_t width, asked;
} wish;

/* Ask for a little more of them: all at once would hold up everything else. */
static inline void ask(wish *w) {
  for (int i = 0; i < 3; i++) __builtin_prefetch(w->rows[i] + w->asked);
  w->asked = w->asked + 16 < w->width ? w->asked + 16 : 0;
}

#ifndef TOGETHER_LATENTS
#define TOGETHER_LATENTS (1 << 20) /* numbers of sums that are made before they are used, where slice by slice is faster */
#endif

static inline int64_t together(int64_t latents, int64_t width) {
  int64_t most = TOGETHER_LATENTS / width + 1;
  return latents < most ? latents : most;
}

/* Numbers of working memory of ot_adam_of_sums for so many latents. */
int64_t ot_adam_room(int64_t width, int64_t latents, int64_t by_slice) {
  return by_slice ? together(latents, width) * width : width;
}

/* ot_adam on latents first..last with the gradients that ot_sum_by_latent would make, each of which is used as soon as it
   is made. more: rows that are added to those of latents l with where[l] >= 0, or null. unit: whether rows stay at
   length one. room: of ot_adam_room. slices: those of the matrix, with which sums are made slice by slice, some latents'
   together, and values come by latent; or null. Returns the sum of the squares of unit rows as they are then. */
double ot_adam_of_sums(float *p, float *mean, float *square, const float *values, const float *matrix,
                       const int32_t *order, const int32_t *rows, const int32_t *starts, int64_t n_latents, int64_t n,
                       int64_t first, int64_t last, int64_t n_rows, int64_t width, const float *more,
                       const int32_t *where, int64_t unit, float *room, const float *slices, float least,
                       double beta1, double beta2, double size, double root, double epsilon) {
  double squares = 0;
  rates a = {1, (float)(1 - beta1), (float)beta2, (float)(1 - beta2), (float)size, (float)(1 / root), (float)epsilon};
  by_latent_of at = {rows, starts, n_latents, n};
  int64_t group = slices ? together(last - first, width) : 1;
  for (int64_t l = first; l < last; l++) {
    int64_t here = l * width, next = here + 2 * width, from = start_at(&at, l), to = start_at(&at, l + 1);
    float *sum = room + (l - first) % group * width;
    wish w = {{p + next, mean + next, square + next}, width, 0};
    if (slices) {
      int64_t end = last - l < group ? last : l + group;
      if (sum == room) sum_slices(values, &at, l, end, n_rows, width, room, slices);
      for (int64_t i = 0; i < width; i += 16) ask(&w);
    } else {
      SUM_ROWS(rows[j], values[order[j]], ask(&w))
      for (i = (to - from) * (width / (CHUNK * VL)) * 16; i < width; i += 16) ask(&w);
    }
    for (int64_t i = 0; more && where[l] >= 0 && i < width; i++) sum[i] += more[(int64_t)where[l] * width + i];
    renew(p + here, sum, mean + here, square + here, width, unit ? dot(sum, p + here, width) : 0, a);
    if (unit) squares += to_length_one(p + here, width, least);
  }
  return squares;
}
