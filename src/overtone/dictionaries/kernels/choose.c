/* The encoder's product and the selection in one pass.

   The product is computed in tiles that stay in registers; a row keeps a short list of what may be chosen; no (rows,
   latents) matrix exists. In bf16 and int8 the product only nominates: each score is bounded from above, and what may
   exceed the row's k-th best score so far (or the floor) is scored in float32: at once, while its weights are near, or,
   where products take little, together with all others of some rows. How many inner products that took is counted. In
   bf16
       |<x,w> - <x',w'>| <= |x - x'| |w| + |x'| |w - w'| + rounding of the sums,       x', w' the rounded vectors,
   on any data. In int8 that is far too much in wide vectors, since what rounding takes away hardly ever lies along the
   other vector. So numbers are rounded with a dither, noise that is drawn anew for each batch and subtracted again:
   whatever the data, x - x' is then uniform and independent from coordinate to coordinate (Schuchman 1964; Gray and
   Stockham 1993), and with steps s and t of x' and w' and c coordinates (Hoeffding 1963)
       P(<x,w> - <x',w'> > h sqrt(V)) <= exp(-h^2 / 2),        12 V = s^2 (|w| + t sqrt(c) / 2)^2 + t^2 |x|^2.
   A bound of nine deviations leaves out a place of the choice once in 10^17. Bad data only take longer.

   Scores may be boosted: u (1 + |v|), v the product of other rows with other weights. Both products are bounded, and
   where u in float32 rules a score out, v is not made. */

#include "amx.h"

/* Which kinds of nomination this library has and this process may use, a bit for each. And the level of its vectors. */
int64_t ot_kinds(void) {
  int64_t kinds = 1 << SINGLE;
#ifdef HAS_BF16
  kinds += 1 << BF16;
#endif
#ifdef HAS_INT8
  kinds += 1 << INT8;
#endif
#ifdef HAS_AMX
  if (amx_allowed()) kinds += (1 << (AMX + BF16)) + (1 << (AMX + INT8));
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
#define SURE 9.0f   /* deviations within which what rounding takes away lies */
#define MANY 192    /* rows from which on most of a panel's weights will be needed in float32 */
#define LARGE (2 * 1024 * 1024) /* bytes that are worth reading once more for each panel of weights */
#define WAITING 160             /* marks per row, beside those of a panel, that may wait until they are scored */
#define NOTED 256               /* marks of a row whose scores in fewer bits are compared */
#define UNEVEN 0.05f            /* deviations of k-th scores per mean, from which on rows differ much */
#define APART 8                 /* tiles of one product that are made before those of the boosts', if there are any */

/* Uniform in (-1/2, 1/2), after Steele, Lea and Flood 2014 (splitmix). */
static inline float uniform(uint64_t *state) {
  uint64_t z = *state += 0x9E3779B97F4A7C15u;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
  z = (z ^ z >> 27) * 0x94D049BB133111EBu;
  return ((float)((z ^ z >> 31) >> 41) + 0.5f) * 0x1p-23f - 0.5f;
}

/* The grid (4, width) of int8: factors of states, powers of two by which weights are divided, so that a coordinate is
   of about the same size in both; factors of weights; dithers of states and of weights. Whatever they are, the choice is
   the same. */
void ot_grid(const float *x, int64_t rows, const float *weight, int64_t latents, int64_t width, uint64_t seed,
             float *grid) {
  float *squares = grid + 2 * width;
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
    grid[i] = exp2f(power), grid[width + i] = exp2f(-power);
  }
  for (int64_t i = 2 * width; i < 4 * width; i++) grid[i] = uniform(&seed);
}

/* The square of the step of an int8 row per unit of its length, 1 if nothing is left of it. */
static inline float coarse(const facts *row, float length) {
  float ratio = row->scale > 0 ? row->scale / length : 1;
  return ratio * ratio;
}

typedef struct { /* of the rows of a panel of weights, 0 where none is */
  float scale[NR];
  float length[NR], error[NR]; /* of rounding; in int8 the most that a length is afterwards, and that times coarseness */
  int32_t begin[NR];           /* what int8 products begin with */
} norms_of;

/* Cells (count, depth) of latents, one after the other, as part of a panel. */
static void turn_cells(const cell *from, int64_t count, int64_t depth, cell *panel) {
  int64_t q = 0;
#if defined(__AVX512F__)
  for (; count == NR && q + 16 <= depth; q += 16)
    for (int64_t j = 0; j < NR; j += 16)
      transpose16((const float *)(from + j * depth + q), depth, 16, (float *)(panel + q * NR + j), NR, 16);
#endif
  for (; q < depth; q++)
    for (int64_t j = 0; j < NR; j++) panel[q * NR + j] = j < count ? from[j * depth + q] : 0;
}

/* Pack the weights' panels first <= p < last. norms (4 x padded latents): by panel, see above. Returns 0, or -1 without
   memory. */
int64_t ot_pack(int64_t kind, const float *weight, int64_t latents, int64_t width, const float *grid, int64_t first,
                int64_t last, void *packed, norms_of *norms) {
  int64_t depth = depth_of(kind, width);
  cell *cells = calloc((size_t)(NR * depth), sizeof(cell)); /* of rows; what is beyond the width stays 0 */
  if (!cells) return -1;
  for (int64_t p = first; p < last; p++) {
    int64_t count = latents - p * NR < NR ? latents - p * NR : NR;
    norms_of *n = norms + p;
    memset(n, 0, sizeof(norms_of));
    for (int64_t j = 0; j < count; j++) {
      facts found = pack_row(kind, weight + (p * NR + j) * width, grid, width, 1, (place_of_row){cells + j * depth, 1, 16});
      n->scale[j] = found.scale, n->length[j] = found.length, n->error[j] = found.error, n->begin[j] = -found.sum;
      if (digits_of(kind) == INT8) n->length[j] += found.error, n->error[j] = n->length[j] * coarse(&found, n->length[j]);
    }
    turn_cells(cells, count, depth, (cell *)packed + p * depth * NR);
  }
  free(cells);
  return 0;
}

