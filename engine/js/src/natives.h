// The members of __native. boot/NATIVES.md says what each one does; here is how.
#ifndef CASEMATE_NATIVES_H
#define CASEMATE_NATIVES_H

NATIVE(native_utf8_encode)
{
    JSString *s = flat(ctx, argv[0]);
    uint8_t *data;
    size_t len;
    UNUSED;
    if (!s)
        return JS_EXCEPTION;
    len = string_utf8_len(s);
    data = js_malloc(ctx, len ? len : 1);
    if (data)
        string_utf8(s, data);
    free_flat(ctx, s);
    return data ? JS_NewUint8Array(ctx, data, len, js_array_buffer_realloc, NULL, false) : JS_EXCEPTION;
}

NATIVE(native_utf8_encode_into)
{
    JSValue pair[2];
    JSString *s;
    span into;
    size_t read = 0, written = 0;
    UNUSED;
    s = flat(ctx, argv[0]);
    if (!s)
        return JS_EXCEPTION;
    if (!bytes_arg(ctx, argv[1], &into)) {
        free_flat(ctx, s);
        return JS_EXCEPTION;
    }
    while (read < s->len) {
        size_t next = read;
        uint32_t c = s->is_wide_char ? next_point(str16(s), s->len, &next) : str8(s)[next++];
        if (utf8_len(c) > into.len - written)
            break;
        utf8_put((uint8_t *)into.data + written, c);
        written += utf8_len(c);
        read = next;
    }
    free_flat(ctx, s);
    pair[0] = JS_NewInt64(ctx, read);
    pair[1] = JS_NewInt64(ctx, written);
    return JS_NewArrayFrom(ctx, 2, pair);
}

static JSValue decode(JSContext *ctx, span in, bool fatal, bool keep_bom)
{
    bool bad = false;
    JSValue text;
    if (!keep_bom && has_bom((const uint8_t *)in.data, in.len))
        in = make_span(in.data + 3, in.len - 3);
    text = utf8_string(ctx, (const uint8_t *)in.data, in.len, &bad);
    if (fatal && bad) {
        JS_FreeValue(ctx, text);
        return JS_ThrowTypeError(ctx, "The encoded data was not valid for encoding utf-8");
    }
    return text;
}

NATIVE(native_utf8_decode)
{
    span in;
    UNUSED;
    if (!bytes_arg(ctx, argv[0], &in))
        return JS_EXCEPTION;
    return decode(ctx, in, JS_ToBool(ctx, argv[1]), JS_ToBool(ctx, argv[2]));
}

NATIVE(native_latin1_decode)
{
    span in;
    UNUSED;
    if (!bytes_arg(ctx, argv[0], &in))
        return JS_EXCEPTION;
    if (in.len > JS_STRING_LEN_MAX)
        return JS_ThrowRangeError(ctx, "invalid string length");
    return js_new_string8_len(ctx, in.data, in.len);
}

NATIVE(native_latin1_encode)
{
    JSString *s = flat(ctx, argv[0]);
    JSValue out;
    UNUSED;
    if (!s)
        return JS_EXCEPTION;
    if (!s->is_wide_char) {
        out = JS_NewUint8ArrayCopy(ctx, str8(s), s->len);
    } else {
        uint8_t *data = js_malloc(ctx, s->len ? s->len : 1);
        uint16_t all = 0;
        if (!data) {
            free_flat(ctx, s);
            return JS_EXCEPTION;
        }
        for (uint32_t i = 0; i < s->len; i++) {
            all |= str16(s)[i];
            data[i] = str16(s)[i];
        }
        if (all > 0xff) {
            js_free(ctx, data);
            out = JS_NULL;
        } else {
            out = JS_NewUint8Array(ctx, data, s->len, js_array_buffer_realloc, NULL, false);
        }
    }
    free_flat(ctx, s);
    return out;
}

NATIVE(native_random)
{
    span out;
    UNUSED;
    if (!bytes_arg(ctx, argv[0], &out))
        return JS_EXCEPTION;
    if (out.len > 0 && host_random_get((void *)(uintptr_t)out.data, out.len) != 0)
        return JS_ThrowInternalError(ctx, "no random bytes to be had");
    return JS_UNDEFINED;
}

