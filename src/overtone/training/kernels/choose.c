/* The encoder's product and the selection in one pass.

   The product is computed in tiles that stay in registers; a row keeps a short list of candidates; no (rows, latents)
   matrix exists. With bf16 the product only nominates:
       |<x,w> - <x',w'>| <= |x - x'| |w| + |x'| |w - w'| + rounding of the sum,        x', w' the rounded vectors,
   bounds every score from both sides. Dropped is what lies below the k-th largest lower bound; the rest is scored again
   in float32 and cut exactly. A row with more candidates than room is computed in float32 as a whole, and counted. */

#include "vectors.h"

#ifdef BF16
typedef uint32_t cell; /* two bf16 numbers that follow each other along the width */
#define PAIR 2
#else
typedef float cell;
#define PAIR 1
#endif

int64_t ot_level(void) {
#if defined(BF16)
  return 3;
#elif defined(__AVX512F__)
  return 2;
#elif defined(__AVX2__) && defined(__FMA__)
  return 1;
#else
  return 0;
#endif
}

static int64_t depth_of(int64_t width) { return (width + PAIR - 1) / PAIR; }
static int64_t panels_of(int64_t latents) { return (latents + NR - 1) / NR; }

/* Size of the packed weights in bytes, their number of panels, and the padded number of latents. */
int64_t ot_packed_bytes(int64_t latents, int64_t width) {
  return panels_of(latents) * depth_of(width) * NR * (int64_t)sizeof(cell);
}
int64_t ot_panels(int64_t latents) { return panels_of(latents); }
int64_t ot_padded(int64_t latents) { return panels_of(latents) * NR; }

/* ------------------------------------------------------------------------------------------------------- rounding */

typedef struct {
  float rounded, error; /* lengths of the rounded vector and of what rounding took away */
} lengths;

/* Write a row of `width` numbers as cells that lie `step` cells apart, padded with zero. */
static lengths pack_row(const float *row, int64_t width, cell *out, int64_t step) {
  lengths found = {0, 0};
#ifdef BF16
  vf of_rounded = {0}, of_error = {0};
  for (int64_t i = 0; i < width; i += 32) {
    int64_t left = width - i;
    __mmask16 low = left >= 16 ? 0xFFFF : (__mmask16)((1u << left) - 1);
    __mmask16 high = left >= 32 ? 0xFFFF : left <= 16 ? 0 : (__mmask16)((1u << (left - 16)) - 1);
    __m512 a = _mm512_maskz_loadu_ps(low, row + i), b = _mm512_maskz_loadu_ps(high, row + i + 16);
    __m512i both = (__m512i)_mm512_cvtne2ps_pbh(b, a);
    __m512i ia = _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(both)), 16);
    __m512i ib = _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(both, 1)), 16);
    vf ra = (vf)ia, rb = (vf)ib, ea = (vf)a - ra, eb = (vf)b - rb;
    of_rounded += ra * ra + rb * rb;
    of_error += ea * ea + eb * eb;
    uint32_t cells[16];
    _mm512_storeu_si512(cells, both);
    int64_t n = left >= 32 ? 16 : (left + 1) / 2;
    for (int64_t j = 0; j < n; j++) out[(i / 2 + j) * step] = cells[j];
  }
  found.rounded = sqrtf(total(of_rounded)), found.error = sqrtf(total(of_error));
#else
  for (int64_t i = 0; i < width; i++) out[i * step] = row[i];
#endif
  return found;
}

/* Pack the weights' panels first <= p < last. norms (padded latents): length of each row, 0 where none is;
   returns the largest ratio of rounding error to length. */
float ot_pack(const float *weight, int64_t latents, int64_t width, int64_t first, int64_t last, void *packed,
              float *norms) {
  int64_t depth = depth_of(width);
  float worst = 0;
  for (int64_t p = first; p < last; p++) {
    cell *panel = (cell *)packed + p * depth * NR;
    for (int64_t j = 0; j < NR; j++) {
      int64_t i = p * NR + j;
      norms[i] = 0;
      if (i >= latents) {
        for (int64_t q = 0; q < depth; q++) panel[q * NR + j] = 0;
        continue;
      }
      lengths found = pack_row(weight + i * width, width, panel + j, NR);
      norms[i] = found.rounded + found.error;
      if (found.error > worst * found.rounded && found.rounded > 0) worst = found.error / found.rounded;
    }
  }
  return worst;
}