/* ------------------------------------------------------------------------------------------------------- selection */

typedef struct { /* a product: rows, weights, and what ot_pack made of these */
  const float *x, *weight;
  const cell *packed;
  const norms_of *norms;
  const float *grid;
} product;

typedef struct { /* what is the same for all rows */
  product of[2]; /* the scores' product, and the boost's */
  const float *bias, *shift;
  int64_t width, latents, padded, k, room;
  float floor, boost_length;
  int kind, two_sided, boosted;
} problem;

typedef struct { /* what may be chosen in a row: its score, shifted pre-activation and boost */
  float score, value, boost;
  int32_t latent;
} place;

typedef struct { /* one row's places, in the order of their latents */
  place *at;
  int64_t n;
} list;

typedef struct { /* of a row in fewer bits: by what its products are multiplied and their bounds, and its sum */
  float scale, of_length, of_error;
  int32_t sum;
} factors_of;

typedef struct { /* rows in fewer bits */
  cell *cells;
  factors_of *factors;
} few_bits;

typedef struct { /* k-th scores of rows, per unit of a state's length: their mean and deviation, and how many were seen */
  float mean, spread;
  int64_t seen;
} usual;

#define SEEN 32 /* rows that tell what is usual */

/* What limits are beforehand, per unit of a state's length, for rows that were put off so often; -inf if none. */
static float start_of(const usual *u, int times) {
  if (u->seen < SEEN || times > 1) return -INFINITY;
  return u->mean - (times ? 4.0f : 2.3f) * u->spread - 0.005f * fabsf(u->mean);
}

typedef struct { /* working memory for one block of rows */
  few_bits of[2];
  int64_t *numbers; /* which rows they are */
  place *places;
  float *lengths, *bias; /* lengths of states */
  float *stretch;        /* of each row: by what its products are multiplied to be boosts */
  void *work;
  int32_t *n_places;    /* of each row */
  uint8_t *full;        /* whether there was not enough room for them */
  float *least, *limit; /* what scores must exceed; the same less a margin for the rounding of sums with biases */
  uint32_t *keys;
  uint32_t *marks; /* by row: which latents of a panel may exceed the limit */
  float *scores;   /* (rows, NR) of a panel, in as many bits as products have */
  float *upper;    /* (rows, NR) of a panel: what boosts do not exceed */
  int32_t *some, *marked;  /* rows with marks; of each mark its row, by latent */
  int32_t *starts, *kept;  /* of latents, from the first one with marks that wait: where these begin, how many remain */
  float *found, *of_boost; /* of each mark: score; what its boost does not exceed, later its boost */
  int64_t most;            /* marks that there is room for */
  int raising;             /* whether limits are raised on the way */
  float *noted;            /* (rows, NOTED + NR) scores of marks in fewer bits, in any order, if so */
  int32_t *n_noted;        /* of each row */
  float margin;
  int64_t *again, n_again; /* rows that are put off */
  uint8_t *times;          /* how often each row was */
  int64_t n_scored;
} scratch;

static inline float sided(const problem *p, float v) { return p->two_sided ? fabsf(v) : v; }

static inline float boosted(float score, float boost) { return score + score * boost; }

static inline place place_of(const problem *p, int64_t latent, float value, float boost) {
  float score = sided(p, value);
  return (place){p->boosted ? boosted(score, boost) : score, value, boost, (int32_t)latent};
}

/* How many of n keys are at least `least`, n a multiple of VL. */
static inline int64_t reaching(const uint32_t *keys, int64_t n, uint32_t least) {
  int64_t count = 0;
#if defined(__AVX512F__)
  __m512i at = _mm512_set1_epi32((int)least);
  for (int64_t i = 0; i < n; i += VL)
    count += __builtin_popcount(_mm512_cmpge_epu32_mask(_mm512_loadu_si512(keys + i), at));
#else
  for (int64_t i = 0; i < n; i++) count += keys[i] >= least;
#endif
  return count;
}

/* The k-th largest of n numbers that are `step` apart, bit by bit; what it is at least, with so many bits from the first
   one in which numbers differ. Floats order like integers once those with a sign are turned over, and the others get one.
   There is room for VL more keys. */
static inline float kth_largest(const float *numbers, int64_t step, int64_t n, int64_t k, int bits, uint32_t *keys) {
  uint32_t least = UINT32_MAX, most = 0;
  for (int64_t i = 0; i < n; i++) {
    uint32_t number;
    memcpy(&number, numbers + i * step, 4);
    uint32_t key = keys[i] = number ^ (number >> 31 ? UINT32_MAX : 1u << 31);
    least = key < least ? key : least, most = key > most ? key : most;
  }
  while (n % VL) keys[n++] = 0;
  uint32_t bit = least == most ? 0 : 1u << (31 - __builtin_clz(least ^ most)), found = least & ~(bit | (bit - !!bit));
  for (; bit && bits; bit >>= 1, bits--) found = reaching(keys, n, found | bit) >= k ? found | bit : found;
  found ^= found >> 31 ? 1u << 31 : UINT32_MAX;
  float value;
  memcpy(&value, &found, 4);
  return value;
}

