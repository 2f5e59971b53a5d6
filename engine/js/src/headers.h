// Header names and values, checked and normalised as the Fetch Standard wants them.
#ifndef CASEMATE_HEADERS_H
#define CASEMATE_HEADERS_H

// unit gives one code unit of a flat string.
static inline uint32_t unit(JSString *s, size_t i)
{
    return s->is_wide_char ? str16(s)[i] : str8(s)[i];
}

static inline bool token_unit(uint32_t c)
{
    if (c >= 0x80)
        return false;
    return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || (c != 0 && strchr("!#$%&'*+-.^_`|~", c));
}

NATIVE(native_header_name)
{
    JSString *s = flat(ctx, argv[0]), *lower;
    bool upper = false;
    UNUSED;
    if (!s)
        return JS_EXCEPTION;
    for (size_t i = 0; i < s->len; i++) {
        uint32_t c = unit(s, i);
        if (!token_unit(c))
            goto refuse;
        upper |= c >= 'A' && c <= 'Z';
    }
    if (s->len == 0)
        goto refuse;
    if (!upper)
        return JS_MKPTR(JS_TAG_STRING, s);
    lower = js_alloc_string(ctx, s->len, 0);
    if (lower) {
        for (size_t i = 0; i < s->len; i++) {
            uint32_t c = unit(s, i);
            str8(lower)[i] = c >= 'A' && c <= 'Z' ? c | 0x20 : c;
        }
        str8(lower)[s->len] = 0;
    }
    free_flat(ctx, s);
    return lower ? JS_MKPTR(JS_TAG_STRING, lower) : JS_EXCEPTION;
refuse:
    free_flat(ctx, s);
    return JS_NULL;
}

static inline bool header_space(uint32_t c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

NATIVE(native_header_value)
{
    JSString *s = flat(ctx, argv[0]);
    size_t from = 0, to;
    JSValue out;
    UNUSED;
    if (!s)
        return JS_EXCEPTION;
    to = s->len;
    while (from < to && header_space(unit(s, from)))
        from++;
    while (from < to && header_space(unit(s, to - 1)))
        to--;
    for (size_t i = from; i < to; i++) {
        uint32_t c = unit(s, i);
        if (c == 0 || c == '\r' || c == '\n' || c > 0xff) {
            free_flat(ctx, s);
            return JS_NULL;
        }
    }
    if (to - from == s->len)
        return JS_MKPTR(JS_TAG_STRING, s);
    out = js_sub_string(ctx, s, from, to);
    free_flat(ctx, s);
    return out;
}

#endif
