/* The products of a sparse training step, see sparse.py. */

#include "sums.h"

/* out (rows first..last, width) = sum over each row's places of value x matrix row. The places of row r begin at
   starts[r] and end where the next row's begin, at n for the last of n_rows. */
void ot_decode(const float *values, const float *matrix, const int64_t *latents, const int64_t *starts, int64_t n_rows,
               int64_t n, int64_t first, int64_t last, int64_t width, float *out) {
  for (int64_t r = first; r < last; r++) {
    float *sum = out + r * width;
    int64_t from = starts[r], to = r + 1 < n_rows ? starts[r + 1] : n;
    SUM_ROWS(latents[j], values[j], )
  }
}

/* The n places by latent, in row order each: where they are in the list, their rows, and where each latent's begin
   (latents + 1). */
void ot_by_latent(const int64_t *latents, const int64_t *rows, int64_t n, int64_t n_latents, int32_t *order,
                  int32_t *sorted, int32_t *starts) {
  int32_t *next = starts + 1, sum = 0;
  memset(starts, 0, 4 * (size_t)(n_latents + 1));
  for (int64_t j = 0; j < n; j++) next[latents[j]]++;
  for (int64_t l = 0; l < n_latents; l++) {
    int32_t here = next[l];
    next[l] = sum, sum += here;
  }
  for (int64_t j = 0; j < n; j++) {
    int32_t at = next[latents[j]]++;
    order[at] = (int32_t)j, sorted[at] = (int32_t)rows[j];
  }
}

/* Whether ot_sum_by_latent and ot_adam_of_sums may be faster slice by slice, with so many places. */
int64_t ot_may_be_sliced(int64_t n_rows, int64_t width, int64_t places) { return may_be_sliced(n_rows, width, places); }

/* Numbers of a matrix in slices. */
int64_t ot_sliced_size(int64_t n_rows, int64_t width) { return slice_room(n_rows, width); }

/* Put rows first..last of a matrix into its slices. */
void ot_pack_slices(const float *matrix, int64_t n_rows, int64_t first, int64_t last, int64_t width, float *slices) {
  pack_slices(matrix, n_rows, first, last, width, slices);
}

/* out (latents first..last, width) = sum over each latent's places of value x matrix row of the place's row; sums
   (latents) the sum of the values alone, or null. order, rows, starts: the places by latent. n_rows: of the matrix.
   slices: those of the matrix, with which values come by latent; or null: not slice by slice. */
void ot_sum_by_latent(const float *values, const float *matrix, const int32_t *order, const int32_t *rows,
                      const int32_t *starts, int64_t n_latents, int64_t n, int64_t first, int64_t last, int64_t n_rows,
                      int64_t width, const float *slices, float *out, float *sums) {
  by_latent_of at = {rows, starts, n_latents, n};
  if (slices) sum_slices(values, &at, first, last, n_rows, width, out + first * width, slices);
  for (int64_t l = first; l < last; l++) {
    float *sum = out + l * width, all = 0;
    int64_t from = start_at(&at, l), to = start_at(&at, l + 1);
    if (!slices) {
      SUM_ROWS(rows[j], values[order[j]], )
    }
    for (int64_t j = from; j < to; j++) all += values[slices ? j : order[j]];
    if (sums) sums[l] = all;
  }
}

/* sums (latents first..last) = sum of the values of each latent's places. Returns the sum over latents of the square of
   what the length of ot_sum_by_latent's sum is at most: that of value x length of the place's row, without signs.
   ordered: these latents' values, by latent. */
double ot_weigh_by_latent(const float *values, const float *lengths, const int32_t *order, const int32_t *rows,
                          const int32_t *starts, int64_t n_latents, int64_t n, int64_t first, int64_t last, float *sums,
                          float *ordered) {
  double squares = 0;
  for (int64_t l = first; l < last; l++) {
    float all = 0;
    double most = 0;
    for (int64_t j = starts[l], to = l + 1 < n_latents ? starts[l + 1] : n; j < to; j++) {
      float value = ordered[j] = values[order[j]];
      all += value, most += fabsf(value) * lengths[rows[j]];
    }
    sums[l] = all, squares += most * most;
  }
  return squares;
}

/* out = inner products of a state with the matrix rows of its places from..to. */
static void of_places(const float *state, const float *matrix, const int64_t *latents, int64_t from, int64_t to,
                      int64_t width, float *out) {
  for (int64_t j = from; j < to; j += TOGETHER) {
    const float *rows[TOGETHER];
    int64_t here = to - j < TOGETHER ? to - j : TOGETHER;
    for (int64_t i = 0; i < here; i++) rows[i] = matrix + latents[j + i] * width;
    dots(here, state, rows, width, out + j);
  }
}

/* out (places of rows first..last) = inner product of the row's state with the matrix row of the place's latent. */
void ot_products(const float *states, const float *matrix, const int64_t *latents, const int64_t *starts,
                 int64_t n_rows, int64_t n, int64_t first, int64_t last, int64_t width, float *out) {
  for (int64_t r = first; r < last; r++) {
    int64_t to = r + 1 < n_rows ? starts[r + 1] : n;
    of_places(states + r * width, matrix, latents, starts[r], to, width, out);
  }
}

#define ADDED 64 /* rows whose sums are added up before they join those of all */

/* missed (rows first..last, width) = by how much what ot_decode makes, plus constants that lie `stride` apart (0: one for
   all rows), is above the target; squares (rows) = the sums of its squares; products (places) = those with
   the matrix rows, which are near; columns (2, width): its sums over these rows, and working memory. */
void ot_towards(const float *values, const float *matrix, const int64_t *latents, const int64_t *starts,
                int64_t n_rows, int64_t n, int64_t first, int64_t last, int64_t width, const float *constant,
                int64_t stride, const float *target, float *missed, float *squares, float *products,
                float *columns) {
  float *some = columns + width;
  memset(columns, 0, 8 * (size_t)width);
  for (int64_t r = first; r < last; r++) {
    float *beyond = missed + r * width;
    const float *more = constant + r * stride, *aim = target + r * width;
    int64_t to = r + 1 < n_rows ? starts[r + 1] : n;
    ot_decode(values, matrix, latents, starts, n_rows, n, r, r + 1, width, missed);
    for (int64_t i = 0; i < width; i++) beyond[i] += more[i] - aim[i];
    squares[r] = dot(beyond, beyond, width);
    of_places(beyond, matrix, latents, starts[r], to, width, products);
    for (int64_t i = 0; i < width; i++) some[i] += beyond[i];
    if ((r - first) % ADDED < ADDED - 1 && r + 1 < last) continue;
    for (int64_t i = 0; i < width; i++) columns[i] += some[i], some[i] = 0;
  }
}