/* Cut a list to its k best; equal scores go to earlier latents. Returns the k-th score. */
static float cut(list *l, int64_t k, uint32_t *keys) {
  float least = kth_largest(&l->at->score, sizeof(place) / 4, l->n, k, 32, keys);
  int64_t ties = k, kept = 0;
  for (int64_t i = 0; i < l->n; i++) ties -= l->at[i].score > least;
  for (int64_t i = 0; i < l->n; i++) {
    float score = l->at[i].score;
    int tie = score == least && ties > 0;
    ties -= tie;
    l->at[kept] = l->at[i];
    kept += tie || score > least;
  }
  l->n = kept;
  return least;
}

/* Products of a latent with some rows in float32; numbers: which rows of all these are. Whatever is asked for together,
   each is summed alike. */
static inline void exact(const problem *p, int which, const int64_t *numbers, const int32_t *rows, int64_t n,
                         int64_t latent, float *out) {
  const float *states[TOGETHER], *x = p->of[which].x, *weights = p->of[which].weight + latent * p->width;
  for (int64_t i = 0; i < n; i += TOGETHER) {
    int64_t here = n - i < TOGETHER ? n - i : TOGETHER;
    for (int64_t j = 0; j < here; j++) states[j] = x + numbers[rows[i + j]] * p->width;
    dots(here, weights, states, p->width, out + i);
  }
}

/* Shifted pre-activations. */
static inline void exact_scores(const problem *p, const int64_t *numbers, const int32_t *rows, int64_t n,
                                int64_t latent, float *out) {
  exact(p, 0, numbers, rows, n, latent, out);
  for (int64_t i = 0; i < n; i++) {
    out[i] += p->bias[latent];
    if (p->shift) out[i] -= p->shift[latent];
  }
}

/* Boosts. stretch: of all these rows. */
static inline void exact_boosts(const problem *p, const int64_t *numbers, const float *stretch, const int32_t *rows,
                                int64_t n, int64_t latent, float *out) {
  exact(p, 1, numbers, rows, n, latent, out);
  for (int64_t i = 0; i < n; i++) out[i] = fabsf(out[i]) * stretch[rows[i]];
}

#define SLACK 0x1p-18f /* beyond the rounding of what is done with bounds */

/* What bounds must exceed, so that scores may exceed `least`. */
static inline float limit_of(const problem *p, const scratch *s, float least) {
  return least - (p->boosted ? 2 * SLACK * fabsf(least) : s->margin);
}

#if defined(__AVX512F__)
/* Products of a row with half a panel, plus `more`. */
ALWAYS __m512 unpacked(int kind, const factors_of *row, const norms_of *norms, int h, vf acc, __m512 more) {
  if (digits_of(kind) != INT8) return _mm512_add_ps((__m512)acc, more);
  __m512 product = _mm512_cvtepi32_ps(_mm512_sub_epi32((__m512i)acc, _mm512_set1_epi32(row->sum)));
  return _mm512_fmadd_ps(product, _mm512_mul_ps(_mm512_set1_ps(row->scale), _mm512_loadu_ps(norms->scale + h * VL)),
                         more);
}

/* What true products do not exceed, from what was unpacked. */
ALWAYS __m512 at_most(int kind, const factors_of *row, const norms_of *norms, int h, __m512 u) {
  if (kind == SINGLE) return u;
  u = _mm512_fmadd_ps(_mm512_set1_ps(row->of_length), _mm512_loadu_ps(norms->length + h * VL), u);
  return _mm512_fmadd_ps(_mm512_set1_ps(row->of_error), _mm512_loadu_ps(norms->error + h * VL), u);
}
#endif

/* Mark which scores of `rows` rows with a panel may exceed their limits. */
ALWAYS void sift(int kind, int is_boosted, const problem *p, scratch *s, int64_t row, int rows, int64_t first,
                 const vf (*of_score)[2], const vf (*of_boost)[2]) {
  const float *limits = s->limit + row;
  float *restrict scores = s->scores + row * NR, *restrict upper = s->upper + row * NR;
  uint32_t *restrict marks = s->marks + row;
#if defined(__AVX512F__)
  const norms_of *norms = p->of[0].norms + first / NR, *of_boosts = p->of[is_boosted].norms + first / NR;
  const factors_of *factors = s->of[0].factors + row, *boosts = s->of[is_boosted].factors + row;
  __m512 margin = _mm512_set1_ps(s->margin), zero = _mm512_setzero_ps();
  __m512 bias[2] = {_mm512_loadu_ps(s->bias + first), _mm512_loadu_ps(s->bias + first + VL)};
  __m512i sign = _mm512_set1_epi32(p->two_sided ? 0x7FFFFFFF : -1);
#pragma GCC unroll 4
  for (int r = 0; r < rows; r++) {
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
      __m512 u = unpacked(kind, factors + r, norms, h, of_score[r][h], bias[h]);
      if (kind == SINGLE) _mm512_storeu_ps(scores + r * NR + h * VL, u);
      u = (__m512)_mm512_and_si512((__m512i)u, sign);
      __m512 about = u;
      u = at_most(kind, factors + r, norms, h, u);
      if (is_boosted) {
        __m512 v = _mm512_abs_ps(unpacked(kind, boosts + r, of_boosts, h, of_boost[r][h], zero));
        about = _mm512_fmadd_ps(about, v, about);
        v = at_most(kind, boosts + r, of_boosts, h, v);
        _mm512_storeu_ps(upper + r * NR + h * VL, v);
        if (kind != SINGLE) u = _mm512_add_ps(u, margin);
        u = _mm512_fmadd_ps(_mm512_max_ps(u, zero), v, u);
      }
      if (kind != SINGLE && s->raising) _mm512_storeu_ps(scores + r * NR + h * VL, about);
      __mmask16 mask = _mm512_cmp_ps_mask(u, _mm512_set1_ps(limits[r]), _CMP_GT_OQ);
      memcpy((char *)(marks + r) + 2 * h, &mask, 2); /* its half: these processors are little-endian */
    }
  }