/* ----------------------------------------------------------------------------------------------------------- tiles */

static inline void tile(const cell *rows, const cell *panel, int64_t depth, vf acc[MR][2]) {
  vf s[MR][2];
#pragma GCC unroll 12
  for (int r = 0; r < MR; r++) s[r][0] = (vf){0}, s[r][1] = (vf){0};
  for (int64_t q = 0; q < depth; q++) {
#ifdef BF16
    __m512bh w0 = (__m512bh)_mm512_loadu_si512(panel + q * NR);
    __m512bh w1 = (__m512bh)_mm512_loadu_si512(panel + q * NR + VL);
#pragma GCC unroll 12
    for (int r = 0; r < MR; r++) {
      __m512bh x = (__m512bh)_mm512_set1_epi32((int)rows[q * MR + r]);
      s[r][0] = (vf)_mm512_dpbf16_ps((__m512)s[r][0], x, w0);
      s[r][1] = (vf)_mm512_dpbf16_ps((__m512)s[r][1], x, w1);
    }
#else
    vf w0 = LOAD(panel + q * NR), w1 = LOAD(panel + q * NR + VL);
#pragma GCC unroll 12
    for (int r = 0; r < MR; r++) {
      float x = rows[q * MR + r];
      s[r][0] += x * w0;
      s[r][1] += x * w1;
    }
#endif
  }
#pragma GCC unroll 12
  for (int r = 0; r < MR; r++) acc[r][0] = s[r][0], acc[r][1] = s[r][1];
}

/* ------------------------------------------------------------------------------------------------------- selection */

typedef struct { /* what is the same for all rows */
  const float *weight, *bias, *shift, *norms;
  const void *packed;
  int64_t width, latents, k, room;
  float ratio, floor;
  int two_sided;
} problem;

typedef struct { /* one row's candidates, in the order of their latents */
  float *value, *score; /* shifted pre-activation as computed so far; scratch */
  int32_t *latent;
  int64_t n;
  float least, slack; /* smallest upper bound that is still of interest; error per unit of a weight row's length */
  float length;       /* of the state */
  int sure, full;     /* whether k lower bounds reach `least`; whether there was not enough room */
  int64_t at;         /* where the list is kept */
} list;

static inline float sided(const problem *p, float v) { return p->two_sided ? fabsf(v) : v; }

/* The k-th largest of n numbers, or what is at most 2^-coarse of an octave's mantissa steps below it: bit by bit, since
   floats order like integers once negative ones are turned over. `keys` holds n. */
