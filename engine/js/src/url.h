// The URL fast paths: composing the request's URL, and telling whether a string is
// the normal form of an http URL already. The rules are in boot/NATIVES.md.
#ifndef CASEMATE_URL_H
#define CASEMATE_URL_H

enum {
    URL_HOST = 1,     // a–z 0–9 - _
    URL_PATH = 2,     // stands for itself in a normal path
    URL_QUERY = 4,    // stands for itself in a normal query
    URL_FRAGMENT = 8, // stands for itself in a normal fragment
    URL_PLAIN = 16,   // the platform's path is decoded; this needs no encoding
    URL_DIGIT = 32,
};

// Bytes from 0x80 on are in no class.
#define G (URL_PATH | URL_QUERY | URL_FRAGMENT) // graphic, nothing special
#define P (G | URL_PLAIN)
#define L (P | URL_HOST)
#define D (L | URL_DIGIT)
static const uint8_t url_class[256] = {
    ['!'] = P, ['"'] = 0, ['#'] = URL_FRAGMENT, ['$'] = P, ['%'] = G, ['&'] = P,
    ['\''] = URL_PATH | URL_FRAGMENT | URL_PLAIN, ['('] = P, [')'] = P, ['*'] = P, ['+'] = P,
    [','] = P, ['-'] = L, ['.'] = P, ['/'] = P,
    ['0'] = D, ['1'] = D, ['2'] = D, ['3'] = D, ['4'] = D, ['5'] = D, ['6'] = D, ['7'] = D, ['8'] = D, ['9'] = D,
    [':'] = P, [';'] = P, ['<'] = 0, ['='] = P, ['>'] = 0, ['?'] = URL_QUERY | URL_FRAGMENT, ['@'] = P,
    ['A'] = P, ['B'] = P, ['C'] = P, ['D'] = P, ['E'] = P, ['F'] = P, ['G'] = P, ['H'] = P, ['I'] = P, ['J'] = P,
    ['K'] = P, ['L'] = P, ['M'] = P, ['N'] = P, ['O'] = P, ['P'] = P, ['Q'] = P, ['R'] = P, ['S'] = P, ['T'] = P,
    ['U'] = P, ['V'] = P, ['W'] = P, ['X'] = P, ['Y'] = P, ['Z'] = P,
    ['['] = G, ['\\'] = URL_QUERY | URL_FRAGMENT, [']'] = G, ['^'] = URL_QUERY | URL_FRAGMENT, ['_'] = L,
    ['`'] = URL_QUERY,
    ['a'] = L, ['b'] = L, ['c'] = L, ['d'] = L, ['e'] = L, ['f'] = L, ['g'] = L, ['h'] = L, ['i'] = L, ['j'] = L,
    ['k'] = L, ['l'] = L, ['m'] = L, ['n'] = L, ['o'] = L, ['p'] = L, ['q'] = L, ['r'] = L, ['s'] = L, ['t'] = L,
    ['u'] = L, ['v'] = L, ['w'] = L, ['x'] = L, ['y'] = L, ['z'] = L,
    ['{'] = URL_QUERY | URL_FRAGMENT, ['|'] = G, ['}'] = URL_QUERY | URL_FRAGMENT, ['~'] = P,
};
#undef G
#undef P
#undef L
#undef D

// dot_segment reports whether a path's segment is one or two dots, plain or encoded.
static bool dot_segment(const uint8_t *p, const uint8_t *end)
{
    int dots = 0;
    while (p < end) {
        if (*p == '.')
            p++;
        else if (end - p >= 3 && p[0] == '%' && p[1] == '2' && (p[2] | 0x20) == 'e')
            p += 3;
        else
            return false;
        if (++dots > 2)
            return false;
    }
    return dots > 0;
}