#else
  (void)kind;
  for (int r = 0; r < rows; r++) {
    marks[r] = 0;
    for (int j = 0; j < NR; j++) {
      float v = of_score[r][j / VL][j % VL] + s->bias[first + j], most = sided(p, v);
      scores[r * NR + j] = v;
      if (is_boosted) {
        float boost = upper[r * NR + j] = fabsf(of_boost[r][j / VL][j % VL]);
        most = most > 0 ? boosted(most, boost) : most;
      }
      marks[r] |= (uint32_t)(most > limits[r]) << j;
    }
  }
#endif
}

/* Sort the marked rows of a panel by latent, behind those of the latents before it, of which there are `before` with marks
   that wait: those of latent j are s->marked[starts[j]] up to starts[j + 1]. Returns how many rows these are (s->some). */
ALWAYS int64_t by_latent(int is_boosted, const scratch *s, int64_t rows, int64_t before) {
  int32_t *starts = s->starts + before;
  int64_t n = 0;
  int32_t counts[NR] = {0}, *some = s->some; /* rows with marks */
#if defined(__AVX512F__)
  __m512i numbers = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (int64_t r = 0; r < rows; r += 16) {
    __m512i marks = _mm512_loadu_si512(s->marks + r);
    __mmask16 m = _mm512_test_epi32_mask(marks, marks);
    _mm512_storeu_si512(some + n, _mm512_maskz_compress_epi32(m, numbers));
    n += __builtin_popcount(m);
    numbers = _mm512_add_epi32(numbers, _mm512_set1_epi32(16));
  }
#else
  for (int64_t r = 0; r < rows; r++) {
    some[n] = (int32_t)r;
    n += s->marks[r] != 0;
  }
#endif
  for (int64_t i = 0; i < n; i++)
    for (uint32_t left = s->marks[some[i]]; left; left &= left - 1) counts[__builtin_ctz(left)]++;
  if (!before) starts[0] = 0;
  for (int j = 0; j < NR; j++) starts[j + 1] = starts[j] + counts[j], counts[j] = starts[j];
  for (int64_t i = 0; i < n; i++)
    for (uint32_t left = s->marks[some[i]]; left; left &= left - 1) {
      int j = __builtin_ctz(left), at = counts[j]++;
      s->marked[at] = some[i];
      if (is_boosted) s->of_boost[at] = s->upper[some[i] * NR + j];
    }
  return n;
}

static inline list list_of(const problem *p, const scratch *s, int64_t row) {
  return (list){s->places + row * (p->room + NR), s->n_places[row]};
}

#if defined(__AVX512F__)
/* Note the scores of a row's marks of a panel, as many as there is room for. */
static inline void note(scratch *s, int64_t row) {
  int32_t *n = s->n_noted + row;
  float *to = s->noted + row * (NOTED + NR) + *n;
  const float *scores = s->scores + row * NR;
  __mmask16 low = (__mmask16)s->marks[row], high = (__mmask16)(s->marks[row] >> VL);
  _mm512_storeu_ps(to, _mm512_maskz_compress_ps(low, _mm512_loadu_ps(scores)));
  _mm512_storeu_ps(to + __builtin_popcount(low), _mm512_maskz_compress_ps(high, _mm512_loadu_ps(scores + VL)));
  *n += __builtin_popcount(s->marks[row]);
  *n = *n < NOTED ? *n : NOTED;
}

/* Raise limits after some of all panels, the last one with marks in `marked` rows: to what more of a row's scores reach
   than will lie among its k best. Where these do after all, the row is put off. */
static void raise_limits(const problem *p, scratch *s, int64_t marked, int64_t rows, int64_t panels, int64_t all) {
  if (!s->raising) return;
  for (int64_t i = 0; i < marked; i++) note(s, s->some[i]);
  if (panels & (panels - 1) || 32 * panels < all || panels == all) return;
  float mean = (float)(p->k * panels) / (float)all;
  int64_t k = (int64_t)(mean + 2 * sqrtf(mean)) + 2;
  for (int64_t r = 0; r < rows; r++) {
    if (s->times[s->numbers[r]] || s->n_noted[r] <= k + k / 2) continue;
    float least = kth_largest(s->noted + r * (NOTED + NR), 1, s->n_noted[r], k, 10, s->keys);
    if (!(least > s->least[r])) continue;
    s->least[r] = least, s->limit[r] = limit_of(p, s, least);
    list l = list_of(p, s, r);
    int32_t kept = 0;
    for (int64_t i = 0; i < l.n; i++) l.at[kept] = l.at[i], kept += l.at[i].score > least;
    s->n_places[r] = kept;
  }
}
#endif

