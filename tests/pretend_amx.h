/* Matrix registers by hand, for processors without any: included before the kernels, whose code stays as it is. */

#include <immintrin.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define __AMX_TILE__ 1
#define __AMX_INT8__ 1
#define __AMX_BF16__ 1
#define syscall(...) 0L /* nobody has to allow it */

typedef union {
  uint8_t bytes[16][64];
  int8_t signed_bytes[16][64];
  uint16_t halves[16][32];
  int32_t integers[16][16];
  float floats[16][16];
} pretended;

static _Thread_local pretended registers[8];

/* What the registers' shapes were set to; one for all files. */
__attribute__((weak)) _Thread_local uint8_t pretended_shapes[64];
__attribute__((weak)) uint8_t *pretended_setting(void) { return pretended_shapes; }

static inline void pretend_load(int to, const void *from, int64_t stride) {
  for (int r = 0; r < 16; r++) memcpy(registers[to].bytes[r], (const char *)from + r * stride, 64);
}

static inline void pretend_store(int from, void *to, int64_t stride) {
  for (int r = 0; r < 16; r++) memcpy((char *)to + r * stride, registers[from].bytes[r], 64);
}

static inline void pretend_bytes(int c, int a, int b) {
  for (int m = 0; m < 16; m++)
    for (int n = 0; n < 16; n++)
      for (int k = 0; k < 64; k++)
        registers[c].integers[m][n] += registers[a].signed_bytes[m][k] * registers[b].bytes[k / 4][4 * n + k % 4];
}

static inline float whole(uint16_t half) {
  uint32_t bits = (uint32_t)half << 16;
  float number;
  memcpy(&number, &bits, 4);
  return number;
}

static inline void pretend_halves(int c, int a, int b) {
  for (int m = 0; m < 16; m++)
    for (int n = 0; n < 16; n++)
      for (int k = 0; k < 32; k++)
        registers[c].floats[m][n] += whole(registers[a].halves[m][k]) * whole(registers[b].halves[k / 2][2 * n + k % 2]);
}

#undef _tile_storeconfig
#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbsud
#undef _tile_dpbf16ps
#define _tile_storeconfig(to) memcpy(to, pretended_shapes, 64)
#define _tile_loadconfig(from) memcpy(pretended_shapes, from, 64)
#define _tile_release() memset(pretended_shapes, 0, 64)
#define _tile_zero(t) memset(registers + (t), 0, sizeof(pretended))
#define _tile_loadd(t, from, stride) pretend_load(t, from, stride)
#define _tile_stored(t, to, stride) pretend_store(t, to, stride)
#define _tile_dpbsud(c, a, b) pretend_bytes(c, a, b)
#define _tile_dpbf16ps(c, a, b) pretend_halves(c, a, b)
