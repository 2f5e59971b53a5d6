// How a function in C is given to the boot scripts.
#ifndef CASEMATE_NATIVE_H
#define CASEMATE_NATIVE_H

#define NATIVE(name) \
    static JSValue name(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv)
#define UNUSED (void)ctx, (void)this_val, (void)argc, (void)argv

// bytes_arg gives a Uint8Array's bytes; false and an exception for anything else.
static bool bytes_arg(JSContext *ctx, JSValueConst value, span *out)
{
    size_t len = 0;
    const uint8_t *data = JS_GetUint8Array(ctx, &len, value);
    if (!data && JS_HasException(ctx))
        return false;
    *out = make_span((const char *)data, len);
    return true;
}

#endif
