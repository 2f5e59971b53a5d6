/* Carries one request from the platform to casemate_handle and the answer back.
 *
 * A request arrives on standard input as one line of JSON, then the body; the
 * answer leaves on standard output in the same shape. The head is decoded where
 * it lies: a decoded string is never longer than its JSON. */
#include "casemate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum { MAX_PAIRS = 512, MAX_DEPTH = 32 };

typedef struct {
    const char *name, *value;
} pair;

typedef struct {
    pair pairs[MAX_PAIRS];
    size_t count;
} pairs;

static pairs headers, params;

static void add(pairs *to, const char *name, const char *value) {
    if (to->count < MAX_PAIRS) {
        to->pairs[to->count++] = (pair){name, value};
    }
}

static const char *find(const pairs *in, const char *name) {
    for (size_t i = 0; i < in->count; i++) {
        if (strcmp(in->pairs[i].name, name) == 0) {
            return in->pairs[i].value;
        }
    }
    return "";
}

const char *casemate_header(const char *name) { return find(&headers, name); }
const char *casemate_param(const char *name) { return find(&params, name); }

/* --- as much of JSON (RFC 8259) as a head needs; NULL means malformed --- */

static char *space(char *p) {
    while (*p == ' ' || *p == '\t' || *p == '\r' || *p == '\n') {
        p++;
    }
    return p;
}

static int hex4(const char *p, unsigned *unit) {
    *unit = 0;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        unsigned digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a' + 10)
                         : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A' + 10)
                                                : 16;
        if (digit == 16) {
            return 0;
        }
        *unit = *unit << 4 | digit;
    }
    return 1;
}