// reply_of turns a host call's result into bytes or an exception.
static JSValue reply_of(JSContext *ctx, const char *op, int32_t handle)
{
    return handle > 0 ? take_reply(ctx, handle) : throw_refused(ctx, op, handle);
}

NATIVE(native_digest)
{
    static const char op[] = "crypto.digest";
    uint8_t small[512], *req = small;
    int32_t algorithm, handle;
    span data;
    UNUSED;
    if (JS_ToInt32(ctx, &algorithm, argv[0]) || !bytes_arg(ctx, argv[1], &data))
        return JS_EXCEPTION;
    if (data.len >= sizeof small && !(req = js_malloc(ctx, (size_t)data.len + 1)))
        return JS_EXCEPTION;
    req[0] = algorithm;
    if (data.len > 0)
        memcpy(req + 1, data.data, data.len);
    handle = host_call(op, sizeof op - 1, req, data.len + 1);
    if (req != small)
        js_free(ctx, req);
    return reply_of(ctx, op, handle);
}

NATIVE(native_hmac)
{
    static const char op[] = "crypto.hmac";
    uint8_t small[512], *req = small;
    int32_t algorithm, handle;
    span key, data;
    size_t len;
    UNUSED;
    if (JS_ToInt32(ctx, &algorithm, argv[0]) || !bytes_arg(ctx, argv[1], &key) || !bytes_arg(ctx, argv[2], &data))
        return JS_EXCEPTION;
    len = 5 + (size_t)key.len + data.len;
    if (len > sizeof small && !(req = js_malloc(ctx, len)))
        return JS_EXCEPTION;
    req[0] = algorithm;
    memcpy(req + 1, &key.len, 4); // wasm is little-endian, as the request is
    if (key.len > 0)
        memcpy(req + 5, key.data, key.len);
    if (data.len > 0)
        memcpy(req + 5 + key.len, data.data, data.len);
    handle = host_call(op, sizeof op - 1, req, len);
    if (req != small)
        js_free(ctx, req);
    return reply_of(ctx, op, handle);
}

// operation does call (magic 0) and submit (magic 1).
static JSValue native_operation(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv, int magic)
{
    const char *op;
    JSValue out;
    size_t len;
    span req;
    UNUSED;
    if (!bytes_arg(ctx, argv[1], &req))
        return JS_EXCEPTION;
    op = JS_ToCStringLen(ctx, &len, argv[0]);
    if (!op)
        return JS_EXCEPTION;
    if (magic)
        out = submit(ctx, op, len, req.data, req.len);
    else
        out = reply_of(ctx, op, host_call(op, len, req.data, req.len));
    JS_FreeCString(ctx, op);
    return out;
}

NATIVE(native_monotonic)
{
    UNUSED;
    return JS_NewFloat64(ctx, (double)host_now(HOST_MONOTONIC) / 1e6);
}

NATIVE(native_print)
{
    buffer b;
    UNUSED;
    buffer_init(ctx, &b);
    if (!buffer_value(&b, argv[1])) {
        buffer_free(&b);
        return JS_ThrowTypeError(ctx, "cannot be shown");
    }
    buffer_byte(&b, '\n');
    host_write(HOST_STDERR, b.data, b.len);
    buffer_free(&b);
    return JS_UNDEFINED;
}

NATIVE(native_environ)
{
    uint32_t count = 0, bytes = 0;
    char **entries, *data;
    JSValue list = JS_NewArray(ctx);
    UNUSED;
    if (JS_IsException(list))
        return list;
    if (host_environ_sizes_get(&count, &bytes) != 0 || count == 0)
        return list;
    entries = js_malloc(ctx, count * sizeof *entries);
    data = js_malloc(ctx, bytes ? bytes : 1);
    if (entries && data && host_environ_get(entries, data) == 0) {
        for (uint32_t i = 0; i < count; i++) {
            JSValue text = utf8_string(ctx, (uint8_t *)entries[i], strlen(entries[i]), NULL);
            if (JS_IsException(text) || JS_SetPropertyUint32(ctx, list, i, text) < 0)
                break;
        }
    }
    js_free(ctx, entries);
    js_free(ctx, data);
    if (JS_HasException(ctx)) {
        JS_FreeValue(ctx, list);
        return JS_EXCEPTION;
    }
    return list;
}

