// What nearly every request writes to, side by side: each page that a request does
// not touch is a page fault and a copy saved.
#ifndef CASEMATE_HOT_H
#define CASEMATE_HOT_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define HOT_PAGE 4096

// Each part is declared where it is used, and checks there that it fits. The linker
// would order separate variables as it likes.
static struct {
    _Alignas(HOT_PAGE) uint8_t runtime[1664];
    uint8_t context[512];
    uint64_t heap[48], engine[20], head[8], pending[4], rejected[4];
    // A request that fits is read to a fixed place: fresh buffers are fresh pages.
    char input[32 * 1024];
} hot;

#define HOT(type, part) (*(type *)(void *)hot.part)
#define HOT_FITS(type, part) _Static_assert(sizeof(type) <= sizeof hot.part, "make hot." #part " larger")

// hot_calloc gives the runtime its place; QuickJS asks for nothing else this way
// before the heap is there.
static void *hot_calloc(void *opaque, size_t count, size_t size)
{
    (void)opaque;
    if (count * size > sizeof hot.runtime)
        return NULL;
    return hot.runtime;
}

#endif
