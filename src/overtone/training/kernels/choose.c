/* The encoder's product and the selection in one pass.

   The product is computed in tiles that stay in registers; a row keeps a short list of what may be chosen; no (rows,
   latents) matrix exists. In bf16 and int8 the product only nominates:
       |<x,w> - <x',w'>| <= |x - x'| |w| + |x'| |w - w'| + rounding of the sums,       x', w' the rounded vectors,
   bounds each score from above. What may exceed the row's k-th best score so far (or the floor) is at once scored in
   float32, while its weights are near, and so the choice is exact: nothing is missed on any data, bad data only take
   longer. How many scores that took is counted. */

#include "tiles.h"

/* Which kinds of nomination this library has: 1, plus 2 for bf16, plus 4 for int8. And the level of its vectors. */
int64_t ot_kinds(void) {
  int64_t kinds = 1;
#ifdef HAS_BF16
  kinds += 2;
#endif
#ifdef HAS_INT8
  kinds += 4;
#endif
  return kinds;
}

int64_t ot_level(void) {
#if defined(__AVX512F__)
  return 2;
#elif defined(__AVX2__) && defined(__FMA__)
  return 1;
#else
  return 0;
#endif
}

static int64_t panels_of(int64_t latents) { return (latents + NR - 1) / NR; }

/* Size of the packed weights in bytes, their number of panels, and the padded number of latents. */
int64_t ot_packed_bytes(int64_t kind, int64_t latents, int64_t width) {
  return panels_of(latents) * depth_of(kind, width) * NR * (int64_t)sizeof(cell);
}
int64_t ot_panels(int64_t latents) { return panels_of(latents); }
int64_t ot_padded(int64_t latents) { return panels_of(latents) * NR; }

#define SAMPLED 256 /* rows that stand for all */

/* factors (width): powers of two by which states are multiplied and weights divided for int8, so that a coordinate is of
   about the same size in both. Whatever they are, the choice is the same. squares: 2 x width of working memory. */
void ot_balance(const float *x, int64_t rows, const float *weight, int64_t latents, int64_t width, float *factors,
                float *inverse, float *squares) {
  memset(squares, 0, 8 * (size_t)width);
  for (int side = 0; side < 2; side++) {
    int64_t n = side ? latents : rows, step = n > SAMPLED ? n / SAMPLED : 1;
    for (int64_t r = 0; r < n; r += step) {
      const float *row = (side ? weight : x) + r * width;
      for (int64_t i = 0; i < width; i++) squares[side * width + i] += row[i] * row[i];
    }
  }
  for (int64_t i = 0; i < width; i++) {
    float ratio = squares[width + i] / squares[i]; /* its fourth root brings both to the same size */
    float power = ratio > 0 && ratio < INFINITY ? rintf(0.25f * log2f(ratio)) : 0;
    power = power > 20 ? 20 : power < -20 ? -20 : power;
    factors[i] = exp2f(power), inverse[i] = exp2f(-power);
  }
}

/* Pack the weights' panels first <= p < last. norms (3, padded latents): scale of each row, its length and its rounding
   error, 0 where none is. */
void ot_pack(int64_t kind, const float *weight, int64_t latents, int64_t width, const float *factors, int64_t first,
             int64_t last, void *packed, float *norms) {
  int64_t depth = depth_of(kind, width), padded = ot_padded(latents);
  for (int64_t p = first; p < last; p++) {
    cell *panel = (cell *)packed + p * depth * NR;
    for (int64_t j = 0; j < NR; j++) {
      int64_t i = p * NR + j;
      norms[i] = norms[padded + i] = norms[2 * padded + i] = 0;
      if (i >= latents) {
        for (int64_t q = 0; q < depth; q++) panel[q * NR + j] = 0;
        continue;
      }
      facts found = pack_row(kind, weight + i * width, factors, width, 0x80808080u, panel + j, NR);
      norms[i] = found.scale, norms[padded + i] = found.length, norms[2 * padded + i] = found.error;
    }
  }
}

/* ------------------------------------------------------------------------------------------------------- selection */

typedef struct { /* what is the same for all rows */
  const float *x, *weight, *bias, *shift, *norms;
  const cell *packed;
  const float *factors;
  int64_t width, latents, padded, k, room;
  float floor;
  int kind, two_sided;
} problem;

typedef struct { /* one row's list, in the order of its latents, with shifted pre-activations */
  float *value;
  int32_t *latent;
  int64_t n;
  float length; /* of the state */
  int full;     /* whether there was not enough room */
} list;