NATIVE(native_settled)
{
    UNUSED;
    switch (JS_PromiseState(ctx, argv[0])) {
    case JS_PROMISE_PENDING: return JS_NewInt32(ctx, 0);
    case JS_PROMISE_FULFILLED: return JS_NewInt32(ctx, 1);
    case JS_PROMISE_REJECTED: return JS_NewInt32(ctx, 2);
    default: return JS_NewInt32(ctx, -1);
    }
}

NATIVE(native_result)
{
    UNUSED;
    JS_PromiseMarkAsHandled(ctx, argv[0]);
    on_rejection(ctx, argv[0], JS_UNDEFINED, true, NULL);
    return JS_PromiseResult(ctx, argv[0]);
}

static JSValue head_string(JSContext *ctx, span s)
{
    buffer b;
    JSValue text;
    if (!memchr(s.data ? s.data : "", '\\', s.len))
        return utf8_string(ctx, (const uint8_t *)s.data, s.len, NULL);
    buffer_init(ctx, &b);
    s = unescape(&b, s);
    text = b.broken ? JS_ThrowOutOfMemory(ctx) : utf8_string(ctx, (const uint8_t *)s.data, s.len, NULL);
    buffer_free(&b);
    return text;
}

NATIVE(native_url)
{
    buffer b, host, path, query;
    JSValue text;
    UNUSED;
    if (!head.host.data)
        read_host();
    buffer_init(ctx, &b);
    buffer_init(ctx, &host);
    buffer_init(ctx, &path);
    buffer_init(ctx, &query);
    url_compose(&b, !span_is(head.scheme, "http"), unescape(&host, head.host), unescape(&path, head.path),
                unescape(&query, head.query));
    if (b.broken || host.broken || path.broken || query.broken)
        text = JS_ThrowOutOfMemory(ctx);
    else
        text = utf8_string(ctx, (uint8_t *)b.data, b.len, NULL);
    buffer_free(&query);
    buffer_free(&path);
    buffer_free(&host);
    buffer_free(&b);
    return text;
}

NATIVE(native_headers)
{
    JSValue list = JS_NewArray(ctx);
    uint32_t n = 0;
    header_scan h = {{head.headers.data, head.headers.data + head.headers.len}, {0}, HEADERS_START};
    UNUSED;
    if (JS_IsException(list))
        return list;
    for (span value; next_header(&h, &value);) {
        JSValue name = head_string(ctx, h.name), text = head_string(ctx, value);
        if (JS_SetPropertyUint32(ctx, list, n++, name) < 0 || JS_SetPropertyUint32(ctx, list, n++, text) < 0) {
            JS_FreeValue(ctx, list);
            return JS_EXCEPTION;
        }
    }
    return list;
}

NATIVE(native_head)
{
    UNUSED;
    return JS_ParseJSON(ctx, engine.line.data ? engine.line.data : "{}", engine.line.len, "<head>");
}

NATIVE(native_body_bytes)
{
    UNUSED;
    return JS_NewUint8ArrayCopy(ctx, (const uint8_t *)engine.body.data, engine.body.len);
}

NATIVE(native_body_text)
{
    UNUSED;
    return decode(ctx, engine.body, false, false);
}

NATIVE(native_body_json)
{
    span in = engine.body;
    UNUSED;
    if (has_bom((const uint8_t *)in.data, in.len))
        in = make_span(in.data + 3, in.len - 3);
    if (in.len == 0)
        return JS_ParseJSON(ctx, "", 0, "<body>");
    // The byte behind the body is NUL, as the parser wants it.
    if (utf8_valid((const uint8_t *)in.data, in.len))
        return JS_ParseJSON(ctx, in.data, in.len, "<body>");
    JSValue text = decode(ctx, in, false, true), value;
    const char *clean;
    size_t len;
    if (JS_IsException(text))
        return text;
    clean = JS_ToCStringLen(ctx, &len, text);
    JS_FreeValue(ctx, text);
    if (!clean)
        return JS_EXCEPTION;
    value = JS_ParseJSON(ctx, clean, len, "<body>");
    JS_FreeCString(ctx, clean);
    return value;
}

