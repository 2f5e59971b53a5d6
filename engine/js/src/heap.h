// The allocator under QuickJS, in place of its own: laid out for being restored.
//
// After each request the module's memory goes back to what it was after prepare, and
// what that costs is the pages the request wrote to: each one is a page fault and a
// copy, some hundred times what a bytecode takes. So:
//
//   - Small blocks of all sizes come from one moving edge, side by side in the order
//     in which they are needed, and freed ones are reused by size. A chunk is never
//     given back.
//   - heap_seal, at the end of prepare, forgets all free blocks, so that a request's
//     blocks lie together on fresh pages.
//   - heap_seal makes every block that is there immortal: its reference count no
//     longer changes, and so using an old object does not write to its page. The
//     collector does not look at old objects again; references that they hold keep
//     new ones alive.
//
// It is included in the middle of quickjs.c; build/edits.go says where.
#ifndef CASEMATE_HEAP_H
#define CASEMATE_HEAP_H

#define HEAP_MAX_SMALL 512 // with the header
#define HEAP_CLASSES 64    // multiples of 8
#define HEAP_LARGE 0xff    // block_size_idx of a block from malloc

#define HEAP_CHUNK (16 * 1024)
// HEAP_FRESH is the first chunk after heap_seal. It costs address space only.
#define HEAP_FRESH (256 * 1024)
#define HEAP_RESERVE (256 * 1024)
#define HEAP_GATHERED 8192 // bytes of gathered variables

typedef struct heap_chunk {
    struct heap_chunk *next;
    uint8_t *end; // of the blocks in it
    _Alignas(8) uint8_t blocks[];
} heap_chunk;

// heap_large precedes the header of a large block.
typedef struct heap_large {
    struct heap_large *next, *prev;
    JSMallocBlockHeader header;
} heap_large;

typedef struct {
    uint8_t *edge, *limit; // of the current chunk
    heap_chunk *chunks;
    heap_large large; // a ring
    void *free[HEAP_CLASSES + 1];
    void *reserve; // for the exception that says that memory has run out
    struct list_head old; // objects from before heap_seal
    bool context;  // the next block is the context's, which has a place of its own
} heap_state;

HOT_FITS(heap_state, heap);
#define heap HOT(heap_state, heap)

static inline JSMallocBlockHeader *heap_header(const void *p)
{
    return (JSMallocBlockHeader *)((uint8_t *)(uintptr_t)p - sizeof(JSMallocBlockHeader));
}

static inline heap_large *heap_large_of(const void *p)
{
    return container_of(heap_header(p), heap_large, header);
}

static void js_arena_init(JSRuntime *rt)
{
    (void)rt;
    heap.reserve = malloc(HEAP_RESERVE);
    heap.large.next = heap.large.prev = &heap.large;
}

static inline void heap_close_chunk(void)
{
    if (heap.chunks)
        heap.chunks->end = heap.edge;
}

static bool heap_chunk_new(size_t size)
{
    heap_chunk *c = malloc(size);
    if (!c)
        return false;
    heap_close_chunk();
    c->next = heap.chunks;
    heap.chunks = c;
    heap.edge = c->blocks;
    heap.limit = (uint8_t *)c + size;
    return true;
}

static void heap_link(heap_large *l)
{
    l->next = &heap.large;
    l->prev = heap.large.prev;
    l->prev->next = l;
    heap.large.prev = l;
}

// heap_exhausted has the collector run at the next place where it may, and gives
// back the reserve, so that there is memory for the exception.
static no_inline void *heap_exhausted(JSRuntime *rt)
{
    rt->malloc_gc_threshold = 0;
    free(heap.reserve);
    heap.reserve = NULL;
    return NULL;
}

static no_inline void *heap_malloc_large(JSRuntime *rt, size_t size, bool zero)
{
    heap_large *l;
    if (size > SIZE_MAX - sizeof *l)
        return heap_exhausted(rt);
    l = zero ? calloc(1, sizeof *l + size) : malloc(sizeof *l + size);
    if (!l)
        return heap_exhausted(rt);
    l->header.block_size_idx = HEAP_LARGE;
    heap_link(l);
    return l->header.user_data;
}