typedef struct { /* working memory for one block of rows */
  cell *cells;
  list *lists;
  float *values, *bias, *work, *states;
  float *scale, *of_length, *of_error; /* by row: factors of its products and of their bounds */
  float *least, *limit; /* what scores must exceed; the same less a margin for the rounding of sums with biases */
  int32_t *sum, *latents, *keys;
  uint32_t *marks; /* by row: which latents of a panel may exceed the limit */
  float *scores;   /* (rows, NR) of a panel, where they are exact */
  int32_t *marked; /* rows of one latent, and what they scored */
  float *found, margin;
  int64_t *again, n_again; /* rows that are put off */
  int64_t n_scored;
} scratch;

static inline float sided(const problem *p, float v) { return p->two_sided ? fabsf(v) : v; }

/* The k-th largest of n numbers, bit by bit: floats order like integers once negative ones are turned over. `keys` holds
   n. */
static float kth_largest(const float *values, int64_t n, int64_t k, int two_sided, int32_t *keys) {
  for (int64_t i = 0; i < n; i++) {
    int32_t bits;
    memcpy(&bits, values + i, 4);
    bits = two_sided ? bits & 0x7FFFFFFF : bits;
    keys[i] = bits ^ ((bits >> 31) & 0x7FFFFFFF);
  }
  int64_t found = INT32_MIN;
  for (int64_t step = 1ll << 31; step; step >>= 1) {
    int64_t tried = found + step;
    if (tried > INT32_MAX) continue;
    int32_t at = (int32_t)tried, count = 0;
    for (int64_t i = 0; i < n; i++) count += keys[i] >= at;
    if (count >= k) found = tried;
  }
  int32_t bits = (int32_t)found ^ (((int32_t)found >> 31) & 0x7FFFFFFF);
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

/* Cut a list to its k best; equal scores go to earlier latents. Returns the k-th score. */
static float cut(const problem *p, list *l, int32_t *keys) {
  float least = kth_largest(l->value, l->n, p->k, p->two_sided, keys);
  int64_t ties = p->k, kept = 0;
  for (int64_t i = 0; i < l->n; i++) ties -= sided(p, l->value[i]) > least;
  for (int64_t i = 0; i < l->n; i++) {
    float score = sided(p, l->value[i]);
    int tie = score == least && ties > 0;
    ties -= tie;
    l->value[kept] = l->value[i], l->latent[kept] = l->latent[i];
    kept += tie || score > least;
  }
  l->n = kept;
  return least;
}

/* Shifted pre-activations of a latent for some rows of x in float32. Whatever is asked for together, each is summed
   alike. */
static inline void exact(const problem *p, const float *x, const int32_t *rows, int64_t n, int64_t latent, float *out) {
  const float *states[TOGETHER], *weights = p->weight + latent * p->width;
  for (int64_t i = 0; i < n; i += TOGETHER) {
    int64_t here = n - i < TOGETHER ? n - i : TOGETHER;
    for (int64_t j = 0; j < here; j++) states[j] = x + rows[i + j] * p->width;
    dots(here, weights, states, p->width, out + i);
  }
  for (int64_t i = 0; i < n; i++) {
    out[i] += p->bias[latent];
    if (p->shift) out[i] -= p->shift[latent];
  }
}

/* Mark which of a row's scores with a panel may exceed its limit. */
ALWAYS void sift(int kind, const problem *p, scratch *s, int64_t row, int64_t first, vf v0, vf v1) {
#if defined(__AVX512F__)
  __m512 limit = _mm512_set1_ps(s->limit[row]), u[2] = {(__m512)v0, (__m512)v1};
  __mmask16 m[2];
#pragma GCC unroll 2
  for (int h = 0; h < 2; h++) {
    const float *norms = p->norms + first + h * VL;
    if (kind == INT8) {
      __m512 product = _mm512_cvtepi32_ps(_mm512_sub_epi32((__m512i)u[h], _mm512_set1_epi32(s->sum[row])));
      u[h] = _mm512_mul_ps(product, _mm512_mul_ps(_mm512_set1_ps(s->scale[row]), _mm512_loadu_ps(norms)));
    }
    u[h] = _mm512_add_ps(u[h], _mm512_loadu_ps(s->bias + first + h * VL));
    if (kind == SINGLE) _mm512_storeu_ps(s->scores + row * NR + h * VL, u[h]);
    __m512 upper = p->two_sided ? _mm512_abs_ps(u[h]) : u[h];
    if (kind != SINGLE) {
      upper = _mm512_fmadd_ps(_mm512_set1_ps(s->of_length[row]), _mm512_loadu_ps(norms + p->padded), upper);
      upper = _mm512_fmadd_ps(_mm512_set1_ps(s->of_error[row]), _mm512_loadu_ps(norms + 2 * p->padded), upper);
    }
    m[h] = _mm512_cmp_ps_mask(upper, limit, _CMP_GT_OQ);
  }
  s->marks[row] = (uint32_t)m[0] | (uint32_t)m[1] << 16;
#else
  uint32_t marks = 0;
  for (int j = 0; j < NR; j++) {
    float v = (j < VL ? v0[j] : v1[j - VL]) + s->bias[first + j];
    s->scores[row * NR + j] = v;
    marks |= (uint32_t)(sided(p, v) > s->limit[row]) << j;
  }
  s->marks[row] = marks;
#endif
}

/* The rows, of `rows`, that are marked for latent j of the panel; returns how many. `found` has room for 16 more. */
static inline int64_t marked(const scratch *s, int64_t rows, int j, int32_t *found) {
  int64_t n = 0;
#if defined(__AVX512F__)
  __m512i numbers = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (int64_t r = 0; r < rows; r += 16) {
    __mmask16 m = _mm512_test_epi32_mask(_mm512_loadu_si512(s->marks + r), _mm512_set1_epi32((int)(1u << j)));
    _mm512_storeu_si512(found + n, _mm512_maskz_compress_epi32(m, numbers));
    n += __builtin_popcount(m);
    numbers = _mm512_add_epi32(numbers, _mm512_set1_epi32(16));
  }
#else
  for (int64_t r = 0; r < rows; r++) {
    found[n] = (int32_t)r;
    n += s->marks[r] >> j & 1;
  }
#endif
  return n;
}

/* Score what is marked of a panel and enter it in the rows' lists. */
ALWAYS void take(int kind, const problem *p, scratch *s, const float *x, int64_t rows, int64_t first) {
  for (int j = 0; j < NR; j++) {
    int64_t n = marked(s, rows, j, s->marked);
    if (kind != SINGLE) exact(p, x, s->marked, n, first + j, s->found), s->n_scored += n;
    for (int64_t i = 0; i < n; i++) {
      int64_t row = s->marked[i];
      list *l = s->lists + row;
      float v = kind == SINGLE ? s->scores[row * NR + j] : s->found[i];
      l->value[l->n] = v, l->latent[l->n] = (int32_t)(first + j);
      l->n += sided(p, v) > s->least[row];
      if (l->n < p->room) continue;
      if (p->k)
        s->least[row] = cut(p, l, s->keys);
      else
        l->full = 1, l->n = 0, s->least[row] = INFINITY;
      s->limit[row] = s->least[row] - s->margin;
    }
  }
}

/* A row whose places did not fit, or that is not finite: all latents in float32. `work` holds 3 x latents. */
static void whole_row(const problem *p, const float *row, list *l, float *work) {
  *l = (list){.value = work, .latent = (int32_t *)(work + p->latents)};
  for (int64_t i = 0; i < p->latents; i++) {
    float v;
    exact(p, row, &(int32_t){0}, 1, i, &v);
    work[l->n] = v, l->latent[l->n] = (int32_t)i;
    l->n += p->k ? v == v : sided(p, v) > p->floor;
  }
  if (p->k && l->n > p->k) cut(p, l, (int32_t *)(work + 2 * p->latents));
  if (l->n >= p->k) return;
  for (int64_t i = 0; i < p->k; i++) l->latent[i] = (int32_t)i, work[i] = NAN; /* any will do, the loss shows it */
  l->n = p->k;
}

static int64_t block_of(int64_t kind, int64_t width) { /* rows whose cells fill half of a typical second-level cache */
  int64_t rows = 512 * 1024 / (depth_of(kind, width) * (int64_t)sizeof(cell)) / MR * MR;
  return rows < MR ? MR : rows > 20 * MR ? 20 * MR : rows;
}

static int reserve(scratch *s, const problem *p, int64_t n_rows, int64_t block) {
  size_t rows = (size_t)block, room = (size_t)p->room + NR;
  memset(s, 0, sizeof(scratch));
  struct {
    void *at;
    size_t bytes;
  } wanted[] = {
      {&s->cells, sizeof(cell) * (size_t)(block * depth_of(p->kind, p->width))},
      {&s->lists, sizeof(list) * rows}, {&s->values, 4 * rows * room}, {&s->latents, 4 * rows * room},
      {&s->bias, 4 * (size_t)p->padded}, {&s->work, 12 * (size_t)p->latents},
      {&s->states, 4 * rows * (size_t)p->width}, {&s->again, 8 * (size_t)n_rows}, {&s->keys, 4 * room},
      {&s->scale, 4 * rows}, {&s->of_length, 4 * rows}, {&s->of_error, 4 * rows}, {&s->limit, 4 * rows},
      {&s->least, 4 * rows}, {&s->sum, 4 * rows},
      {&s->marks, 4 * (rows + 16)}, {&s->marked, 4 * (rows + 16)}, {&s->found, 4 * rows}, {&s->scores, 4 * rows * NR},
  };
  int good = 1;
  for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
    void *memory = malloc(wanted[i].bytes);
    memcpy(wanted[i].at, &memory, sizeof(memory));
    good = good && memory;
  }
  return good;
}

