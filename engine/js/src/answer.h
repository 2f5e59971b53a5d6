// The answer: a line of JSON with status and headers, and then the body.
#ifndef CASEMATE_ANSWER_H
#define CASEMATE_ANSWER_H

// buffer_json writes a string as JSON in UTF-8.
static void buffer_json(buffer *b, JSString *s)
{
    static const char hex[] = "0123456789abcdef";
    buffer_byte(b, '"');
    for (size_t i = 0; i < s->len;) {
        uint32_t c = s->is_wide_char ? next_point(str16(s), s->len, &i) : str8(s)[i++];
        char *room = buffer_room(b, 6);
        if (!room)
            return;
        if (c == '"' || c == '\\') {
            room[0] = '\\';
            room[1] = c;
            b->len += 2;
        } else if (c < 0x20) {
            memcpy(room, "\\u00", 4);
            room[4] = hex[c >> 4];
            room[5] = hex[c & 15];
            b->len += 6;
        } else {
            b->len += utf8_put((uint8_t *)room, c) - (uint8_t *)room;
        }
    }
    buffer_byte(b, '"');
}

// MAX_HEADERS bounds the names and values of an answer together: each name is
// compared with all before it.
#define MAX_HEADERS 2048

// buffer_headers writes the object of headers, with a list where a name comes more
// than once.
static bool buffer_headers(buffer *b, JSValueConst list)
{
    JSContext *ctx = b->ctx;
    JSString **texts;
    int64_t n = 0, i, k;
    bool first = true, ok = true;
    if (JS_GetLength(ctx, list, &n))
        return false;
    if (n < 2)
        return true;
    if (n > MAX_HEADERS) {
        JS_ThrowRangeError(ctx, "more than %d headers", MAX_HEADERS / 2);
        return false;
    }
    n &= ~1;
    texts = js_mallocz(ctx, n * sizeof *texts);
    if (!texts)
        return false;
    for (i = 0; i < n && ok; i++) {
        JSValue item = JS_GetPropertyUint32(ctx, list, i);
        ok = !JS_IsException(item) && (texts[i] = flat(ctx, item)) != NULL;
        JS_FreeValue(ctx, item);
    }
    if (ok)
        buffer_text(b, ",\"headers\":{");
    for (i = 0; i < n && ok; i += 2) {
        int same = 0;
        for (k = 0; k < i && !js_string_eq(texts[k], texts[i]); k += 2)
            ;
        if (k < i)
            continue; // written with the first of its name
        if (!first)
            buffer_byte(b, ',');
        first = false;
        buffer_json(b, texts[i]);
        buffer_byte(b, ':');
        for (k = i + 2; k < n; k += 2)
            same += js_string_eq(texts[k], texts[i]);
        if (same)
            buffer_byte(b, '[');
        buffer_json(b, texts[i + 1]);
        for (k = i + 2; same && k < n; k += 2) {
            if (js_string_eq(texts[k], texts[i])) {
                buffer_byte(b, ',');
                buffer_json(b, texts[k + 1]);
            }
        }
        if (same)
            buffer_byte(b, ']');
    }
    if (ok)
        buffer_byte(b, '}');
    for (i = 0; i < n; i++)
        if (texts[i])
            free_flat(ctx, texts[i]);
    js_free(ctx, texts);
    return ok;
}

// DIRECT_BODY is the size in bytes from which a body is written by itself instead of
// being copied behind the head.
#define DIRECT_BODY 16384

// write_answer writes head and body.
static bool write_answer(JSContext *ctx, buffer *b, JSValueConst value)
{
    JSString *s = NULL;
    span body = {0};
    uint32_t err;
    if (JS_IsString(value)) {
        s = flat(ctx, value);
        if (!s)
            return false;
        body.len = string_utf8_len(s);
        if (!s->is_wide_char && body.len == s->len)
            body.data = (char *)str8(s);
    } else if (!JS_IsNull(value) && !JS_IsUndefined(value) && !bytes_arg(ctx, value, &body)) {
        return false;
    }
    if (s && !body.data) {
        buffer_string(b, s);
        body.len = 0;
    } else if (body.len > 0 && body.len < DIRECT_BODY) {
        buffer_put(b, body.data, body.len);
        body.len = 0;
    }
    err = b->broken ? 0 : host_write(HOST_STDOUT, b->data, b->len);
    if (!err && !b->broken && body.len > 0)
        err = host_write(HOST_STDOUT, body.data, body.len);
    if (s)
        free_flat(ctx, s);
    if (b->broken)
        JS_ThrowOutOfMemory(ctx);
    else if (err)
        JS_ThrowInternalError(ctx, "writing the answer: error %u", (unsigned)err);
    return !b->broken && !err;
}

// The answer is written at once, so that nothing done to the body later shows.
NATIVE(native_answer)
{
    int32_t status;
    char text[32];
    buffer b;
    bool ok;
    UNUSED;
    if (engine.answered)
        return JS_ThrowInternalError(ctx, "answered already");
    if (JS_ToInt32(ctx, &status, argv[0]))
        return JS_EXCEPTION;
    buffer_init(ctx, &b);
    buffer_text(&b, "{\"status\":");
    buffer_put(&b, text, i32toa(text, status));
    ok = buffer_headers(&b, argv[1]);
    if (ok) {
        buffer_put(&b, "}\n", 2);
        engine.answered = true;
        ok = write_answer(ctx, &b, argv[2]);
    }
    buffer_free(&b);
    return ok ? JS_UNDEFINED : JS_EXCEPTION;
}

#endif