/* Keep of latent j's marks those whose score the pre-activations found do not rule out. */
static inline void keep(const problem *p, scratch *s, int64_t j) {
  int32_t *rows = s->marked + s->starts[j], kept = 0;
  float *found = s->found + s->starts[j], *upper = s->of_boost + s->starts[j];
  for (int32_t i = 0; i < s->kept[j]; i++) {
    int32_t row = rows[i];
    float score = sided(p, found[i]), most = score > 0 ? boosted(score, upper[i]) : score;
    rows[kept] = row, found[kept] = found[i];
    kept += most + SLACK * fabsf(most) > s->least[row];
  }
  s->kept[j] = kept;
}

/* Enter one place in a row's list. */
static inline void enter(const problem *p, scratch *s, int64_t row, int64_t latent, float value, float boost) {
  list l = list_of(p, s, row);
  l.at[l.n] = place_of(p, latent, value, boost);
  l.n += l.at[l.n].score > s->least[row];
  s->n_places[row] = (int32_t)l.n;
  if (l.n < p->room) return;
  if (p->k)
    s->least[row] = cut(&l, p->k, s->keys), s->n_places[row] = (int32_t)l.n;
  else
    s->full[row] = 1, s->n_places[row] = 0, s->least[row] = INFINITY;
  s->limit[row] = limit_of(p, s, s->least[row]);
}

/* Score the marks of `n` latents from `first` on and enter them in the rows' lists. Each kind of rows is read by itself,
   so that it stays in the cache. */
ALWAYS void take(int kind, int is_boosted, const problem *p, scratch *s, int64_t first, int64_t n) {
  for (int64_t j = 0; j < n; j++) {
    int32_t start = s->starts[j], here = s->kept[j] = s->starts[j + 1] - start;
    for (int32_t i = start; kind == SINGLE && i < start + here; i++) s->found[i] = s->scores[s->marked[i] * NR + j];
    if (kind == SINGLE) continue;
    exact_scores(p, s->numbers, s->marked + start, here, first + j, s->found + start), s->n_scored += here;
    if (is_boosted) keep(p, s, j);
  }
  for (int64_t j = 0; kind != SINGLE && is_boosted && j < n; j++) {
    int32_t start = s->starts[j], here = s->kept[j];
    exact_boosts(p, s->numbers, s->stretch, s->marked + start, here, first + j, s->of_boost + start), s->n_scored += here;
  }
  for (int64_t j = 0; j < n; j++)
    for (int32_t i = s->starts[j]; i < s->starts[j] + s->kept[j]; i++)
      enter(p, s, s->marked[i], first + j, s->found[i], is_boosted ? s->of_boost[i] : 0);
}

/* A row whose places did not fit, or that is not finite: all latents in float32. `work` holds as many places, and keys. */
static list whole_row(const problem *p, int64_t row, const float *stretch, void *work) {
  list l = {work, 0};
  for (int64_t i = 0; i < p->latents; i++) {
    float value, boost = 0;
    exact_scores(p, &row, &(int32_t){0}, 1, i, &value);
    if (p->boosted) exact_boosts(p, &row, stretch, &(int32_t){0}, 1, i, &boost);
    l.at[l.n] = place_of(p, i, value, boost);
    float score = l.at[l.n].score;
    l.n += p->k ? score == score : score > p->floor;
  }
  if (p->k && l.n > p->k) cut(&l, p->k, (uint32_t *)(l.at + p->latents));
  if (l.n >= p->k) return l;
  for (int64_t i = 0; i < p->k; i++) l.at[i] = (place){NAN, NAN, NAN, (int32_t)i}; /* the loss shows it */
  l.n = p->k;
  return l;
}

/* Rows that pass the weights together: all blocks about alike, with some room for rows that were put off. */
static int64_t block_of(const problem *p, int64_t rows) {
  int64_t cells = depth_of(p->kind, p->width) * (int64_t)sizeof(cell), lists = p->room * (int64_t)sizeof(place);
  int64_t tall = tall_of(p->kind), most = p->kind & AMX ? 16 * GROUP : 170 * MR; /* whose states stay in the cache */
  if (most > LARGE / cells) most = LARGE / cells;
  if (most > 8 * LARGE / lists) most = 8 * LARGE / lists;
  most = most < tall ? tall : most;
  int64_t blocks = rows > most ? (rows + most - 1) / most : 1, each = (rows + blocks - 1) / blocks;
  return (each + each / 128 + tall) / tall * tall;
}

/* Lay working memory out from an address on; returns how many bytes it takes. */
static int64_t lay_out(scratch *s, const problem *p, int64_t n_rows, int64_t block, uintptr_t start) {
  size_t rows = (size_t)block, room = (size_t)p->room + NR;
  uintptr_t at = start;
#define PART(pointer, bytes) pointer = (void *)at, at += ((size_t)(bytes) + 63) / 64 * 64
  memset(s, 0, sizeof(scratch));
  for (int which = 0; which <= p->boosted; which++) {
    few_bits *f = s->of + which;
    PART(f->cells, rows * sizeof(cell) * (size_t)depth_of(p->kind, p->width));
    PART(f->factors, rows * sizeof(factors_of));
  }
  PART(s->places, sizeof(place) * rows * room), PART(s->n_places, 4 * rows), PART(s->full, rows);
  if (p->boosted) PART(s->upper, 4 * rows * NR);
  PART(s->bias, 4 * (size_t)p->padded), PART(s->work, (sizeof(place) + 4) * (size_t)p->latents + 4 * VL);
  PART(s->keys, 4 * (room + NOTED + VL)), PART(s->lengths, 4 * rows);
  PART(s->least, 4 * rows), PART(s->limit, 4 * rows), PART(s->scores, 4 * rows * NR);
  PART(s->marks, 4 * (rows + 16)), PART(s->some, 4 * (rows + 16));
  s->most = (int64_t)rows * (p->kind & AMX ? NR + WAITING : NR);
  PART(s->marked, 4 * s->most), PART(s->found, 4 * s->most), PART(s->starts, 4 * (p->padded + 1));
  PART(s->kept, 4 * p->padded);
  if (p->boosted) PART(s->of_boost, 4 * s->most), PART(s->stretch, 4 * rows);
  if (p->kind != SINGLE) PART(s->noted, 4 * rows * (NOTED + NR)), PART(s->n_noted, 4 * rows);
  PART(s->again, 8 * (size_t)n_rows);
  PART(s->numbers, 8 * rows), PART(s->times, (size_t)n_rows);
#undef PART
  return (int64_t)(at - start);
}

