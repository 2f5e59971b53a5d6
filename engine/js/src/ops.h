// Host operations: `call` at once, `submit` with a promise that the loop settles, and
// the sleeps that wake the loop for timers.
#ifndef CASEMATE_OPS_H
#define CASEMATE_OPS_H

typedef struct {
    int32_t handle;
    bool sleep;
    uint64_t ends;           // of a sleep: monotonic nanoseconds
    JSValue resolve, reject; // of an operation
} pending_op;

typedef struct {
    pending_op *list;
    size_t len, cap;
    size_t sleeps; // of them
} pending_state;

HOT_FITS(pending_state, pending);
#define pending HOT(pending_state, pending)

// throw_refused says why the host did not begin an operation.
static JSValue throw_refused(JSContext *ctx, const char *op, int32_t code)
{
    switch (code) {
    case -1:
        if (engine.preparing)
            return JS_ThrowTypeError(ctx, "%.100s: not possible while the module is evaluated, only while a request is handled", op);
        return JS_ThrowTypeError(ctx, "%.100s: the function has not been granted this operation", op);
    case -2:
        return JS_ThrowTypeError(ctx, "%.100s: malformed request", op);
    case -3:
        return JS_ThrowRangeError(ctx, "%.100s: too many operations at once", op);
    default:
        return JS_ThrowInternalError(ctx, "%.100s: refused by the host (%d)", op, (int)code);
    }
}

// take_reply reads a reply. It gives bytes, or throws the reason for a failure.
static JSValue take_reply(JSContext *ctx, int32_t handle)
{
    int32_t size = host_size(handle);
    uint8_t *data;
    if (size < 1)
        return JS_ThrowInternalError(ctx, "the host's reply is lost");
    data = js_malloc(ctx, size);
    if (!data)
        return JS_EXCEPTION;
    if (host_read(handle, data, size) != size) {
        js_free(ctx, data);
        return JS_ThrowInternalError(ctx, "the host's reply is lost");
    }
    if (data[0] != 0) {
        JSValue error = JS_NewError(ctx), text = utf8_string(ctx, data + 1, size - 1, NULL);
        js_free(ctx, data);
        if (JS_IsException(error) || JS_IsException(text)) {
            JS_FreeValue(ctx, error);
            JS_FreeValue(ctx, text);
            return JS_EXCEPTION;
        }
        JS_DefinePropertyValueStr(ctx, error, "message", text, JS_PROP_WRITABLE | JS_PROP_CONFIGURABLE);
        return JS_Throw(ctx, error);
    }
    memmove(data, data + 1, size - 1);
    return JS_NewUint8Array(ctx, data, size - 1, js_array_buffer_realloc, NULL, false);
}

static pending_op *add_pending(JSContext *ctx)
{
    if (pending.len == pending.cap) {
        size_t cap = pending.cap ? pending.cap * 2 : 4;
        pending_op *list = js_realloc(ctx, pending.list, cap * sizeof *list);
        if (!list)
            return NULL;
        pending.list = list;
        pending.cap = cap;
    }
    return &pending.list[pending.len];
}

// submit begins an operation and gives its promise.
static JSValue submit(JSContext *ctx, const char *op, size_t op_len, const void *req, size_t len)
{
    JSValue promise, functions[2];
    pending_op *p = add_pending(ctx);
    int32_t handle;
    if (!p)
        return JS_EXCEPTION;
    promise = JS_NewPromiseCapability(ctx, functions);
    if (JS_IsException(promise))
        return promise;
    handle = host_submit(op, op_len, req, len);
    if (handle <= 0) {
        throw_refused(ctx, op, handle);
        JS_FreeValue(ctx, functions[0]);
        JS_FreeValue(ctx, functions[1]);
        JS_FreeValue(ctx, promise);
        return JS_EXCEPTION;
    }
    *p = (pending_op){.handle = handle, .resolve = functions[0], .reject = functions[1]};
    pending.len++;
    return promise;
}

// sleep_until submits a sleep unless one is under way that ends early enough. False
// and an exception when the host refuses.
static bool sleep_until(JSContext *ctx, uint64_t now, uint64_t ns)
{
    static const char op[] = "time.sleep";
    pending_op *p;
    int32_t handle;
    for (size_t i = 0; i < pending.len; i++)
        if (pending.list[i].sleep && pending.list[i].ends <= now + ns)
            return true;
    p = add_pending(ctx);
    if (!p)
        return false;
    handle = host_submit(op, sizeof op - 1, &ns, sizeof ns);
    if (handle <= 0) {
        throw_refused(ctx, op, handle);
        return false;
    }
    *p = (pending_op){.handle = handle, .sleep = true, .ends = now + ns, .resolve = JS_UNDEFINED, .reject = JS_UNDEFINED};
    pending.len++;
    pending.sleeps++;
    return true;
}

// settle waits for one operation to end and settles its promise. False when none is
// under way.
static bool settle(JSContext *ctx)
{
    pending_op op;
    JSValue value, done;
    size_t i = 0;
    int32_t handle = host_poll();
    if (handle <= 0)
        return false;
    while (i < pending.len && pending.list[i].handle != handle)
        i++;
    if (i == pending.len)
        return false;
    op = pending.list[i];
    pending.list[i] = pending.list[--pending.len];
    if (op.sleep) {
        char status;
        host_read(handle, &status, 1);
        pending.sleeps--;
        return true;
    }
    value = take_reply(ctx, handle);
    if (JS_IsException(value)) {
        value = JS_GetException(ctx);
        done = JS_Call(ctx, op.reject, JS_UNDEFINED, 1, (JSValueConst *)&value);
    } else {
        done = JS_Call(ctx, op.resolve, JS_UNDEFINED, 1, (JSValueConst *)&value);
    }
    JS_FreeValue(ctx, done);
    JS_FreeValue(ctx, value);
    JS_FreeValue(ctx, op.resolve);
    JS_FreeValue(ctx, op.reject);
    return true;
}

#endif