static void release(scratch *s) {
  void *all[] = {s->cells, s->lists, s->values, s->latents, s->bias, s->work, s->states, s->again, s->keys, s->scale,
                 s->of_length, s->of_error, s->limit, s->least, s->sum, s->marks, s->marked, s->found, s->scores};
  for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) free(all[i]);
}

/* Make the cells, the bounds and the empty lists of a block of rows. `start`: what limits are beforehand, per unit of a
   state's length. */
static void begin(const problem *p, scratch *s, const float *x, int64_t rows, int64_t block, float start) {
  int64_t depth = depth_of(p->kind, p->width), room = p->room + NR;
  float rounding = 2.0f * (float)(p->width + 4) * 0x1p-24f; /* of the sums: here, and again in float32 */
  memset(s->cells, 0, sizeof(cell) * (size_t)(block * depth));
  memset(s->marks, 0, 4 * (size_t)(block + 16));
  for (int64_t r = 0; r < rows; r++) {
    cell *cells = s->cells + (r / MR) * depth * MR + r % MR;
    facts found = pack_row(p->kind, x + r * p->width, p->factors, p->width, 0, cells, MR);
    s->lists[r] = (list){s->values + r * room, s->latents + r * room, 0, found.plain, 0};
    s->scale[r] = found.scale, s->sum[r] = 128 * found.sum;
    s->of_length[r] = 1.001f * (found.error + rounding * (found.rounded + found.error)) + 1e-30f;
    s->of_error[r] = 1.001f * found.rounded;
    s->least[r] = !p->k ? p->floor : start == -INFINITY ? start : start * found.plain;
    s->limit[r] = s->least[r] - s->margin;
  }
}