NATIVE(native_finish)
{
    UNUSED;
    engine.finished = true;
    return JS_UNDEFINED;
}

NATIVE(native_fail)
{
    UNUSED;
    if (!engine.failed)
        report(ctx, "", argv[0]);
    engine.failed = true;
    return JS_UNDEFINED;
}

NATIVE(native_url_scan)
{
    JSString *s = flat(ctx, argv[0]);
    JSTypedArray *ta;
    JSObject *out;
    int32_t at[6];
    bool ok;
    UNUSED;
    if (!s)
        return JS_EXCEPTION;
    ok = !s->is_wide_char && url_scan(str8(s), s->len, at);
    free_flat(ctx, s);
    if (!ok)
        return JS_FALSE;
    out = get_typed_array(ctx, argv[1]);
    if (!out)
        return JS_EXCEPTION;
    ta = out->u.typed_array;
    if (out->class_id != JS_CLASS_INT32_ARRAY || typed_array_is_oob(out) || ta->length < sizeof at)
        return JS_ThrowTypeError(ctx, "not an Int32Array of six");
    memcpy(ta->buffer->u.array_buffer->data + ta->offset, at, sizeof at);
    return JS_TRUE;
}

NATIVE(native_when_settled)
{
    JSValueConst nobody[2] = {JS_UNDEFINED, JS_UNDEFINED};
    UNUSED;
    if (JS_PromiseState(ctx, argv[0]) < 0)
        return JS_ThrowTypeError(ctx, "not a promise");
    return perform_promise_then(ctx, argv[0], argv + 1, nobody) ? JS_EXCEPTION : JS_UNDEFINED;
}

NATIVE(native_keep_shape)
{
    UNUSED;
    return keep_shape(ctx, JS_VALUE_GET_OBJ(argv[0]));
}

static const JSCFunctionListEntry natives[] = {
    JS_CFUNC_DEF("utf8Encode", 1, native_utf8_encode),
    JS_CFUNC_DEF("utf8EncodeInto", 2, native_utf8_encode_into),
    JS_CFUNC_DEF("utf8Decode", 3, native_utf8_decode),
    JS_CFUNC_DEF("latin1Decode", 1, native_latin1_decode),
    JS_CFUNC_DEF("latin1Encode", 1, native_latin1_encode),
    JS_CFUNC_DEF("random", 1, native_random),
    JS_CFUNC_DEF("digest", 2, native_digest),
    JS_CFUNC_DEF("hmac", 3, native_hmac),
    JS_CFUNC_MAGIC_DEF("call", 2, native_operation, 0),
    JS_CFUNC_MAGIC_DEF("submit", 2, native_operation, 1),
    JS_CFUNC_DEF("monotonic", 0, native_monotonic),
    JS_CFUNC_DEF("print", 2, native_print),
    JS_CFUNC_DEF("environ", 0, native_environ),
    JS_CFUNC_DEF("settled", 1, native_settled),
    JS_CFUNC_DEF("whenSettled", 3, native_when_settled),
    JS_CFUNC_DEF("result", 1, native_result),
    JS_CFUNC_DEF("url", 0, native_url),
    JS_CFUNC_DEF("headers", 0, native_headers),
    JS_CFUNC_DEF("head", 0, native_head),
    JS_CFUNC_DEF("bodyBytes", 0, native_body_bytes),
    JS_CFUNC_DEF("bodyText", 0, native_body_text),
    JS_CFUNC_DEF("bodyJSON", 0, native_body_json),
    JS_CFUNC_DEF("answer", 3, native_answer),
    JS_CFUNC_DEF("finish", 0, native_finish),
    JS_CFUNC_DEF("fail", 1, native_fail),
    JS_CFUNC_DEF("urlScan", 2, native_url_scan),
    JS_CFUNC_DEF("headerName", 1, native_header_name),
    JS_CFUNC_DEF("keepShape", 1, native_keep_shape),
    JS_CFUNC_DEF("listAdd", 3, native_list_add),
    JS_CFUNC_DEF("listHas", 2, native_list_has),
    JS_CFUNC_DEF("listFill", 2, native_list_fill),
    JS_CFUNC_DEF("headersInstall", 2, native_headers_install),
};

#endif
