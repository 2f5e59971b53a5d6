// The promise of an async function, without the two functions that resolve it: no
// program ever sees those, and making them is half the price of a call.
// build/edits.go puts these in their places in quickjs.c.
#ifndef CASEMATE_ASYNC_H
#define CASEMATE_ASYNC_H

// async_promise gives a pending promise, and keeps it in *own as well.
static JSValue async_promise(JSContext *ctx, JSValue *own)
{
    JSValue promise = JS_NewObjectProtoClass(ctx, ctx->class_proto[JS_CLASS_PROMISE], JS_CLASS_PROMISE);
    JSPromiseData *s;
    if (JS_IsException(promise))
        return promise;
    s = js_mallocz(ctx, sizeof *s);
    if (!s) {
        JS_FreeValue(ctx, promise);
        return JS_EXCEPTION;
    }
    s->promise_state = JS_PROMISE_PENDING;
    init_list_head(&s->promise_reactions[0]);
    init_list_head(&s->promise_reactions[1]);
    s->promise_result = JS_UNDEFINED;
    JS_SetOpaqueInternal(promise, s);
    *own = js_dup(promise);
    return promise;
}

// async_settle is what the functions would do; it is called once for a promise
// (https://tc39.es/ecma262/#sec-promise-resolve-functions).
static JSValue async_settle(JSContext *ctx, JSValueConst promise, JSValueConst value, bool reject)
{
    JSValue then;
    if (reject || !JS_IsObject(value)) {
        fulfill_or_reject_promise(ctx, promise, value, reject);
        return JS_UNDEFINED;
    }
    if (js_same_value(ctx, value, promise))
        then = JS_ThrowTypeError(ctx, "promise self resolution");
    else
        then = JS_GetProperty(ctx, value, JS_ATOM_then);
    if (JS_IsException(then)) {
        JSValue error = JS_GetException(ctx);
        fulfill_or_reject_promise(ctx, promise, error, true);
        JS_FreeValue(ctx, error);
    } else if (!JS_IsFunction(ctx, then)) {
        fulfill_or_reject_promise(ctx, promise, value, false);
    } else {
        JSValueConst args[3] = {promise, value, then};
        JS_EnqueueJob(ctx, js_promise_resolve_thenable_job, 3, args);
    }
    JS_FreeValue(ctx, then);
    return JS_UNDEFINED;
}

#endif