/* Fill the lists of a block of rows. */
ALWAYS void nominate_as(int kind, const problem *p, scratch *s, const float *x, int64_t rows) {
  int64_t depth = depth_of(kind, p->width), groups = (rows + MR - 1) / MR, panels = panels_of(p->latents);
  int64_t bytes = NR * p->width * 4, near = (bytes / groups + 63) / 64 * 64;
  for (int64_t q = 0; q < panels; q++) {
    const cell *panel = p->packed + q * depth * NR;
    const char *weights = (const char *)(p->weight + q * NR * p->width);
    int64_t end = q == panels - 1 ? (p->latents - q * NR) * p->width * 4 : bytes;
    for (int64_t g = 0; g < groups; g++) {
      vf acc[MR][2];
      if (kind != SINGLE)
        for (int64_t i = g * near; i < (g + 1) * near && i < end; i += 64) __builtin_prefetch(weights + i, 0, 2);
      tile(kind, s->cells + g * depth * MR, panel, depth, acc);
      int64_t live = rows - g * MR < MR ? rows - g * MR : MR;
      for (int64_t r = 0; r < live; r++) sift(kind, p, s, g * MR + r, q * NR, acc[r][0], acc[r][1]);
    }
    take(kind, p, s, x, rows, q * NR);
  }
}

static void nominate(const problem *p, scratch *s, const float *x, int64_t rows) {
#ifdef HAS_INT8
  if (p->kind == INT8) {
    nominate_as(INT8, p, s, x, rows);
    return;
  }
#endif
#ifdef HAS_BF16
  if (p->kind == BF16) {
    nominate_as(BF16, p, s, x, rows);
    return;
  }
#endif
  nominate_as(SINGLE, p, s, x, rows);
}

typedef struct { /* where the choice goes; n of `size` places are filled */
  int64_t *latents, *counts, *tally;
  float *u;
  int64_t size, n;
} output;

/* Write what was chosen for a row. Returns 0 if it does not fit. */
static int write_row(const problem *p, scratch *s, list *l, int64_t row, output *o) {
  if (l->full || l->n < p->k) whole_row(p, p->x + row * p->width, l, s->work), ++o->tally[0];
  int64_t at = p->k ? row * p->k : o->n;
  if (at + l->n > o->size) return 0;
  for (int64_t i = 0; i < l->n; i++) {
    o->latents[at + i] = l->latent[i];
    o->u[at + i] = p->shift ? l->value[i] + p->shift[l->latent[i]] : l->value[i];
  }
  o->counts[row] = l->n, o->n += l->n;
  return 1;
}