#define LEAST_LENGTH 1e-12f /* lengths within which squares are ordinary numbers */
#define MOST_LENGTH 1e12f

/* By what a row of boosts is multiplied; NaN if its length cannot be had from squares. */
static inline float stretch_of(const problem *p, const float *row, float length) {
  if (!p->boost_length) return 1;
  if (length > LEAST_LENGTH && length < MOST_LENGTH) return p->boost_length / length;
  for (int64_t i = 0; i < p->width; i++)
    if (row[i] != 0) return NAN;
  return 0;
}

/* Rows of one product in fewer bits; plain: their lengths. Returns 0 if rows of boosts have to be brought to their length
   beforehand. */
static int shorten(const problem *p, scratch *s, int which, int64_t rows, int64_t block, float *plain) {
  few_bits *f = s->of + which;
  int64_t depth = depth_of(p->kind, p->width);
  float rounding = 2.0f * (float)(p->width + 4) * 0x1p-24f; /* of the sums: here, and again in float32 */
  float sure = 1.005f * (SURE + 1e-4f * sqrtf((float)p->width)); /* with what is rounded on the way */
  memset(f->cells, 0, sizeof(cell) * (size_t)(block * depth));
  for (int64_t r = 0; r < rows; r++) {
    place_of_row to = row_place(p->kind, f->cells, depth, r);
    const float *numbers = p->of[which].x + s->numbers[r] * p->width;
    facts found = pack_row(p->kind, numbers, p->of[which].grid, p->width, 0, to);
    factors_of *row = f->factors + r;
    plain[r] = found.plain;
    if (which) {
      float by = s->stretch[r] = stretch_of(p, numbers, found.plain);
      if (by != by) return 0;
      found.scale *= by, found.length *= by;
    }
    row->scale = found.scale, row->sum = found.sum;
    if (digits_of(p->kind) == INT8) { /* sqrt(a + b) <= (a + b + c) / (2 sqrt(c)), and c is near to a + b */
      float here = coarse(&found, found.length), about = 2 * (here < 1e-4f ? here : 1e-4f);
      row->of_error = found.length * sure / (2 * sqrtf(12 * about));
      row->of_length = row->of_error * (here + about) + rounding * found.length + 1e-30f;
      continue;
    }
    row->of_length = 1.001f * (found.error + rounding * (found.rounded + found.error)) + 1e-30f;
    row->of_error = 1.001f * found.rounded;
  }
  return 1;
}

/* Make the cells, the bounds and the empty lists of a block of rows. Returns as `shorten`. */
static int begin(const problem *p, scratch *s, int64_t rows, int64_t block, const usual *known) {
  memset(s->marks, 0, 4 * (size_t)(block + 16));
  memset(s->n_places, 0, 4 * (size_t)rows);
  memset(s->full, 0, (size_t)rows);
  s->raising = p->kind != SINGLE && p->k && known->seen >= SEEN && known->spread > UNEVEN * fabsf(known->mean);
  if (s->raising) memset(s->n_noted, 0, 4 * (size_t)rows);
  if (p->boosted && !shorten(p, s, 1, rows, block, s->lengths)) return 0;
  shorten(p, s, 0, rows, block, s->lengths);
  for (int64_t r = 0; r < rows; r++) {
    float start = start_of(known, s->times[s->numbers[r]]);
    s->least[r] = !p->k ? p->floor : start == -INFINITY ? start : start * s->lengths[r];
    s->limit[r] = limit_of(p, s, s->least[r]);
  }
  for (int64_t r = rows; r % tall_of(p->kind); r++) { /* nothing is marked in what is missing of the last tile */
    s->limit[r] = INFINITY;
    for (int which = 0; which <= p->boosted; which++) s->of[which].factors[r] = (factors_of){0};
  }
  return 1;
}

/* Ask for a part of a panel's weights, of `parts`, before they are needed. */
static inline void approach(const problem *p, int which, int64_t panel, int64_t part, int64_t parts) {
  int64_t bytes = NR * p->width * 4, near = (bytes / parts + 63) / 64 * 64;
  const char *weights = (const char *)(p->of[which].weight + panel * NR * p->width);
  int64_t left = (p->latents - panel * NR) * p->width * 4, end = left < bytes ? left : bytes;
  for (int64_t i = part * near; i < (part + 1) * near && i < end; i += 64) __builtin_prefetch(weights + i, 0, 2);
}