static char *utf8(char *out, unsigned c) {
    if (c < 0x80) {
        *out++ = (char)c;
    } else if (c < 0x800) {
        *out++ = (char)(0xc0 | c >> 6);
        *out++ = (char)(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        *out++ = (char)(0xe0 | c >> 12);
        *out++ = (char)(0x80 | (c >> 6 & 0x3f));
        *out++ = (char)(0x80 | (c & 0x3f));
    } else {
        *out++ = (char)(0xf0 | c >> 18);
        *out++ = (char)(0x80 | (c >> 12 & 0x3f));
        *out++ = (char)(0x80 | (c >> 6 & 0x3f));
        *out++ = (char)(0x80 | (c & 0x3f));
    }
    return out;
}

/* Decodes the string at p in place, ends it with a zero byte, gives what follows. */
static char *string(char *p, const char **value) {
    if (*p != '"') {
        return NULL;
    }
    char *out = ++p;
    *value = out;
    for (;;) {
        char c = *p++;
        if (c == '\0') {
            return NULL;
        }
        if (c == '"') {
            *out = '\0';
            return p;
        }
        if (c != '\\') {
            *out++ = c;
            continue;
        }
        static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
        c = *p++;
        const char *simple = c == '\0' ? NULL : strchr(from, c);
        if (simple != NULL) {
            *out++ = to[simple - from];
            continue;
        }
        unsigned unit, low;
        if (c != 'u' || !hex4(p, &unit)) {
            return NULL;
        }
        p += 4;
        if (unit >= 0xd800 && unit < 0xdc00 && p[0] == '\\' && p[1] == 'u' && hex4(p + 2, &low) && low >= 0xdc00 &&
            low < 0xe000) {
            unit = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
            p += 6;
        } else if (unit >= 0xd800 && unit < 0xe000) {
            unit = 0xfffd; /* half of a pair */
        }
        out = utf8(out, unit);
    }
}

/* Steps over the value at p. A string is decoded into *text on the way, and so is
 * the first string of a list; for anything else *text stays as it is. */
static char *value(char *p, const char **text, int depth) {
    const char *ignored = NULL;
    p = space(p);
    if (depth > MAX_DEPTH) {
        return NULL;
    }
    if (*p == '"') {
        return string(p, text);
    }
    if (*p != '[' && *p != '{') {
        char *start = p;
        while (*p > ' ' && *p != ',' && *p != ']' && *p != '}') {
            p++;
        }
        return p == start ? NULL : p;
    }
    char close = *p == '[' ? ']' : '}';
    p = space(p + 1);
    for (int first = 1; *p != close; first = 0) {
        if (!first) {
            if (*p != ',') {
                return NULL;
            }
            p = space(p + 1);
        }
        if (close == '}') {
            p = string(p, &ignored);
            if (p == NULL || *(p = space(p)) != ':') {
                return NULL;
            }
            p++;
        }
        p = value(p, first && close == ']' ? text : &ignored, depth + 1);
        if (p == NULL) {
            return NULL;
        }
        p = space(p);
    }
    return p + 1;
}

/* Reads the object at p, handing each member to one of: a field of the request
 * (by name), or a list of pairs when into is given. */
static char *object(char *p, casemate_request *request, pairs *into) {
    p = space(p);
    if (*p != '{') {
        return NULL;
    }
    p = space(p + 1);
    for (int first = 1; *p != '}'; first = 0) {
        const char *name = "", *text = "";
        if (!first) {
            if (*p != ',') {
                return NULL;
            }
            p = space(p + 1);
        }
        p = string(p, &name);
        if (p == NULL || *(p = space(p)) != ':') {
            return NULL;
        }
        p = space(p + 1);
        if (into == NULL && *p == '{' && strcmp(name, "headers") == 0) {
            p = object(p, NULL, &headers);
        } else if (into == NULL && *p == '{' && strcmp(name, "params") == 0) {
            p = object(p, NULL, &params);
        } else {
            p = value(p, &text, 0);
        }
        if (p == NULL) {
            return NULL;
        }
        if (into != NULL) {
            add(into, name, text);
        } else if (strcmp(name, "id") == 0) {
            request->id = text;
        } else if (strcmp(name, "method") == 0) {
            request->method = text;
        } else if (strcmp(name, "path") == 0) {
            request->path = text;
        } else if (strcmp(name, "query") == 0) {
            request->query = text;
        } else if (strcmp(name, "caller") == 0) {
            request->caller = text;
        }
        p = space(p);
    }
    return p + 1;
}

/* --- standard input and output --- */

/* Where the request goes. It is there from the start, since memory that a request
 * writes to for the first time costs time; a larger request gets more. */
static char first_buffer[(64 << 10) + 1];

/* Reads all of standard input and puts a zero byte behind it. */
static char *read_all(size_t *length) {
    size_t capacity = sizeof first_buffer - 1;
    char *buffer = first_buffer;
    *length = 0;
    while (buffer != NULL) {
        ssize_t n = read(STDIN_FILENO, buffer + *length, capacity - *length);
        if (n < 0) {
            return NULL;
        }
        if (n == 0) {
            buffer[*length] = '\0';
            return buffer;
        }
        *length += (size_t)n;
        if (*length == capacity) {
            char *larger = malloc(capacity * 4 + 1);
            if (larger != NULL) {
                memcpy(larger, buffer, *length);
            }
            if (buffer != first_buffer) {
                free(buffer);
            }
            buffer = larger;
            capacity *= 4;
        }
    }
    return NULL;
}

/* Writes both, in one go when the system takes them. */
static int write_both(const char *head, size_t head_length, const char *body, size_t body_length) {
    struct iovec parts[2] = {{(void *)head, head_length}, {(void *)body, body_length}};
    for (int i = 0; i < 2;) {
        ssize_t n = writev(STDOUT_FILENO, parts + i, 2 - i);
        if (n < 0 || (n == 0 && parts[i].iov_len > 0)) {
            return -1;
        }
        size_t written = (size_t)n;
        for (; i < 2 && written >= parts[i].iov_len; i++) {
            written -= parts[i].iov_len;
        }
        if (i < 2) {
            parts[i].iov_base = (char *)parts[i].iov_base + written;
            parts[i].iov_len -= written;
        }
    }
    return 0;
}

static char *put(char *to, const char *text, size_t length) { return (char *)memcpy(to, text, length) + length; }

int casemate_answer(int status, const char *content_type, const void *body, size_t length) {
    static const char start[] = "{\"status\":", middle[] = ",\"headers\":{\"content-type\":\"", end[] = "\"}}\n";
    char head[256];
    size_t type_length = 0;
    for (; content_type[type_length] != '\0'; type_length++) {
        char c = content_type[type_length];
        if (type_length == 128 || c == '"' || c == '\\' || (unsigned char)c < ' ') {
            return -1;
        }
    }
    if (status < 100 || status > 999) {
        return -1;
    }
    char *p = put(head, start, sizeof start - 1);
    *p++ = (char)('0' + status / 100);
    *p++ = (char)('0' + status / 10 % 10);
    *p++ = (char)('0' + status % 10);
    p = put(p, middle, sizeof middle - 1);
    p = put(p, content_type, type_length);
    p = put(p, end, sizeof end - 1);
    return write_both(head, (size_t)(p - head), body, length);
}

static int serve(void) {
    size_t length;
    char *input = read_all(&length);
    char *end = input == NULL ? NULL : memchr(input, '\n', length);
    if (end == NULL) {
        fputs("error: reading the request: it has no head\n", stderr);
        return 1;
    }
    *end = '\0';
    casemate_request request = {.id = "", .method = "", .path = "", .query = "", .caller = ""};
    request.body = end + 1;
    request.body_length = length - (size_t)(end + 1 - input);
    if (object(input, &request, NULL) == NULL) {
        fputs("error: reading the request: its head is not JSON\n", stderr);
        return 1;
    }
    return casemate_handle(&request);
}

#ifdef CASEMATE_ENTRY_HANDLE
__attribute__((export_name("handle"))) int handle(void) { return serve(); }
#else
int main(void) { return serve(); }
#endif