/* Choose for n rows that begin with `first`. start: what their limits are beforehand, per unit of a state's length; it
   becomes what nearly all of these rows would have borne. Rows of which it hides some of the choice are put off to
   `again`. Returns 0 if there is no room. */
static int choose_block(const problem *p, scratch *s, int64_t first, int64_t n, int64_t block, float *start, output *o) {
  const float *x = p->x + first * p->width;
  float sum = 0, squares = 0;
  int64_t seen = 0;
  begin(p, s, x, n, block, *start);
  nominate(p, s, x, n);
  for (int64_t r = 0; r < n; r++) {
    list *l = s->lists + r;
    if (p->k && l->n >= p->k) {
      float unit = cut(p, l, s->keys) / l->length;
      if (unit > -INFINITY && unit < INFINITY) sum += unit, squares += unit * unit, seen++;
    } else if (p->k && *start > -INFINITY) {
      s->again[s->n_again++] = first + r;
      continue;
    }
    if (!write_row(p, s, l, first + r, o)) return 0;
  }
  float mean = sum / (float)seen, spread = squares / (float)seen - mean * mean;
  *start = seen < 32 ? -INFINITY : mean - 2.3f * sqrtf(spread > 0 ? spread : 0) - 0.005f * fabsf(mean);
  return 1;
}

/* Choose for the rows that were put off, without limits beforehand. */
static void choose_again(const problem *p, scratch *s, int64_t block, output *o) {
  for (int64_t i = 0; i < s->n_again; i += block) {
    int64_t here = s->n_again - i < block ? s->n_again - i : block;
    for (int64_t r = 0; r < here; r++)
      memcpy(s->states + r * p->width, p->x + s->again[i + r] * p->width, 4 * (size_t)p->width);
    begin(p, s, s->states, here, block, -INFINITY);
    nominate(p, s, s->states, here);
    for (int64_t r = 0; r < here; r++) {
      if (s->lists[r].n > p->k) cut(p, s->lists + r, s->keys);
      write_row(p, s, s->lists + r, s->again[i + r], o);
    }
  }
}

/* Choose among the latents of `rows` states, see the head of this file.

   kind: of nomination; weight, packed, norms, factors: the encoder's matrix and what ot_pack made of it, with what; bias
   (latents); shift (latents) or null: subtracted before comparing. k > 0: the k best of each row; k = 0: all whose score
   exceeds `floor`. Score: the (shifted) pre-activation or, if two_sided, its magnitude; equal scores go to earlier
   latents. room: places of a row's list, more than k. Out: latents and pre-activations (not shifted) in row order, counts
   per row; `size` of them fit. tally (2) is raised by the number of rows that were computed as a whole and of scores made
   in float32. Returns how many were chosen, -1 if they do not fit, -2 without memory. */
int64_t ot_choose(int64_t kind, const float *x, int64_t rows, int64_t width, int64_t latents, const float *weight,
                  const void *packed, const float *norms, const float *factors, const float *bias, const float *shift,
                  int64_t k, float floor, int64_t two_sided, int64_t room, int64_t size, int64_t *out_latents,
                  float *out_u, int64_t *counts, int64_t *tally) {
  problem p = {x, weight, bias, shift, norms, packed, factors, width, latents, ot_padded(latents), k, room, floor,
               (int)kind, (int)two_sided};
  output o = {out_latents, counts, tally, out_u, size, 0};
  scratch s;
  int64_t block = block_of(kind, width), few = block < 4 * MR ? block : 4 * MR;
  int good = reserve(&s, &p, rows, block), fits = 1;
  for (int64_t i = 0; i < p.padded && good; i++) { /* padding compares as false */
    s.bias[i] = i < latents ? bias[i] - (shift ? shift[i] : 0) : NAN;
    float size_of = i < latents ? fabsf(bias[i]) + (shift ? fabsf(shift[i]) : 0) : 0;
    if (kind != SINGLE) s.margin = fmaxf(s.margin, 0x1p-21f * size_of);
  }
  float start = -INFINITY;
  for (int64_t first = 0, here; first < rows && good && fits; first += here) {
    here = k && start == -INFINITY ? few : block; /* without a limit beforehand much has to be scored */
    here = rows - first < here ? rows - first : here;
    fits = choose_block(&p, &s, first, here, block, &start, &o);
  }
  if (good && fits) choose_again(&p, &s, block, &o);
  tally[1] += s.n_scored;
  release(&s);
  return !good ? -2 : fits ? o.n : -1;
}
