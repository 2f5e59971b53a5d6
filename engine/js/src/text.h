// Conversions between bytes and JavaScript's strings, as the Encoding Standard
// wants them: UTF-8 with maximal-subpart replacement, and Latin-1.
#ifndef CASEMATE_TEXT_H
#define CASEMATE_TEXT_H

#define REPLACEMENT 0xfffd

// ascii_prefix is how many bytes at the start are below 0x80.
static size_t ascii_prefix(const uint8_t *p, size_t n)
{
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        uint64_t word;
        memcpy(&word, p + i, 8);
        if (word & 0x8080808080808080u)
            break;
    }
    while (i < n && p[i] < 0x80)
        i++;
    return i;
}

// next_point reads the code point at *i; a lone surrogate becomes U+FFFD.
static inline uint32_t next_point(const uint16_t *p, size_t n, size_t *i)
{
    uint32_t c = p[(*i)++];
    if (!is_surrogate(c))
        return c;
    if (c < 0xdc00 && *i < n && (p[*i] & 0xfc00) == 0xdc00)
        return 0x10000 + ((c & 0x3ff) << 10) + (p[(*i)++] & 0x3ff);
    return REPLACEMENT;
}

static inline size_t utf8_len(uint32_t c)
{
    return c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
}

static inline uint8_t *utf8_put(uint8_t *p, uint32_t c)
{
    if (c < 0x80) {
        *p++ = c;
    } else if (c < 0x800) {
        *p++ = 0xc0 | c >> 6;
        *p++ = 0x80 | (c & 0x3f);
    } else if (c < 0x10000) {
        *p++ = 0xe0 | c >> 12;
        *p++ = 0x80 | (c >> 6 & 0x3f);
        *p++ = 0x80 | (c & 0x3f);
    } else {
        *p++ = 0xf0 | c >> 18;
        *p++ = 0x80 | (c >> 12 & 0x3f);
        *p++ = 0x80 | (c >> 6 & 0x3f);
        *p++ = 0x80 | (c & 0x3f);
    }
    return p;
}

// string_utf8_len is how many bytes the string takes as UTF-8.
static size_t string_utf8_len(JSString *s)
{
    size_t n = s->len, total = 0;
    if (!s->is_wide_char) {
        const uint8_t *p = str8(s);
        size_t i = ascii_prefix(p, n);
        for (total = n; i < n; i++)
            total += p[i] >> 7;
        return total;
    }
    const uint16_t *p = str16(s);
    for (size_t i = 0; i < n;)
        total += utf8_len(next_point(p, n, &i));
    return total;
}

// string_utf8 writes what string_utf8_len has counted.
static void string_utf8(JSString *s, uint8_t *out)
{
    size_t n = s->len;
    if (!s->is_wide_char) {
        const uint8_t *p = str8(s);
        size_t i = ascii_prefix(p, n);
        memcpy(out, p, i);
        for (out += i; i < n; i++)
            out = utf8_put(out, p[i]);
        return;
    }
    const uint16_t *p = str16(s);
    for (size_t i = 0; i < n;)
        out = utf8_put(out, next_point(p, n, &i));
}

// utf8_next reads a code point at *i; REPLACEMENT and *bad for the maximal subpart
// of an ill-formed sequence (Unicode 15, table 3-7).
static inline uint32_t utf8_next(const uint8_t *p, size_t n, size_t *i, bool *bad)
{
    uint32_t c = p[(*i)++];
    if (c < 0x80)
        return c;
    uint32_t lo = 0x80, hi = 0xbf;
    int more;
    if (c >= 0xc2 && c <= 0xdf) {
        more = 1;
        c &= 0x1f;
    } else if (c >= 0xe0 && c <= 0xef) {
        more = 2;
        if (c == 0xe0)
            lo = 0xa0;
        if (c == 0xed)
            hi = 0x9f;
        c &= 0x0f;
    } else if (c >= 0xf0 && c <= 0xf4) {
        more = 3;
        if (c == 0xf0)
            lo = 0x90;
        if (c == 0xf4)
            hi = 0x8f;
        c &= 0x07;
    } else {
        *bad = true;
        return REPLACEMENT;
    }
    while (more-- > 0) {
        if (*i >= n || p[*i] < lo || p[*i] > hi) {
            *bad = true;
            return REPLACEMENT;
        }
        c = c << 6 | (p[(*i)++] & 0x3f);
        lo = 0x80;
        hi = 0xbf;
    }
    return c;
}

// utf8_string decodes. `bad`, when given, learns of ill-formed input.
static JSValue utf8_string(JSContext *ctx, const uint8_t *p, size_t n, bool *bad)
{
    size_t head = ascii_prefix(p, n), units = head;
    if (head == n) {
        if (n == 0)
            return JS_AtomToString(ctx, JS_ATOM_empty_string);
        if (n > JS_STRING_LEN_MAX)
            return JS_ThrowRangeError(ctx, "invalid string length");
        return js_new_string8_len(ctx, (const char *)p, n);
    }
    uint32_t all = 0;
    bool wrong = false;
    for (size_t i = head; i < n; units++) {
        uint32_t c = utf8_next(p, n, &i, &wrong);
        all |= c;
        units += c >= 0x10000;
    }
    if (bad)
        *bad = wrong;
    if (units > JS_STRING_LEN_MAX)
        return JS_ThrowRangeError(ctx, "invalid string length");
    JSString *s = js_alloc_string(ctx, units, all >= 0x100);
    if (!s)
        return JS_EXCEPTION;
    if (all < 0x100) {
        uint8_t *out = str8(s);
        memcpy(out, p, head);
        for (size_t i = head, k = head; i < n;)
            out[k++] = utf8_next(p, n, &i, &wrong);
        out[units] = 0;
    } else {
        uint16_t *out = str16(s);
        for (size_t i = 0; i < head; i++)
            *out++ = p[i];
        for (size_t i = head; i < n;) {
            uint32_t c = utf8_next(p, n, &i, &wrong);
            if (c >= 0x10000) {
                *out++ = 0xd7c0 + (c >> 10);
                c = 0xdc00 | (c & 0x3ff);
            }
            *out++ = c;
        }
    }
    return JS_MKPTR(JS_TAG_STRING, s);
}

// utf8_valid reports whether the bytes are well formed.
static bool utf8_valid(const uint8_t *p, size_t n)
{
    bool bad = false;
    for (size_t i = ascii_prefix(p, n); i < n && !bad;)
        utf8_next(p, n, &i, &bad);
    return !bad;
}

static inline bool has_bom(const uint8_t *p, size_t n)
{
    return n >= 3 && p[0] == 0xef && p[1] == 0xbb && p[2] == 0xbf;
}

#endif