/* One of the products of a tile: rows g * tall and on, panel q. */
ALWAYS void tile_of(int kind, const problem *p, const scratch *s, int which, int64_t g, int64_t q, vf (*acc)[2]) {
  int64_t depth = depth_of(kind, p->width);
  const product *a = p->of + which;
  const cell *rows = s->of[which].cells + g * depth * tall_of(kind), *panel = a->packed + q * depth * NR;
#ifdef HAS_AMX
  if (kind & AMX) {
    amx_tile(kind, rows, panel, depth, a->norms[q].begin, acc);
    return;
  }
#endif
  tile(kind, rows, panel, depth, a->norms[q].begin, acc);
}

/* Mark what may exceed limits in `tiles` tiles of panel q, g and on: all products with one matrix, then those with the
   other, whose panel pushes that of the first from the cache. */
ALWAYS void mark(int kind, int is_boosted, const problem *p, scratch *s, int64_t g, int64_t q, int64_t tiles) {
  int64_t tall = tall_of(kind);
  vf of_score[APART][GROUP][2], of_boost[GROUP][2];
  for (int64_t i = 0; i < tiles; i++) tile_of(kind, p, s, 0, g + i, q, of_score[i]);
  for (int64_t i = 0; i < tiles; i++) {
    if (is_boosted) tile_of(kind, p, s, 1, g + i, q, of_boost);
    sift(kind, is_boosted, p, s, (g + i) * tall, (int)tall, q * NR, of_score[i], is_boosted ? of_boost : of_score[i]);
  }
}

/* Fill the lists of a block of rows: marks are scored after each panel, whose weights are asked for meanwhile. */
ALWAYS void nominate_as(int kind, int is_boosted, const problem *p, scratch *s, int64_t rows) {
  int64_t groups = (rows + MR - 1) / MR, panels = panels_of(p->latents);
  for (int64_t q = 0; q < panels; q++) {
    for (int64_t g = 0; g < groups; g++) {
      if (kind != SINGLE && rows >= MANY) approach(p, 0, q, g, groups);
      if (kind != SINGLE && rows >= MANY && is_boosted) approach(p, 1, q, g, groups);
      mark(kind, is_boosted, p, s, g, q, 1);
    }
    int64_t marked = by_latent(is_boosted, s, rows, 0);
#if defined(__AVX512F__)
    if (kind != SINGLE) raise_limits(p, s, marked, rows, q + 1, panels);
#else
    (void)marked;
#endif
    take(kind, is_boosted, p, s, q * NR, NR);
  }
}

#ifdef HAS_AMX
/* The same, but marks are scored as late as there is room, since products take less time than that; without limits at
   once, as these come from scores. */
ALWAYS void amx_nominate_as(int kind, int is_boosted, const problem *p, scratch *s, int64_t rows) {
  int64_t groups = (rows + GROUP - 1) / GROUP, panels = panels_of(p->latents), first = 0;
  int64_t most = s->limit[0] > -INFINITY ? s->most : 0, apart = is_boosted ? APART : 1;
  shapes before;
  amx_begin(&before);
  for (int64_t q = 0; q < panels; q++) {
    for (int64_t g = 0; g < groups; g += apart)
      mark(kind, is_boosted, p, s, g, q, groups - g < apart ? groups - g : apart);
    int64_t marked = by_latent(is_boosted, s, rows, (q - first) * NR);
    raise_limits(p, s, marked, rows, q + 1, panels);
    if (q + 1 < panels && s->starts[(q + 1 - first) * NR] + rows * NR <= most) continue;
    take(kind, is_boosted, p, s, first * NR, (q + 1 - first) * NR);
    first = q + 1;
  }
  amx_end(&before);
}
#endif

/* One of these, made for a kind, and for boosted scores or others. */
#define NOMINATE(how, kind)      \
  if (p->boosted)                \
    how(kind, 1, p, s, rows);    \
  else                           \
    how(kind, 0, p, s, rows);    \
  break

static void nominate(const problem *p, scratch *s, int64_t rows) {
  switch (p->kind) {
#ifdef HAS_INT8
  case INT8: NOMINATE(nominate_as, INT8);
#endif
#ifdef HAS_BF16
  case BF16: NOMINATE(nominate_as, BF16);
#endif
#ifdef HAS_AMX
  case AMX + INT8: NOMINATE(amx_nominate_as, AMX + INT8);
  case AMX + BF16: NOMINATE(amx_nominate_as, AMX + BF16);
#endif
  default: NOMINATE(nominate_as, SINGLE);
  }
}

typedef struct { /* where the choice goes; n of `size` places are filled */
  int64_t *latents, *counts, *tally;
  float *u, *boost, *lengths;
  int64_t size, n;
} output;

/* Write what was chosen for a row of some length. Returns 0 if it does not fit. */
static int write_row(const problem *p, const list *l, int64_t row, float length, output *o) {
  int64_t at = p->k ? row * p->k : o->n;
  if (at + l->n > o->size) return 0;
  for (int64_t i = 0; i < l->n; i++) {
    place here = l->at[i];
    o->latents[at + i] = here.latent;
    o->u[at + i] = p->shift ? here.value + p->shift[here.latent] : here.value;
    if (p->boosted) o->boost[at + i] = here.boost;
  }
  o->counts[row] = l->n, o->lengths[row] = length, o->n += l->n;
  return 1;
}

/* Choose for the n rows of a block. Rows of which limits hide some of the choice are put off. found: what is learned of
   the k-th scores of the others that never were. Returns 0 if there is no room, -1 where `shorten` returns 0. */