// url_scan fills out[0..5] when the string is the normal form of an http URL.
static bool url_scan(const uint8_t *s, size_t n, int32_t out[6])
{
    const uint8_t *end = s + n, *p = s, *label, *host;
    int32_t at[6];
    bool tls;
    if (n < 9 || n > INT32_MAX || memcmp(s, "http", 4) != 0)
        return false;
    tls = s[4] == 's';
    p = s + 4 + tls;
    if (end - p < 4 || memcmp(p, "://", 3) != 0)
        return false;
    at[0] = p + 1 - s;
    host = p += 3;
    for (label = p;; p++) {
        if (p < end && url_class[*p] & URL_HOST)
            continue;
        if (p == label) // an empty label, or no host at all
            return false;
        if (p - label >= 4 && memcmp(label, "xn--", 4) == 0)
            return false;
        if (p == end || *p != '.')
            break;
        label = p + 1;
    }
    if (p == host || url_class[*label] & URL_DIGIT)
        return false;
    at[1] = p - s;
    if (p < end && *p == ':') {
        const uint8_t *digits = ++p;
        uint32_t port = 0;
        for (; p < end && url_class[*p] & URL_DIGIT && p - digits < 6; p++)
            port = port * 10 + (*p - '0');
        if (p == digits || p - digits > 5 || port > 65535 || (*digits == '0' && p - digits > 1) ||
            port == (tls ? 443 : 80))
            return false;
    }
    at[2] = p - s;
    if (p == end || *p != '/')
        return false;
    while (p < end && *p == '/') {
        const uint8_t *segment = ++p;
        while (p < end && *p != '/' && url_class[*p] & URL_PATH)
            p++;
        if (p > segment && (*segment == '.' || *segment == '%') && dot_segment(segment, p))
            return false;
    }
    at[3] = p - s;
    if (p < end && *p == '?')
        for (p++; p < end && url_class[*p] & URL_QUERY;)
            p++;
    at[4] = p - s;
    if (p < end && *p == '#')
        for (p++; p < end && url_class[*p] & URL_FRAGMENT;)
            p++;
    at[5] = p - s;
    if (p != end)
        return false;
    memcpy(out, at, sizeof at);
    return true;
}

static void put_encoded(buffer *b, uint8_t c)
{
    static const char hex[] = "0123456789ABCDEF";
    char text[3] = {'%', hex[c >> 4], hex[c & 15]};
    buffer_put(b, text, 3);
}

// url_host writes the host header in lower case without the default port; false,
// and nothing written, when it is not one that we take.
static bool url_host(buffer *b, span host, bool tls)
{
    size_t name = 0, n = host.len;
    for (; name < n && host.data[name] != ':'; name++) {
        uint8_t c = host.data[name];
        if (c >= 'A' && c <= 'Z')
            c |= 0x20;
        if (!(url_class[c] & URL_HOST) && c != '.')
            return false;
    }
    if (name == 0)
        return false;
    if (name < n) {
        uint32_t port = 0;
        size_t i = name + 1;
        for (; i < n && url_class[(uint8_t)host.data[i]] & URL_DIGIT && i - name <= 5; i++)
            port = port * 10 + (host.data[i] - '0');
        if (i != n || i == name + 1 || port > 65535)
            return false;
        if (port == (tls ? 443 : 80))
            n = name;
    }
    for (size_t i = 0; i < n; i++) {
        char c = host.data[i];
        buffer_byte(b, c >= 'A' && c <= 'Z' ? c | 0x20 : c);
    }
    return true;
}

// url_compose writes the request's URL.
static void url_compose(buffer *b, bool tls, span host, span path, span query)
{
    buffer_text(b, tls ? "https://" : "http://");
    if (!url_host(b, host, tls))
        buffer_text(b, "localhost");
    if (path.len == 0 || path.data[0] != '/')
        buffer_byte(b, '/');
    for (uint32_t i = 0; i < path.len; i++) {
        uint32_t from = i;
        while (i < path.len && url_class[(uint8_t)path.data[i]] & URL_PLAIN)
            i++;
        buffer_put(b, path.data + from, i - from);
        if (i < path.len)
            put_encoded(b, path.data[i]);
    }
    if (query.len == 0)
        return;
    buffer_byte(b, '?');
    for (uint32_t i = 0; i < query.len; i++) {
        uint8_t c = query.data[i];
        if (url_class[c] & URL_QUERY)
            buffer_byte(b, c);
        else
            put_encoded(b, c);
    }
}

#endif
