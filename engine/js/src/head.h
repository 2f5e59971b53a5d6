// The head line: one JSON object in one line, written by the platform. What every
// request needs is found in one pass and kept as positions; the rest is left until
// asked for.
#ifndef CASEMATE_HEAD_H
#define CASEMATE_HEAD_H

// head is where the values stand in the line. A string's span is without its quotes,
// its escapes as they are; `headers` is the whole object.
typedef struct {
    span trigger, method, path, query, headers, host, scheme;
} head_state;

HOT_FITS(head_state, head);
#define head HOT(head_state, head)

typedef struct {
    const char *p, *end;
} scanner;

static inline void scan_space(scanner *s)
{
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\t' || *s->p == '\r'))
        s->p++;
}

static inline bool scan_char(scanner *s, char c)
{
    scan_space(s);
    if (s->p == s->end || *s->p != c)
        return false;
    s->p++;
    return true;
}

static inline bool scan_end(scanner *s)
{
    scan_space(s);
    return s->p == s->end;
}

static bool scan_string(scanner *s, span *out)
{
    if (!scan_char(s, '"'))
        return false;
    const char *start = s->p;
    for (; s->p < s->end && *s->p != '"'; s->p++)
        if (*s->p == '\\' && ++s->p == s->end)
            return false;
    if (s->p == s->end)
        return false;
    *out = make_span(start, s->p++ - start);
    return true;
}

// scan_value passes over one value and gives where it stands. It counts brackets
// outside strings; the line was written by the platform, and what reads the value
// later parses it properly.
static bool scan_value(scanner *s, span *out)
{
    span text;
    int depth = 0;
    scan_space(s);
    const char *start = s->p;
    while (s->p < s->end) {
        char c = *s->p;
        if (c == '"') {
            if (!scan_string(s, &text))
                return false;
        } else if (c == '{' || c == '[') {
            depth++;
            s->p++;
        } else if (c == '}' || c == ']') {
            if (depth == 0)
                break;
            depth--;
            s->p++;
        } else if (c == ',' && depth == 0) {
            break;
        } else {
            s->p++;
            continue;
        }
        if (depth == 0)
            break;
    }
    *out = make_span(start, s->p - start);
    return depth == 0 && out->len > 0;
}

// scan_hex reads four hexadecimal digits, or gives -1.
static int32_t scan_hex(const char *p, const char *end)
{
    int32_t c = 0;
    if (end - p < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        int d = from_hex(p[i]);
        if (d < 0)
            return -1;
        c = c << 4 | d;
    }
    return c;
}

// unescape decodes a JSON string's escapes. A string without any is given as it is,
// others in UTF-8 in memory of b, which must outlive the result.
static span unescape(buffer *b, span s)
{
    if (!memchr(s.data, '\\', s.len))
        return s;
    size_t from = b->len;
    const char *p = s.data, *end = s.data + s.len;
    char *out = buffer_room(b, s.len), *start = out;
    if (!out)
        return make_span("", 0);
    while (p < end) {
        if (*p != '\\') {
            *out++ = *p++;
            continue;
        }
        if (++p == end)
            break;
        char c = *p++;
        switch (c) {
        case 'b': *out++ = '\b'; break;
        case 'f': *out++ = '\f'; break;
        case 'n': *out++ = '\n'; break;
        case 'r': *out++ = '\r'; break;
        case 't': *out++ = '\t'; break;
        case 'u': {
            int32_t u = scan_hex(p, end);
            if (u < 0)
                break;
            p += 4;
            if (is_surrogate((uint32_t)u)) {
                int32_t low = end - p >= 6 && p[0] == '\\' && p[1] == 'u' ? scan_hex(p + 2, end) : -1;
                if (u < 0xdc00 && (low & 0xfffffc00) == 0xdc00) {
                    u = 0x10000 + ((u & 0x3ff) << 10) + (low & 0x3ff);
                    p += 6;
                } else {
                    u = REPLACEMENT;
                }
            }
            out = (char *)utf8_put((uint8_t *)out, u);
            break;
        }
        default: *out++ = c;
        }
    }
    b->len = from + (out - start);
    return make_span(start, out - start);
}

// next_header steps through the headers: a name, then one value after the other.
// `state` starts at zero. It gives false at the end, and at what it cannot read.
typedef struct {
    scanner s;
    span name;
    enum { HEADERS_START, HEADERS_NAME, HEADERS_LIST } state;
} header_scan;

static bool next_header(header_scan *h, span *value)
{
    for (;;) {
        switch (h->state) {
        case HEADERS_START:
            if (!scan_char(&h->s, '{'))
                return false;
            h->state = HEADERS_NAME;
            continue;
        case HEADERS_NAME:
            scan_char(&h->s, ',');
            if (!scan_string(&h->s, &h->name) || !scan_char(&h->s, ':'))
                return false;
            if (scan_char(&h->s, '[')) {
                h->state = HEADERS_LIST;
                continue;
            }
            return scan_string(&h->s, value);
        case HEADERS_LIST:
            scan_char(&h->s, ',');
            if (scan_char(&h->s, ']')) {
                h->state = HEADERS_NAME;
                continue;
            }
            return scan_string(&h->s, value);
        }
    }
}

// read_head finds what `dispatch` needs.
static bool read_head(span line)
{
    scanner s = {line.data, line.data + line.len};
    span name, value;
    memset(&head, 0, sizeof head);
    if (!scan_char(&s, '{'))
        return false;
    if (scan_char(&s, '}'))
        return scan_end(&s);
    do {
        if (!scan_string(&s, &name) || !scan_char(&s, ':') || !scan_value(&s, &value))
            return false;
        span *field = NULL;
        if (span_is(name, "method"))
            field = &head.method;
        else if (span_is(name, "path"))
            field = &head.path;
        else if (span_is(name, "query"))
            field = &head.query;
        else if (span_is(name, "trigger"))
            field = &head.trigger;
        else if (span_is(name, "headers"))
            head.headers = value;
        if (field) {
            if (value.len < 2 || value.data[0] != '"')
                return false;
            *field = make_span(value.data + 1, value.len - 2);
        }
    } while (scan_char(&s, ','));
    return scan_char(&s, '}') && scan_end(&s);
}

// read_host finds the two headers that the request's URL depends on.
static void read_host(void)
{
    header_scan h = {{head.headers.data, head.headers.data + head.headers.len}, {0}, HEADERS_START};
    for (span value; next_header(&h, &value);) {
        if (!head.host.data && span_is(h.name, "host"))
            head.host = value;
        else if (!head.scheme.data && span_is(h.name, "x-forwarded-proto"))
            head.scheme = value;
    }
}

#endif