static int choose_block(const problem *p, scratch *s, int64_t n, int64_t block, const usual *known, usual *found,
                        output *o) {
  float sum = 0, squares = 0;
  int64_t seen = 0;
  if (!begin(p, s, n, block, known)) return -1;
  nominate(p, s, n);
  for (int64_t r = 0; r < n; r++) {
    list l = list_of(p, s, r);
    for (int64_t i = 0; r + 2 < n && i < s->n_places[r + 2]; i += 4) __builtin_prefetch(list_of(p, s, r + 2).at + i);
    int64_t row = s->numbers[r];
    int times = s->times[row];
    if (p->k && l.n >= p->k) {
      float unit = cut(&l, p->k, s->keys) / s->lengths[r];
      if (unit > -INFINITY && unit < INFINITY && !times) sum += unit, squares += unit * unit, seen++;
    } else if (p->k && start_of(known, times) > -INFINITY) {
      s->again[s->n_again++] = row, s->times[row]++;
      continue;
    }
    if (s->full[r] || l.n < p->k) l = whole_row(p, row, s->stretch + r, s->work), ++o->tally[0];
    if (!write_row(p, &l, row, s->lengths[r], o)) return 0;
  }
  float mean = sum / (float)seen, variance = squares / (float)seen - mean * mean;
  if (seen >= SEEN || 2 * seen < n) *found = (usual){mean, sqrtf(variance > 0 ? variance : 0), seen};
  return 1;
}

/* Choose for all rows. Those that were put off join the next block. Returns as `choose_block`. */
static int choose_all(const problem *p, scratch *s, int64_t rows, int64_t block, usual *known, output *o) {
  int64_t few = p->kind & AMX ? 2 * GROUP : 4 * MR;
  few = few < block ? few : block;
  int fits = 1;
  for (int64_t next = 0, before; fits > 0 && (next < rows || s->n_again);) {
    int64_t n = 0, most = p->k && known->seen < SEEN ? few : block; /* without limits much has to be scored */
    while (n < most && s->n_again) s->numbers[n++] = s->again[--s->n_again];
    before = next;
    while (n < most && next < rows) s->numbers[n++] = next++;
    usual found = *known;
    fits = choose_block(p, s, n, block, known, &found, o);
    if (next > before) *known = found;
  }
  return fits;
}

/* Bytes of working memory that ot_choose needs. */
int64_t ot_work_bytes(int64_t kind, int64_t rows, int64_t width, int64_t latents, int64_t room, int64_t boosted) {
  problem p = {.width = width, .latents = latents, .padded = ot_padded(latents), .room = room, .kind = (int)kind,
               .boosted = (int)boosted};
  scratch ignored;
  return lay_out(&ignored, &p, rows, block_of(&p, rows), 0);
}

/* Choose among the latents of `rows` states, see the head of this file.

   kind: of nomination; weight, packed, norms, grid: the encoder's matrix and what ot_pack made of it, on what; the
   same of the boost, all null if there is none; boost_length: where it is not 0, which int8 alone knows, the boost's rows
   count as brought to that length; bias (latents); shift (latents) or null: subtracted before comparing.
   k > 0: the k best of each row; k = 0: all whose score exceeds `floor`. Score: the (shifted) pre-activation or, if
   two_sided, its magnitude, times 1 + |boost|; equal scores go to earlier latents. room: places of a row's list, more
   than k. hint (2): mean and deviation of earlier k-th scores per unit of a state's length, the first -inf if not known;
   becomes those found here. Out: latents, pre-activations (not shifted) and magnitudes of boosts in row order, counts
   per row; `size` of them fit; lengths (rows) of the states. tally (2) is raised by the number of rows that were
   computed as a whole and of inner products made in float32. work: memory of ot_work_bytes. Returns how many were
   chosen, -1 if they do not fit, -2 if a row of the boost is too long or too short for that to be done here. */
int64_t ot_choose(int64_t kind, int64_t rows, int64_t width, int64_t latents, const float *x, const float *weight,
                  const void *packed, const norms_of *norms, const float *grid, const float *boost_x,
                  const float *boost_weight, const void *boost_packed, const norms_of *boost_norms,
                  const float *boost_grid, float boost_length, const float *bias, const float *shift, int64_t k, float floor,
                  int64_t two_sided, int64_t room, int64_t size, float *hint, int64_t *out_latents, float *out_u,
                  float *out_boost, int64_t *counts, float *lengths, int64_t *tally, void *work) {
  problem p = {{{x, weight, packed, norms, grid}, {boost_x, boost_weight, boost_packed, boost_norms, boost_grid}},
               bias, shift, width, latents, ot_padded(latents), k, room, floor, boost_length, (int)kind, (int)two_sided,
               boost_x != NULL};
  output o = {out_latents, counts, tally, out_u, out_boost, lengths, size, 0};
  scratch s;
  int64_t block = block_of(&p, rows);
  lay_out(&s, &p, rows, block, (uintptr_t)work);
  memset(s.times, 0, (size_t)rows);
  for (int64_t i = 0; i < p.padded; i++) { /* padding compares as false */
    s.bias[i] = i < latents ? bias[i] - (shift ? shift[i] : 0) : NAN;
    float size_of = i < latents ? fabsf(bias[i]) + (shift ? fabsf(shift[i]) : 0) : 0;
    if (kind != SINGLE) s.margin = fmaxf(s.margin, 0x1p-21f * size_of);
  }
  usual known = {hint[0], hint[1], hint[0] > -INFINITY ? rows : 0};
  int fits = choose_all(&p, &s, rows, block, &known, &o);
  if (known.seen >= SEEN) hint[0] = known.mean, hint[1] = known.spread;
  tally[1] += s.n_scored;
  return fits > 0 ? o.n : fits - 1;
}