static float kth_largest(const float *values, int64_t n, int64_t k, int coarse, int32_t *keys) {
  for (int64_t i = 0; i < n; i++) {
    int32_t bits;
    memcpy(&bits, values + i, 4);
    keys[i] = bits ^ ((bits >> 31) & 0x7FFFFFFF);
  }
  int64_t found = INT32_MIN;
  for (int64_t step = 1ll << 31; step >> coarse; step >>= 1) {
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

/* Raise the row's limit to its k-th largest lower bound and drop what lies below it. */
static void shrink(const problem *p, list *l, int32_t *keys) {
  if (p->k && l->n > p->k) {
    for (int64_t i = 0; i < l->n; i++) l->score[i] = sided(p, l->value[i]) - l->slack * p->norms[l->latent[i]];
    float cut = kth_largest(l->score, l->n, p->k, 10, keys);
    if (cut >= l->least) l->least = cut, l->sure = 1;
  }
  int64_t kept = 0, i = 0;
#if defined(__AVX512F__)
  for (; i + VL <= l->n; i += VL) {
    __m512 v = _mm512_loadu_ps(l->value + i);
    __m512i places = _mm512_loadu_si512(l->latent + i);
    vf upper = (vf)(p->two_sided ? _mm512_abs_ps(v) : v) + l->slack * (vf)_mm512_i32gather_ps(places, p->norms, 4);
    __mmask16 keep = _mm512_cmp_ps_mask((__m512)upper, _mm512_set1_ps(l->least), _CMP_GE_OQ);
    _mm512_storeu_ps(l->value + kept, _mm512_maskz_compress_ps(keep, v));
    _mm512_storeu_si512(l->latent + kept, _mm512_maskz_compress_epi32(keep, places));
    kept += __builtin_popcount(keep);
  }
#endif
  for (; i < l->n; i++) {
    float v = l->value[i];
    int32_t place = l->latent[i];
    l->value[kept] = v, l->latent[kept] = place;
    kept += sided(p, v) + l->slack * p->norms[place] >= l->least;
  }
  l->n = kept;
}

static inline void push(const problem *p, list *l, vf v0, vf v1, int64_t first, int32_t *keys) {
  vf b0 = LOAD(p->norms + first) * l->slack, b1 = LOAD(p->norms + first + VL) * l->slack;
#if defined(__AVX512F__)
  __m512 u0 = p->two_sided ? _mm512_abs_ps((__m512)v0) : (__m512)v0;
  __m512 u1 = p->two_sided ? _mm512_abs_ps((__m512)v1) : (__m512)v1;
  __m512 least = _mm512_set1_ps(l->least);
  __mmask16 m0 = _mm512_cmp_ps_mask((__m512)((vf)u0 + b0), least, _CMP_GE_OQ);
  __mmask16 m1 = _mm512_cmp_ps_mask((__m512)((vf)u1 + b1), least, _CMP_GE_OQ);
  if (__builtin_expect((m0 | m1) == 0, 1)) return;
  __m512i places = _mm512_add_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                                    _mm512_set1_epi32((int)first));
  _mm512_storeu_ps(l->value + l->n, _mm512_maskz_compress_ps(m0, (__m512)v0));
  _mm512_storeu_si512(l->latent + l->n, _mm512_maskz_compress_epi32(m0, places));
  l->n += __builtin_popcount(m0);
  _mm512_storeu_ps(l->value + l->n, _mm512_maskz_compress_ps(m1, (__m512)v1));
  _mm512_storeu_si512(l->latent + l->n, _mm512_maskz_compress_epi32(m1, _mm512_add_epi32(places, _mm512_set1_epi32(VL))));
  l->n += __builtin_popcount(m1);
#else
  for (int j = 0; j < NR; j++) {
    float v = j < VL ? v0[j] : v1[j - VL], b = j < VL ? b0[j] : b1[j - VL];
    if (sided(p, v) + b >= l->least) {
      l->value[l->n] = v;
      l->latent[l->n++] = (int32_t)(first + j);
    }
  }
#endif
  if (l->n > p->room - NR) {
    shrink(p, l, keys);
    if (l->n > p->room - 2 * NR) l->full = 1, l->least = INFINITY, l->n = 0;
  }
}

/* Shifted pre-activations of n places in float32. Whatever places are asked for together, each is summed alike. */
static void exact(const problem *p, const float *row, const int32_t *latents, int64_t n, float *out) {
  for (int64_t j = 0; j < n; j += TOGETHER) {
    const float *rows[TOGETHER];
    float u[TOGETHER];
    for (int64_t r = 0; r < TOGETHER; r++) rows[r] = p->weight + latents[j + r < n ? j + r : n - 1] * p->width;
    dots(row, rows, p->width, u);
    for (int64_t r = 0; r < TOGETHER && j + r < n; r++) {
      int32_t i = latents[j + r];
      out[j + r] = u[r] + p->bias[i];
      if (p->shift) out[j + r] -= p->shift[i];
    }
  }
}

/* Score the n places of the list that `picks` names again, in float32; out: their scores. `work` holds 2 n. */
static void rescore(const problem *p, list *l, const float *row, const int32_t *picks, int64_t n, float *out,
                    int32_t *work) {
  float *values = (float *)(work + n);
  for (int64_t j = 0; j < n; j++) work[j] = l->latent[picks[j]];
  exact(p, row, work, n, values);
  for (int64_t j = 0; j < n; j++) {
    l->value[picks[j]] = values[j];
    out[j] = sided(p, values[j]);
  }
}

/* Turn nominees into the exact choice, in place; returns how many. The likely ones are scored again first: the k-th best
   of them shows which others cannot matter. Loops are free of branches where a guess would often be wrong. */
static int64_t settle(const problem *p, list *l, const float *row, int32_t *keys) {
  int64_t k = p->k, n = l->n, kept = 0;
  int32_t *picks = keys + p->room, *sure = picks + p->room, *work = sure + p->room;
  for (int64_t i = 0; i < n; i++) l->score[i] = sided(p, l->value[i]), sure[i] = 1;
  if (l->slack > 0) {
    float cut = k && n > k ? kth_largest(l->score, n, k, 10, keys) : -INFINITY;
    int64_t first = 0, others = 0;
    for (int64_t i = 0; i < n; i++) {
      sure[i] = l->score[i] >= cut;
      picks[first] = (int32_t)i;
      first += sure[i];
    }
    rescore(p, l, row, picks, first, l->score, work);
    if (first < n) {
      float least = kth_largest(l->score, first, k, 10, keys);
      for (int64_t i = 0; i < n; i++) {
        int matters = !sure[i] && sided(p, l->value[i]) + l->slack * p->norms[l->latent[i]] >= least;
        sure[i] += matters;
        picks[others] = (int32_t)i;
        others += matters;
      }
      rescore(p, l, row, picks, others, l->score, work);
      int64_t m = 0;
      for (int64_t i = 0; i < n; i++) {
        l->value[m] = l->value[i], l->latent[m] = l->latent[i];
        m += sure[i];
      }
      n = m;
    }
    for (int64_t i = 0; i < n; i++) l->score[i] = sided(p, l->value[i]);
  }
  float cut = !k ? p->floor : n > k ? kth_largest(l->score, n, k, 0, keys) : -INFINITY;
  int64_t ties = k;
  for (int64_t i = 0; i < n; i++) ties -= l->score[i] > cut;
  if (!k) ties = 0;
  for (int64_t i = 0; i < n; i++) {
    int tie = l->score[i] == cut && ties > 0;
    ties -= tie;
    l->value[kept] = l->value[i], l->latent[kept] = l->latent[i];
    kept += tie || l->score[i] > cut;
  }
  return kept;
}

/* A row whose candidates did not fit, or that is not finite: all latents in float32. `work` holds 8 x latents. */
static int64_t whole_row(const problem *p, const float *row, list *l, float *work) {
  problem whole = *p;
  whole.room = p->latents;
  list all = {.value = work, .score = work + p->latents, .latent = (int32_t *)(work + 2 * p->latents), .n = p->latents};
  for (int64_t i = 0; i < p->latents; i++) all.latent[i] = (int32_t)i;
  exact(p, row, all.latent, p->latents, all.value);
  int64_t n = settle(&whole, &all, row, (int32_t *)(work + 3 * p->latents));
  *l = all;
  if (p->k && n < p->k) { /* not a number somewhere: any k places will do, the loss shows it */
    for (int64_t i = 0; i < p->k; i++) l->latent[i] = (int32_t)i, l->value[i] = NAN;
    n = p->k;
  }
  return n;
}

typedef struct { /* working memory: the lists of one block of rows, and what of them is kept for all rows */
  cell *rows;
  list *lists;
  float *values, *scores, *work, *bias, *kept_values;
  int32_t *latents, *keys, *kept_latents;
  int64_t n_kept, size_kept;
  list *second; /* of rows that are nominated twice: their lists, states and numbers */
  float *states;
  int32_t *again;
} scratch;

static int64_t block_of(int64_t width) { /* rows whose cells fill half of a typical second-level cache */
  int64_t rows = 512 * 1024 / (depth_of(width) * (int64_t)sizeof(cell)) / MR * MR;
  return rows < MR ? MR : rows > 20 * MR ? 20 * MR : rows;
}

static int reserve(scratch *s, const problem *p, int64_t rows, int64_t block) {
  size_t padded = (size_t)ot_padded(p->latents), room = (size_t)p->room;
  memset(s, 0, sizeof(scratch));
  s->rows = malloc(sizeof(cell) * (size_t)(block * depth_of(p->width)));
  s->lists = malloc(sizeof(list) * (size_t)(rows > block ? rows : block));
  s->values = malloc(4 * (size_t)block * room);
  s->latents = malloc(4 * (size_t)block * room);
  s->scores = malloc(4 * room);
  s->keys = malloc(20 * room);
  s->work = malloc(32 * (size_t)p->latents);
  s->bias = malloc(4 * padded);
  s->second = malloc(sizeof(list) * (size_t)block);
  s->states = malloc(4 * (size_t)(block * p->width));
  s->again = malloc(4 * (size_t)block);
  return s->second && s->states && s->again && s->rows && s->lists && s->values && s->latents && s->scores && s->keys && s->work && s->bias;
}

static void release(scratch *s) {
  free(s->rows), free(s->lists), free(s->values), free(s->latents), free(s->scores);
  free(s->keys), free(s->work), free(s->bias), free(s->kept_values), free(s->kept_latents);
  free(s->second), free(s->states), free(s->again);
}

/* Fill the lists of `rows` states. `start`: what limits are set to beforehand, per unit of a state's length. */
static void nominate(const problem *p, scratch *s, list *lists, const float *x, int64_t rows, int64_t block,
                     float start) {
  int64_t depth = depth_of(p->width), groups = (rows + MR - 1) / MR, panels = panels_of(p->latents);
  float rounding = 2.0f * (float)(p->width + 4) * 0x1p-24f; /* of the sums: here, and again in float32 */
  memset(s->rows, 0, sizeof(cell) * (size_t)(block * depth));
  for (int64_t r = 0; r < rows; r++) {
    lengths found = pack_row(x + r * p->width, p->width, s->rows + (r / MR) * depth * MR + r % MR, MR);
    lists[r] = (list){.value = s->values + r * p->room, .score = s->scores, .latent = s->latents + r * p->room};
    lists[r].length = PAIR == 2 ? found.rounded : sqrtf(dot(x + r * p->width, x + r * p->width, p->width));
    lists[r].least = !p->k ? p->floor : start == -INFINITY ? start : start * lists[r].length;
    lists[r].sure = !p->k || start == -INFINITY;
    if (PAIR == 2) lists[r].slack = 1.001f * (found.error + found.rounded * (p->ratio + rounding)) + 1e-30f;
  }
  for (int64_t q = 0; q < panels; q++) {
    const cell *panel = (const cell *)p->packed + q * depth * NR;
    vf b0 = LOAD(s->bias + q * NR), b1 = LOAD(s->bias + q * NR + VL);
    for (int64_t g = 0; g < groups; g++) {
      vf acc[MR][2];
      tile(s->rows + g * depth * MR, panel, depth, acc);
      int64_t live = rows - g * MR < MR ? rows - g * MR : MR;
      for (int64_t r = 0; r < live; r++)
        push(p, lists + g * MR + r, acc[r][0] + b0, acc[r][1] + b1, q * NR, s->keys);
    }
  }
}

/* Copy a list to the end of what is kept. */
static int keep_list(scratch *s, list *l) {
  if (s->n_kept + l->n > s->size_kept) {
    s->size_kept = 2 * (s->n_kept + l->n);
    float *values = realloc(s->kept_values, 4 * (size_t)s->size_kept);
    if (values) s->kept_values = values;
    int32_t *latents = realloc(s->kept_latents, 4 * (size_t)s->size_kept);
    if (latents) s->kept_latents = latents;
    if (!values || !latents) return 0;
  }
  l->at = s->n_kept;
  if (l->n) {
    memcpy(s->kept_values + s->n_kept, l->value, 4 * (size_t)l->n);
    memcpy(s->kept_latents + s->n_kept, l->latent, 4 * (size_t)l->n);
  }
  s->n_kept += l->n;
  return 1;
}

/* Shrink and keep the lists of a block; rows whose limit was set too high are nominated again without one. Returns the
   limit per unit of length that nearly all rows of this block would have borne, -infinity if that is unknown. */
static float keep_block(const problem *p, scratch *s, list *lists, const float *x, int64_t rows, int64_t block,
                        int *failed) {
  float sum = 0, squares = 0;
  int64_t n = 0, again = 0;
  for (int64_t r = 0; r < rows; r++) {
    list *l = lists + r;
    if (!l->full) shrink(p, l, s->keys);
    if (!l->sure && !l->full) {
      s->again[again++] = (int32_t)r;
      continue;
    }
    if (p->k && l->length > 0 && l->least < INFINITY && l->least > -INFINITY) {
      float unit = l->least / l->length;
      sum += unit, squares += unit * unit, n++;
    }
    if (!keep_list(s, l)) *failed = 1;
  }
  for (int64_t i = 0; i < again; i++)
    memcpy(s->states + i * p->width, x + s->again[i] * p->width, 4 * (size_t)p->width);
  if (again) nominate(p, s, s->second, s->states, again, block, -INFINITY);
  for (int64_t i = 0; i < again; i++) {
    list *l = lists + s->again[i];
    *l = s->second[i];
    if (!l->full) shrink(p, l, s->keys);
    if (!keep_list(s, l)) *failed = 1;
  }
  if (n < 32) return -INFINITY;
  float mean = sum / n, spread = squares / n - mean * mean;
  return mean - 2.5f * sqrtf(spread > 0 ? spread : 0) - 0.02f * fabsf(mean);
}

static int nominate_all(const problem *p, scratch *s, const float *x, int64_t rows, int64_t block) {
  float start = -INFINITY;
  int failed = 0;
  for (int64_t first = 0; first < rows; first += block) {
    int64_t here = rows - first < block ? rows - first : block;
    nominate(p, s, s->lists + first, x + first * p->width, here, block, start);
    start = keep_block(p, s, s->lists + first, x + first * p->width, here, block, &failed);
  }
  for (int64_t r = 0; r < rows; r++)
    s->lists[r].value = s->kept_values + s->lists[r].at, s->lists[r].latent = s->kept_latents + s->lists[r].at;
  return !failed;
}

/* Choose among the latents of `rows` states, see the head of this file.

   weight, packed, norms, ratio: the encoder's matrix and what ot_pack made of it; bias (latents); shift (latents) or
   null: subtracted before comparing. k > 0: the k best of each row; k = 0: all whose score exceeds `floor`. Score: the
   (shifted) pre-activation or, if two_sided, its magnitude; equal scores go to earlier latents. room: candidates per
   row, at least k + 4 x 32. Out: latents and pre-activations (not shifted) in row order, counts per row; `size` of them
   fit. n_whole is raised by the number of rows that were computed as a whole. Returns how many were chosen, -1 if they
   do not fit, -2 without memory.

   All rows are nominated before any is settled: the packed weights and the weights would drive each other out of the
   cache. */
int64_t ot_choose(const float *x, int64_t rows, int64_t width, int64_t latents, const float *weight, const void *packed,
                  const float *norms, float ratio, const float *bias, const float *shift, int64_t k, float floor,
                  int64_t two_sided, int64_t room, int64_t size, int64_t *out_latents, float *out_u, int64_t *counts,
                  int64_t *n_whole) {
  problem p = {weight, bias, shift, norms, packed, width, latents, k, room, ratio, floor, (int)two_sided};
  scratch s;
  int64_t block = block_of(width), n = 0;
  if (!reserve(&s, &p, rows, block)) {
    release(&s);
    return -2;
  }
  for (int64_t i = 0; i < ot_padded(latents); i++) /* padding compares as false */
    s.bias[i] = i < latents ? bias[i] - (shift ? shift[i] : 0) : NAN;
  if (!nominate_all(&p, &s, x, rows, block)) n = -2;
  for (int64_t r = 0; r < rows && n >= 0; r++) {
    list *l = s.lists + r;
    const float *row = x + r * width;
    int64_t found = l->full ? 0 : settle(&p, l, row, s.keys);
    if (l->full || found < k) found = whole_row(&p, row, l, s.work), ++*n_whole;
    if (n + found > size) {
      n = -1;
      break;
    }
    for (int64_t i = 0; i < found; i++) {
      out_latents[n + i] = l->latent[i];
      out_u[n + i] = shift ? l->value[i] + shift[l->latent[i]] : l->value[i];
    }
    counts[r] = found;
    n += found;
  }
  release(&s);
  return n;
}
