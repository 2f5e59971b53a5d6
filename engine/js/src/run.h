// The three exports: _initialize makes the runtime and evaluates the boot scripts,
// prepare evaluates the function's module, handle answers one request.
#ifndef CASEMATE_RUN_H
#define CASEMATE_RUN_H

#define EXPORT(name) __attribute__((export_name(#name)))

// The cycle collector runs when this much more is allocated than after prepare. A
// short request never gets there, which matters: a collection writes to every page.
#define COLLECT_AFTER (8 << 20)

// MAX_INPUT bounds head and body together, in bytes.
#define MAX_INPUT (1 << 30)

static const char boot_source[] = {
#include "boot.inc"
    0};

static void die(const char *what)
{
    if (engine.ctx && JS_HasException(engine.ctx))
        report_exception(engine.ctx, what);
    else
        host_write(HOST_STDERR, what, strlen(what));
    host_proc_exit(70);
}

// read_input reads standard input to its end, and puts a NUL behind it.
static bool read_input(void)
{
    if (!engine.input) {
        engine.input = hot.input;
        engine.input_cap = sizeof hot.input;
    }
    engine.input_len = 0;
    for (;;) {
        host_vec vec = {engine.input + engine.input_len, engine.input_cap - 1 - engine.input_len};
        uint32_t got = 0;
        if (vec.len == 0) {
            size_t cap = engine.input_cap * 2;
            char *old = engine.input == hot.input ? NULL : engine.input;
            char *data = cap <= MAX_INPUT ? js_realloc_rt(engine.rt, old, cap) : NULL;
            if (!data)
                return false;
            if (!old)
                memcpy(data, hot.input, engine.input_len);
            engine.input = data;
            engine.input_cap = cap;
            continue;
        }
        if (host_fd_read(HOST_STDIN, &vec, 1, &got) != 0)
            return false;
        if (got == 0)
            break;
        engine.input_len += got;
    }
    engine.input[engine.input_len] = 0;
    return true;
}

static void drop_input(void)
{
    if (engine.input && engine.input != hot.input)
        js_free_rt(engine.rt, engine.input);
    engine.input = NULL;
    engine.line = engine.body = (span){0};
}

// run_jobs runs promise jobs until none is left.
static void run_jobs(void)
{
    JSContext *ctx;
    while (!list_empty(&engine.rt->job_list))
        if (JS_ExecutePendingJob(engine.rt, &ctx) < 0)
            report_exception(ctx, "Uncaught ");
}

static JSModuleDef *no_module(JSContext *ctx, const char *name, void *opaque, JSValueConst attributes)
{
    (void)opaque, (void)attributes;
    JS_ThrowTypeError(ctx, "import of \"%.200s\": a function is one file; bundle what it needs", name);
    return NULL;
}

static JSValue member(JSContext *ctx, JSValueConst object, const char *name)
{
    JSValue value = JS_GetPropertyStr(ctx, object, name);
    if (!JS_IsFunction(ctx, value))
        die("engine: the boot scripts give no function\n");
    return value;
}

static void boot(JSContext *ctx)
{
    JSValue native = JS_NewObject(ctx), function, given;
    JS_SetPropertyFunctionList(ctx, native, natives, countof(natives));
    function = JS_Eval(ctx, boot_source, sizeof boot_source - 1, "casemate:boot", JS_EVAL_TYPE_GLOBAL);
    if (JS_IsException(function))
        die("engine: compiling the boot scripts: ");
    given = JS_Call(ctx, function, JS_UNDEFINED, 1, (JSValueConst *)&native);
    if (JS_IsException(given))
        die("engine: running the boot scripts: ");
    engine.install = member(ctx, given, "install");
    engine.dispatch = member(ctx, given, "dispatch");
    engine.tick = member(ctx, given, "tick");
    engine.explain = member(ctx, given, "explain");
    JS_FreeValue(ctx, given);
    JS_FreeValue(ctx, function);
    JS_FreeValue(ctx, native);
    run_jobs();
}

