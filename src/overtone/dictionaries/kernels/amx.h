/* Products of a group of rows with a panel of weights by the matrix registers of some processors (AMX), for numbers of
   few bits. The system has to allow them (ot_kinds asks); rows come in blocks of 16 x 16 cells, panels as for others. */

#ifndef AMX_H
#define AMX_H

#include "tiles.h"

#if defined(__AMX_TILE__) && defined(__AMX_INT8__) && defined(__AMX_BF16__) && defined(HAS_INT8) && defined(__linux__)
#define HAS_AMX 1
#include <sys/syscall.h>
#include <unistd.h>

#define ASK_FOR 0x1023 /* arch_prctl's ARCH_REQ_XCOMP_PERM: for this process and all threads it has or will have */
#define MATRICES 18    /* the part of a thread's state that these registers are */

static inline int amx_allowed(void) { return syscall(SYS_arch_prctl, ASK_FOR, MATRICES) == 0; }

typedef struct { /* what _tile_loadconfig reads: sizes of eight registers */
  uint8_t palette, start, none[14];
  uint16_t bytes[16];
  uint8_t rows[16];
} shapes;

/* Registers of 16 rows of 64 bytes. before: what they were, for amx_end, since libraries remember what they set. */
static void amx_begin(shapes *before) {
  shapes ours = {.palette = 1};
  for (int i = 0; i < 8; i++) ours.bytes[i] = 64, ours.rows[i] = 16;
  _tile_storeconfig(before);
  __asm__ volatile("" ::: "memory"); /* what they read was written: compilers do not know that they read */
  _tile_loadconfig(&ours);
}

static void amx_end(const shapes *before) {
  if (before->palette)
    _tile_loadconfig(before);
  else
    _tile_release();
}

/* acc = the sums of a tile: registers 0 to 3, each 16 rows x 16 latents. */
ALWAYS void amx_store(vf acc[GROUP][2]) {
  _tile_stored(0, acc, 4 * NR);
  _tile_stored(1, (float *)acc + VL, 4 * NR);
  _tile_stored(2, acc + 16, 4 * NR);
  _tile_stored(3, (float *)(acc + 16) + VL, 4 * NR);
}

/* As `tile`, for GROUP rows; integers lie where acc's floats would. */
ALWAYS void amx_tile(int kind, const cell *rows, const cell *panel, int64_t depth, const int32_t *begin,
                     vf acc[GROUP][2]) {
  _tile_loadd(0, begin, 0);
  _tile_loadd(1, begin + VL, 0);
  _tile_loadd(2, begin, 0);
  _tile_loadd(3, begin + VL, 0);
  for (int64_t q = 0; q < depth; q += 16) {
    const cell *block = rows + 16 * q;
    _tile_loadd(4, block, 64);
    _tile_loadd(5, block + 16 * depth, 64);
    _tile_loadd(6, panel + q * NR, 4 * NR);
    _tile_loadd(7, panel + q * NR + VL, 4 * NR);
    if (digits_of(kind) == INT8) {
      _tile_dpbsud(0, 4, 6);
      _tile_dpbsud(1, 4, 7);
      _tile_dpbsud(2, 5, 6);
      _tile_dpbsud(3, 5, 7);
    } else {
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  amx_store(acc);
}
#endif

#endif