static no_inline void *heap_malloc_chunk(JSRuntime *rt, size_t size);

// heap_take gives a block of `total` bytes, header included.
static inline void *heap_take(JSRuntime *rt, size_t total)
{
    size_t class = total / 8;
    JSMallocBlockHeader *b;
    void *p = heap.free[class];
    if (p) {
        heap.free[class] = *(void **)p;
        return p;
    }
    if (unlikely((size_t)(heap.limit - heap.edge) < total))
        return heap_malloc_chunk(rt, total);
    b = (JSMallocBlockHeader *)heap.edge;
    heap.edge += total;
    b->block_size_idx = class;
    return b->user_data;
}

static no_inline void *heap_malloc_chunk(JSRuntime *rt, size_t total)
{
    // What is left of the chunk becomes one free block.
    size_t rest = heap.limit - heap.edge;
    if (rest >= 16) {
        JSMallocBlockHeader *b = (JSMallocBlockHeader *)heap.edge;
        heap.edge += rest;
        b->block_size_idx = rest / 8;
        *(void **)b->user_data = heap.free[rest / 8];
        heap.free[rest / 8] = b->user_data;
    }
    if (!heap_chunk_new(HEAP_CHUNK))
        return heap_exhausted(rt);
    return heap_take(rt, total);
}

static inline size_t heap_total(size_t size)
{
    size_t total = ((size + 7) & ~(size_t)7) + sizeof(JSMallocBlockHeader);
    return total < 16 ? 16 : total;
}

static void *js_arena_malloc(JSRuntime *rt, size_t size)
{
    if (unlikely(size > HEAP_MAX_SMALL - sizeof(JSMallocBlockHeader)))
        return heap_malloc_large(rt, size, false);
    return heap_take(rt, heap_total(size));
}

static void *js_arena_calloc(JSRuntime *rt, size_t count, size_t size)
{
    size_t n = count * size; // the caller has looked for overflow
    void *p;
    if (unlikely(heap.context)) {
        JSMallocBlockHeader *b = (JSMallocBlockHeader *)hot.context;
        _Static_assert(sizeof *b + sizeof(JSContext) <= sizeof hot.context, "make hot.context larger");
        heap.context = false;
        b->block_size_idx = sizeof hot.context / 8;
        return b->user_data;
    }
    if (n > HEAP_MAX_SMALL - sizeof(JSMallocBlockHeader))
        return heap_malloc_large(rt, n, true);
    p = heap_take(rt, heap_total(n));
    return p ? memset(p, 0, n) : NULL;
}

static void js_arena_free(JSRuntime *rt, void *p)
{
    JSMallocBlockHeader *b;
    (void)rt;
    if (!p)
        return;
    b = heap_header(p);
    if (unlikely(b->block_size_idx == HEAP_LARGE)) {
        heap_large *l = heap_large_of(p);
        l->next->prev = l->prev;
        l->prev->next = l->next;
        free(l);
        return;
    }
    *(void **)p = heap.free[b->block_size_idx];
    heap.free[b->block_size_idx] = p;
}

static size_t js_arena_usable_size(JSRuntime *rt, const void *p)
{
    const JSMallocBlockHeader *b;
    (void)rt;
    if (!p)
        return 0;
    b = heap_header(p);
    if (unlikely(b->block_size_idx == HEAP_LARGE))
        return malloc_usable_size(heap_large_of(p)) - sizeof(heap_large);
    return b->block_size_idx * 8 - sizeof *b;
}