// make_builtins makes the built-in functions that QuickJS makes when they are first
// used: then every request would make them again. A function's own prototype stays
// for when it is needed.
static void make_builtins(JSContext *ctx)
{
    struct list_head *el;
    list_for_each(el, &engine.rt->gc_obj_list) {
        JSGCObjectHeader *header = list_entry(el, JSGCObjectHeader, link);
        JSObject *p = (JSObject *)header;
        if (JS_GC_TYPE(header) != JS_GC_OBJ_TYPE_JS_OBJECT)
            continue;
        for (int i = 0; i < p->shape->prop_count; i++) {
            JSShapeProperty *prs = get_shape_prop(p->shape) + i;
            if (prs->atom == JS_ATOM_NULL || (prs->flags & JS_PROP_TMASK) != JS_PROP_AUTOINIT ||
                js_autoinit_get_id(&p->prop[i]) == JS_AUTOINIT_ID_PROTOTYPE)
                continue;
            if (JS_AutoInitProperty(ctx, p, prs->atom, &p->prop[i], prs) < 0)
                die("engine: making the built-in functions: ");
        }
    }
}

// __wasm_call_ctors comes from the linker; crt1 would call it from _initialize.
__attribute__((constructor)) static void initialize(void)
{
    static const JSMallocFunctions functions = {hot_calloc, js_def_malloc, js_def_free, js_def_realloc, NULL};
    JSRuntime *rt;
    JSContext *ctx;
    _Static_assert(sizeof(JSRuntime) <= sizeof hot.runtime, "no place");
    rt = JS_NewRuntime2(&functions, NULL);
    if (!rt)
        die("engine: no memory for the runtime\n");
    engine.rt = rt;
    rt->stack_limit = STACK_LIMIT; // JS_SetMaxStackSize does nothing on WASI
    JS_SetGCThreshold(rt, COLLECT_AFTER);
    JS_SetModuleLoaderFunc2(rt, NULL, no_module, NULL, NULL);
    JS_SetHostPromiseRejectionTracker(rt, on_rejection, NULL);
    heap_place_context();
    ctx = JS_NewContextRaw(rt);
    // As JS_NewContext does.
    if (!ctx || JS_AddIntrinsicBaseObjects(ctx) || JS_AddIntrinsicDate(ctx) || JS_AddIntrinsicEval(ctx) ||
        JS_AddIntrinsicRegExp(ctx) || JS_AddIntrinsicJSON(ctx) || JS_AddIntrinsicProxy(ctx) ||
        JS_AddIntrinsicMapSet(ctx) || JS_AddIntrinsicTypedArrays(ctx) || JS_AddIntrinsicPromise(ctx) ||
        JS_AddIntrinsicWeakRef(ctx) || JS_AddIntrinsicAToB(ctx) || JS_AddPerformance(ctx))
        die("engine: no memory for the context\n");
    engine.ctx = ctx;
    engine.preparing = true;
    boot(ctx);
    make_builtins(ctx);
}

// evaluate runs the module in the input and gives its default export.
static JSValue evaluate(JSContext *ctx)
{
    JSValue module, done, space, value;
    JSModuleDef *m;
    module = JS_Eval(ctx, engine.input, engine.input_len, "function.js", JS_EVAL_TYPE_MODULE | JS_EVAL_FLAG_COMPILE_ONLY);
    if (JS_IsException(module))
        return module;
    m = JS_VALUE_GET_PTR(module);
    done = JS_EvalFunction(ctx, module);
    if (JS_IsException(done))
        return done;
    run_jobs();
    switch (JS_PromiseState(ctx, done)) {
    case JS_PROMISE_REJECTED:
        on_rejection(ctx, done, JS_UNDEFINED, true, NULL);
        value = JS_PromiseResult(ctx, done);
        JS_FreeValue(ctx, done);
        return JS_Throw(ctx, value);
    case JS_PROMISE_PENDING:
        JS_FreeValue(ctx, done);
        return JS_ThrowTypeError(ctx, "the module awaits a promise that can never settle");
    default:
        JS_FreeValue(ctx, done);
    }
    space = JS_GetModuleNamespace(ctx, m);
    if (JS_IsException(space))
        return space;
    value = JS_GetPropertyStr(ctx, space, "default");
    JS_FreeValue(ctx, space);
    return value;
}

