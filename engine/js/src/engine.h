// State of the one runtime in this module, and small things that every part uses.
#ifndef CASEMATE_ENGINE_H
#define CASEMATE_ENGINE_H

// The module's stack lies in [0, CASEMATE_STACK_SIZE). Below this address
// JavaScript gets a RangeError; what is left is for C functions that QuickJS does
// not check, the deepest of which we have seen need a tenth of it.
#define STACK_LIMIT (192 * 1024)

typedef struct {
    const char *data;
    uint32_t len;
} span;

typedef struct {
    JSRuntime *rt;
    JSContext *ctx;

    JSValue install, dispatch, tick, explain; // what the boot scripts gave us
    bool preparing;                           // no answer, no operations

    // One request.
    char *input; // the line, a NUL in place of its newline, then the body
    size_t input_len;
    size_t input_cap; // of `input`, when it is not hot.input
    span line, body;
    bool answered, finished, failed;
} engine_state;

HOT_FITS(engine_state, engine);
#define engine HOT(engine_state, engine)

static inline span make_span(const char *data, size_t len)
{
    return (span){data, (uint32_t)len};
}

static inline bool span_is(span s, const char *text)
{
    return s.len == strlen(text) && memcmp(s.data, text, s.len) == 0;
}

// flat gives a string's characters, one by one in memory. NULL and an exception
// when there is no memory. The result is the caller's to free.
static JSString *flat(JSContext *ctx, JSValueConst value)
{
    JSValue text = JS_ToString(ctx, value);
    if (JS_IsException(text))
        return NULL;
    if (JS_VALUE_GET_TAG(text) == JS_TAG_STRING_ROPE) {
        JSValue whole = js_linearize_string_rope(ctx, text);
        JS_FreeValue(ctx, text);
        if (JS_IsException(whole))
            return NULL;
        text = whole;
    }
    return JS_VALUE_GET_STRING(text);
}

static inline void free_flat(JSContext *ctx, JSString *s)
{
    JS_FreeValue(ctx, JS_MKPTR(JS_TAG_STRING, s));
}

// buffer is a growing array of bytes. When memory runs out, `broken` is set and
// what follows is ignored.
typedef struct {
    JSContext *ctx;
    char *data;
    size_t len, cap;
    bool broken;
    char first[256];
} buffer;

static void buffer_init(JSContext *ctx, buffer *b)
{
    b->ctx = ctx;
    b->data = b->first;
    b->len = 0;
    b->cap = sizeof b->first;
    b->broken = false;
}

static void buffer_free(buffer *b)
{
    if (b->data != b->first)
        js_free(b->ctx, b->data);
}

// buffer_room gives room for n more bytes, or NULL.
static char *buffer_room(buffer *b, size_t n)
{
    if (b->broken)
        return NULL;
    if (n > b->cap - b->len) {
        size_t cap = b->cap * 2 > b->len + n ? b->cap * 2 : b->len + n;
        char *data = b->data == b->first ? js_malloc_rt(engine.rt, cap) : js_realloc_rt(engine.rt, b->data, cap);
        if (!data) {
            b->broken = true;
            return NULL;
        }
        if (b->data == b->first)
            memcpy(data, b->first, b->len);
        b->data = data;
        b->cap = cap;
    }
    return b->data + b->len;
}

static void buffer_put(buffer *b, const void *data, size_t len)
{
    char *room = buffer_room(b, len);
    if (room) {
        memcpy(room, data, len);
        b->len += len;
    }
}

static inline void buffer_byte(buffer *b, char c)
{
    char *room = buffer_room(b, 1);
    if (room) {
        *room = c;
        b->len++;
    }
}

static inline void buffer_text(buffer *b, const char *text)
{
    buffer_put(b, text, strlen(text));
}

#endif
