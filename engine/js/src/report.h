// What goes to standard error: lines for the developer. One report is one write, so
// that its lines stay together.
#ifndef CASEMATE_REPORT_H
#define CASEMATE_REPORT_H

// MAX_CAUSES bounds how many errors of a chain of causes are shown.
#define MAX_CAUSES 4

static void buffer_string(buffer *b, JSString *s)
{
    char *room = buffer_room(b, string_utf8_len(s));
    if (room) {
        string_utf8(s, (uint8_t *)room);
        b->len += string_utf8_len(s);
    }
}

// buffer_value writes a value as text; false when it cannot be turned into any. No
// exception is left behind.
static bool buffer_value(buffer *b, JSValueConst value)
{
    JSString *s;
    if (JS_IsSymbol(value)) {
        buffer_text(b, "a symbol");
        return true;
    }
    s = flat(b->ctx, value);
    if (!s) {
        JS_FreeValue(b->ctx, JS_GetException(b->ctx));
        return false;
    }
    buffer_string(b, s);
    free_flat(b->ctx, s);
    return true;
}

// buffer_explained writes what the boot scripts have to say of an object, in its place
// or below it, and a line's end; false when that is nothing. No exception is left behind.
static bool buffer_explained(buffer *b, JSValueConst value, bool below)
{
    JSContext *ctx = b->ctx;
    JSValueConst args[2] = {value, JS_NewBool(ctx, below)};
    JSValue said;
    bool done = false;
    if (!JS_IsObject(value) || !JS_IsFunction(ctx, engine.explain))
        return false; // no object, or the scripts are running themselves
    said = JS_Call(ctx, engine.explain, JS_UNDEFINED, 2, args);
    if (JS_IsException(said))
        JS_FreeValue(ctx, JS_GetException(ctx));
    else if (JS_IsString(said) && (done = buffer_value(b, said)))
        buffer_byte(b, '\n');
    JS_FreeValue(ctx, said);
    return done;
}

// buffer_error writes an error's message and stack, and those of what caused it.
static void buffer_error(buffer *b, JSValueConst error)
{
    JSContext *ctx = b->ctx;
    JSValue value = JS_DupValue(ctx, error);
    for (int i = 0; i < MAX_CAUSES; i++) {
        JSValue stack, cause;
        if (buffer_explained(b, value, false))
            break;
        if (!buffer_value(b, value))
            buffer_text(b, "an exception that cannot be shown");
        buffer_byte(b, '\n');
        if (!JS_IsObject(value))
            break;
        stack = JS_GetPropertyStr(ctx, value, "stack");
        if (JS_IsString(stack)) {
            buffer_value(b, stack);
            if (b->len > 0 && b->data[b->len - 1] != '\n')
                buffer_byte(b, '\n');
        }
        JS_FreeValue(ctx, JS_IsException(stack) ? JS_GetException(ctx) : stack);
        buffer_explained(b, value, true);
        cause = JS_GetPropertyStr(ctx, value, "cause");
        if (JS_IsException(cause)) {
            JS_FreeValue(ctx, JS_GetException(ctx));
            break;
        }
        JS_FreeValue(ctx, value);
        value = cause;
        if (JS_IsUndefined(value) || JS_IsNull(value))
            break;
        if (i + 1 < MAX_CAUSES)
            buffer_text(b, "caused by: ");
    }
    JS_FreeValue(ctx, value);
}

// report writes a prefix and an error to standard error. A closed or full log is
// no reason to fail.
static void report(JSContext *ctx, const char *prefix, JSValueConst error)
{
    buffer b;
    buffer_init(ctx, &b);
    buffer_text(&b, prefix);
    buffer_error(&b, error);
    host_write(HOST_STDERR, b.data, b.len);
    buffer_free(&b);
}

// report_exception reports what was thrown last.
static void report_exception(JSContext *ctx, const char *prefix)
{
    JSValue error = JS_GetException(ctx);
    report(ctx, prefix, error);
    JS_FreeValue(ctx, error);
}

static void report_text(const char *text)
{
    buffer b;
    buffer_init(engine.ctx, &b);
    buffer_text(&b, text);
    buffer_byte(&b, '\n');
    host_write(HOST_STDERR, b.data, b.len);
    buffer_free(&b);
}

// Promises that were rejected with nobody listening. One that is handled later is
// taken off again; what is left at the end is reported.
typedef struct {
    JSValue *list;
    size_t len, cap;
} rejected_state;

HOT_FITS(rejected_state, rejected);
#define rejected HOT(rejected_state, rejected)

static void on_rejection(JSContext *ctx, JSValueConst promise, JSValueConst reason, bool handled, void *opaque)
{
    (void)reason, (void)opaque;
    if (handled) {
        for (size_t i = 0; i < rejected.len; i++) {
            if (JS_VALUE_GET_PTR(rejected.list[i]) == JS_VALUE_GET_PTR(promise)) {
                JS_FreeValue(ctx, rejected.list[i]);
                rejected.list[i] = rejected.list[--rejected.len];
                return;
            }
        }
        return;
    }
    if (rejected.len == rejected.cap) {
        size_t cap = rejected.cap ? rejected.cap * 2 : 8;
        JSValue *list = js_realloc_rt(engine.rt, rejected.list, cap * sizeof *list);
        if (!list)
            return; // a report less
        rejected.list = list;
        rejected.cap = cap;
    }
    rejected.list[rejected.len++] = JS_DupValue(ctx, promise);
}

// report_rejections reports what is on the list, and empties it.
static void report_rejections(JSContext *ctx)
{
    for (size_t i = 0; i < rejected.len; i++) {
        JSValue reason = JS_PromiseResult(ctx, rejected.list[i]);
        report(ctx, "Uncaught (in promise) ", reason);
        JS_FreeValue(ctx, reason);
        JS_FreeValue(ctx, rejected.list[i]);
    }
    rejected.len = 0;
}

#endif