EXPORT(prepare) int32_t prepare(void)
{
    JSContext *ctx = engine.ctx;
    JSValue value, done;
    if (!read_input()) {
        report_text("reading the module: more than fits into memory");
        return 1;
    }
    value = evaluate(ctx);
    if (JS_IsException(value)) {
        report_exception(ctx, "");
        return 1;
    }
    done = JS_Call(ctx, engine.install, JS_UNDEFINED, 1, (JSValueConst *)&value);
    JS_FreeValue(ctx, value);
    if (JS_IsException(done)) {
        report_exception(ctx, "");
        return 1;
    }
    JS_FreeValue(ctx, done);
    run_jobs();
    report_rejections(ctx);
    drop_input();
    JS_RunGC(engine.rt);
    if (!heap_seal(engine.rt)) {
        report_text("no memory left for handling requests");
        return 1;
    }
    JS_SetGCThreshold(engine.rt, engine.rt->malloc_state.malloc_size + COLLECT_AFTER);
    engine.preparing = false;
    return 0;
}

// reseed gives Math.random a state of its own: every restored instance would
// otherwise give the same numbers.
static void reseed(JSContext *ctx)
{
    uint64_t seed = 0;
    if (host_random_get(&seed, sizeof seed) != 0)
        __builtin_trap();
    ctx->random_state = seed ? seed : 1;
}

static bool split_input(void)
{
    char *end = memchr(engine.input, '\n', engine.input_len);
    size_t line = end ? (size_t)(end - engine.input) : engine.input_len;
    engine.line = make_span(engine.input, line);
    if (end) {
        *end = 0; // for the JSON parser
        engine.body = make_span(end + 1, engine.input_len - line - 1);
    } else {
        engine.body = make_span(engine.input + line, 0);
    }
    return read_head(engine.line);
}

static void fail_exception(JSContext *ctx)
{
    if (!engine.failed)
        report_exception(ctx, "");
    else
        JS_FreeValue(ctx, JS_GetException(ctx));
    engine.failed = true;
}

static void dispatch(JSContext *ctx)
{
    JSValue args[5], out;
    args[0] = head_string(ctx, head.trigger);
    args[1] = head_string(ctx, head.method);
    args[2] = head_string(ctx, head.path);
    args[3] = head_string(ctx, head.query);
    args[4] = JS_NewUint32(ctx, engine.body.len);
    out = JS_Call(ctx, engine.dispatch, JS_UNDEFINED, 5, (JSValueConst *)args);
    for (int i = 0; i < 5; i++)
        JS_FreeValue(ctx, args[i]);
    if (JS_IsException(out))
        fail_exception(ctx);
    JS_FreeValue(ctx, out);
}

// step waits for what is under way: timers first, then operations. False when
// nothing can happen any more.
static bool step(JSContext *ctx)
{
    JSValue out = JS_Call(ctx, engine.tick, JS_UNDEFINED, 0, NULL);
    double ms = -1;
    if (JS_IsException(out)) {
        report_exception(ctx, "Uncaught ");
        return true;
    }
    JS_ToFloat64(ctx, &ms, out);
    JS_FreeValue(ctx, out);
    if (ms == 0)
        return true;
    if (!(ms > 0) && pending.len == pending.sleeps)
        return false;
    if (ms > 0) {
        double ns = ceil(ms * 1e6);
        uint64_t wait = ns < 9e18 ? (uint64_t)ns : (uint64_t)9e18;
        if (!sleep_until(ctx, host_now(HOST_MONOTONIC), wait)) {
            fail_exception(ctx);
            return true;
        }
    }
    return settle(ctx);
}

EXPORT(handle) int32_t handle(void)
{
    JSContext *ctx = engine.ctx;
    engine.answered = engine.finished = engine.failed = false;
    if (engine.preparing) {
        report_text("engine: handle was called without prepare");
        return 1;
    }
    pending.len = pending.sleeps = 0; // of an earlier request, on state that was not restored
    reseed(ctx);
    if (!read_input()) {
        report_text("reading the request: more than fits into memory");
        return 1;
    }
    if (!split_input()) {
        report_text("engine: the request's head line is not valid");
        return 1;
    }
    dispatch(ctx);
    for (;;) {
        run_jobs();
        if (engine.failed || engine.finished)
            break;
        if (!step(ctx)) {
            if (engine.answered) {
                report_text("a promise given to waitUntil can never settle");
                break;
            }
            report_text("Error: the handler's promise can never settle: nothing is under way that could settle it");
            engine.failed = true;
        }
    }
    report_rejections(ctx);
    drop_input();
    return engine.failed ? 1 : 0;
}

#endif