static void *js_arena_realloc(JSRuntime *rt, void *p, size_t size)
{
    JSMallocBlockHeader *b = heap_header(p);
    size_t old = js_arena_usable_size(rt, p);
    void *to;
    if (b->block_size_idx == HEAP_LARGE && size > HEAP_MAX_SMALL) {
        heap_large *l = heap_large_of(p);
        if (size > SIZE_MAX - sizeof *l)
            return heap_exhausted(rt);
        l = realloc(l, sizeof *l + size);
        if (!l)
            return heap_exhausted(rt);
        l->next->prev = l->prev->next = l; // it may have moved
        return l->header.user_data;
    }
    if (b->block_size_idx != HEAP_LARGE && size <= old)
        return p;
    to = js_arena_malloc(rt, size);
    if (!to)
        return NULL;
    heap_header(to)->gc_obj_type = b->gc_obj_type;
    heap_header(to)->mark = b->mark;
    heap_header(to)->ref_count = b->ref_count;
    memcpy(to, p, size < old ? size : old);
    js_arena_free(rt, p);
    return to;
}

static void js_arena_free_all(JSRuntime *rt)
{
    (void)rt; // a runtime is never freed
}

// heap_place_context has the next block, which is the context, lie with what is hot.
static void heap_place_context(void)
{
    heap.context = true;
}

// heap_gather moves the values of variables that closures share to one place. The
// variables of a module lie all over the heap, and a request writes to a few.
static void heap_gather(JSRuntime *rt)
{
    struct list_head *el;
    JSValue *to = (JSValue *)heap.edge, *end = (JSValue *)(heap.edge + HEAP_GATHERED);
    list_for_each(el, &rt->gc_obj_list) {
        JSGCObjectHeader *header = list_entry(el, JSGCObjectHeader, link);
        JSVarRef *ref = (JSVarRef *)header;
        if (JS_GC_TYPE(header) != JS_GC_OBJ_TYPE_VAR_REF || !ref->is_detached || ref->pvalue != &ref->value)
            continue;
        // Functions and classes are seldom assigned to.
        if (JS_VALUE_GET_TAG(ref->value) == JS_TAG_OBJECT &&
            JS_VALUE_GET_OBJ(ref->value)->class_id != JS_CLASS_OBJECT)
            continue;
        if (to == end)
            break;
        *to = ref->value;
        ref->pvalue = to++;
    }
    heap.edge = (uint8_t *)to;
}

// heap_retire takes all objects off the collector's list. They stay linked among
// themselves: a shape that grows is taken off its list. A shape's count lies in the
// middle of its block, so the walk over the blocks has missed it.
static void heap_retire(JSRuntime *rt)
{
    struct list_head *el, *all = &rt->gc_obj_list;
    list_for_each(el, all)
        JS_REF_COUNT(list_entry(el, JSGCObjectHeader, link)) = IMMORTAL;
    if (list_empty(all))
        return;
    heap.old = *all;
    heap.old.next->prev = heap.old.prev->next = &heap.old;
    init_list_head(all);
}

// heap_seal ends preparing. False when there is no memory for what comes.
static bool heap_seal(JSRuntime *rt)
{
    heap_chunk *c;
    heap_large *l;
    heap_close_chunk();
    for (c = heap.chunks; c; c = c->next) {
        uint8_t *p = c->blocks;
        while (p < c->end) {
            JSMallocBlockHeader *b = (JSMallocBlockHeader *)p;
            b->ref_count = IMMORTAL; // of no consequence for a block without a count
            p += b->block_size_idx * 8;
        }
    }
    for (l = heap.large.next; l != &heap.large; l = l->next)
        l->header.ref_count = IMMORTAL;
    ((JSMallocBlockHeader *)hot.context)->ref_count = IMMORTAL;
    memset(heap.free, 0, sizeof heap.free);
    if (!heap.reserve)
        heap.reserve = malloc(HEAP_RESERVE);
    if (!heap.reserve || !heap_chunk_new(HEAP_FRESH))
        return false;
    // What comes begins with a page.
    heap.edge += -(uintptr_t)heap.edge & (HOT_PAGE - 1);
    heap_gather(rt);
    heap_retire(rt);
    return true;
}

#undef heap
#endif
