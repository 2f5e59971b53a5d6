// Header names and values, checked and normalised as the Fetch Standard wants them,
// and the methods of Headers that programs call most.
//
// A header list is a JavaScript array made by the boot scripts or here: name, value,
// name, value …, names in lower case. No program ever holds one.
#ifndef CASEMATE_HEADERS_H
#define CASEMATE_HEADERS_H

// unit gives one code unit of a flat string.
static inline uint32_t unit(JSString *s, size_t i)
{
    return s->is_wide_char ? str16(s)[i] : str8(s)[i];
}

static inline uint32_t ascii_lower(uint32_t c)
{
    return c >= 'A' && c <= 'Z' ? c | 0x20 : c;
}

// token_unit tells the characters of an RFC 9110 token, by a bit for each.
static inline bool token_unit(uint32_t c)
{
    static const uint32_t bits[4] = {0, 0x03ff6cfa, 0xc7fffffe, 0x57ffffff};
    return c < 0x80 && (bits[c >> 5] >> (c & 31) & 1);
}

// name_valid tells tokens, and whether one has letters in upper case.
static bool name_valid(JSString *s, bool *upper)
{
    *upper = false;
    for (size_t i = 0; i < s->len; i++) {
        uint32_t c = unit(s, i);
        if (!token_unit(c))
            return false;
        *upper |= c >= 'A' && c <= 'Z';
    }
    return s->len > 0;
}

// name_lower gives the name in lower case; it takes over s.
static JSValue name_lower(JSContext *ctx, JSString *s, bool upper)
{
    JSString *lower;
    if (!upper)
        return JS_MKPTR(JS_TAG_STRING, s);
    lower = js_alloc_string(ctx, s->len, 0);
    if (lower) {
        for (size_t i = 0; i < s->len; i++)
            str8(lower)[i] = ascii_lower(unit(s, i));
        str8(lower)[s->len] = 0;
    }
    free_flat(ctx, s);
    return lower ? JS_MKPTR(JS_TAG_STRING, lower) : JS_EXCEPTION;
}

NATIVE(native_header_name)
{
    JSString *s = flat(ctx, argv[0]);
    bool upper;
    UNUSED;
    if (!s)
        return JS_EXCEPTION;
    if (name_valid(s, &upper))
        return name_lower(ctx, s, upper);
    free_flat(ctx, s);
    return JS_NULL;
}

// refuse_header throws for a name or value; it takes over s.
static void refuse_header(JSContext *ctx, const char *what, JSString *s)
{
    JSValue value = JS_MKPTR(JS_TAG_STRING, s);
    JSValue quoted = JS_JSONStringify(ctx, value, JS_UNDEFINED, JS_UNDEFINED);
    const char *text = JS_IsException(quoted) ? NULL : JS_ToCString(ctx, quoted);
    if (text)
        JS_ThrowTypeError(ctx, "Invalid header %s: %s", what, text);
    JS_FreeCString(ctx, text);
    JS_FreeValue(ctx, quoted);
    JS_FreeValue(ctx, value);
}

// name_arg gives what a program names a header with, or NULL and an exception.
static JSString *name_arg(JSContext *ctx, JSValueConst value, bool *upper)
{
    JSString *s = flat(ctx, value);
    if (!s || name_valid(s, upper))
        return s;
    refuse_header(ctx, "name", s);
    return NULL;
}

static inline bool header_space(uint32_t c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

// value_arg gives a value without the spaces around it, or an exception.
static JSValue value_arg(JSContext *ctx, JSValueConst value)
{
    JSString *s = flat(ctx, value);
    size_t from = 0, to;
    JSValue out;
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
            refuse_header(ctx, "value", s);
            return JS_EXCEPTION;
        }
    }
    if (to - from == s->len)
        return JS_MKPTR(JS_TAG_STRING, s);
    out = js_sub_string(ctx, s, from, to);
    free_flat(ctx, s);
    return out;
}

// list_arg gives a header list's array, or NULL and an exception.
static JSObject *list_arg(JSContext *ctx, JSValueConst value)
{
    JSObject *p = JS_IsObject(value) ? JS_VALUE_GET_OBJ(value) : NULL;
    if (p && p->class_id == JS_CLASS_ARRAY && p->fast_array)
        return p;
    JS_ThrowTypeError(ctx, "not a header list");
    return NULL;
}

// list_find gives the place of a name from `at` on, or the list's length. Upper case
// in the name is passed over; names in the list have none.
static uint32_t list_find(JSObject *list, JSString *name, uint32_t at)
{
    JSValue *v = list->u.array.u.values;
    uint32_t n = list->u.array.count;
    for (; at + 1 < n; at += 2) {
        JSString *s = JS_VALUE_GET_STRING(v[at]);
        size_t i = 0;
        if (s == name)
            return at;
        if (s->len != name->len)
            continue;
        while (i < s->len && unit(s, i) == ascii_lower(unit(name, i)))
            i++;
        if (i == s->len)
            return at;
    }
    return n;
}

static void list_resize(JSObject *list, uint32_t n)
{
    list->u.array.count = n;
    list->prop[0].u.value = js_int32(n);
}

// list_push appends a header; it takes over name and value.
static bool list_push(JSContext *ctx, JSObject *list, JSValue name, JSValue value)
{
    uint32_t n = list->u.array.count;
    if (JS_IsException(name) || JS_IsException(value) ||
        (n + 2 > list->u.array.u1.size && expand_fast_array(ctx, list, n < 8 ? 16 : n + 2))) {
        JS_FreeValue(ctx, name);
        JS_FreeValue(ctx, value);
        return false;
    }
    list->u.array.u.values[n] = name;
    list->u.array.u.values[n + 1] = value;
    list_resize(list, n + 2);
    return true;
}

// list_delete takes a name out, from `at` on.
static void list_delete(JSContext *ctx, JSObject *list, JSString *name, uint32_t at)
{
    JSValue *v = list->u.array.u.values;
    uint32_t next, to = at = list_find(list, name, at), n = list->u.array.count;
    for (; at < n; at = next) {
        JS_FreeValue(ctx, v[at]); // strings: freeing them runs no program
        JS_FreeValue(ctx, v[at + 1]);
        next = list_find(list, name, at + 2);
        memmove(v + to, v + at + 2, (next - at - 2) * sizeof *v);
        to += next - at - 2;
    }
    list_resize(list, to);
}

// list_get gives the values of a name, joined, or null.
static JSValue list_get(JSContext *ctx, JSObject *list, JSString *name)
{
    uint32_t n = list->u.array.count, at = list_find(list, name, 0);
    JSValue out;
    if (at == n)
        return JS_NULL;
    out = js_dup(list->u.array.u.values[at + 1]);
    while ((at = list_find(list, name, at + 2)) < n && !JS_IsException(out)) {
        out = JS_ConcatString(ctx, out, JS_NewString(ctx, ", "));
        if (!JS_IsException(out))
            out = JS_ConcatString(ctx, out, js_dup(list->u.array.u.values[at + 1]));
    }
    return out;
}

// list_put converts and appends a header.
static bool list_put(JSContext *ctx, JSObject *list, JSValueConst name, JSValueConst value)
{
    bool upper;
    JSString *s = name_arg(ctx, name, &upper);
    if (!s)
        return false;
    JSValue text = value_arg(ctx, value);
    return list_push(ctx, list, name_lower(ctx, s, upper), text);
}

NATIVE(native_list_add)
{
    JSObject *list = list_arg(ctx, argv[0]);
    UNUSED;
    return list && list_put(ctx, list, argv[1], argv[2]) ? JS_UNDEFINED : JS_EXCEPTION;
}

NATIVE(native_list_has)
{
    JSObject *list = list_arg(ctx, argv[0]);
    JSString *name = list ? flat(ctx, argv[1]) : NULL;
    bool has;
    UNUSED;
    if (!name)
        return JS_EXCEPTION;
    has = list_find(list, name, 0) < list->u.array.count;
    free_flat(ctx, name);
    return js_bool(has);
}

// header_fields are the private fields of Headers.
static struct {
    JSAtom list, immutable, sorted;
} header_fields;

static JSProperty *own_field(JSValueConst value, JSAtom field)
{
    JSProperty *p = NULL;
    if (JS_IsObject(value))
        find_own_property(&p, JS_VALUE_GET_OBJ(value), field);
    return p;
}

// native_list_fill appends what a HeadersInit holds, an object. It gives false for
// one to be iterated, which it leaves alone.
NATIVE(native_list_fill)
{
    JSObject *list = list_arg(ctx, argv[0]);
    JSProperty *of = own_field(argv[1], header_fields.list);
    JSPropertyEnum *names;
    uint32_t n;
    bool ok = true;
    UNUSED;
    if (!list)
        return JS_EXCEPTION;
    if (of) {
        JSObject *from = list_arg(ctx, of->u.value);
        if (!from)
            return JS_EXCEPTION;
        n = from->u.array.count;
        for (uint32_t i = 0; i < n && ok; i += 2)
            ok = list_push(ctx, list, js_dup(from->u.array.u.values[i]), js_dup(from->u.array.u.values[i + 1]));
        return ok ? JS_TRUE : JS_EXCEPTION;
    }
    JSValue iterate = JS_GetProperty(ctx, argv[1], JS_ATOM_Symbol_iterator);
    if (JS_IsException(iterate))
        return iterate;
    if (!JS_IsUndefined(iterate) && !JS_IsNull(iterate)) {
        JS_FreeValue(ctx, iterate);
        return JS_FALSE;
    }
    // Symbols as keys are passed over, which is quicker than looking whether to refuse them.
    if (JS_GetOwnPropertyNames(ctx, &names, &n, argv[1], JS_GPN_STRING_MASK | JS_GPN_ENUM_ONLY))
        return JS_EXCEPTION;
    for (uint32_t i = 0; i < n && ok; i++) {
        JSValue name = JS_AtomToString(ctx, names[i].atom), value = JS_GetProperty(ctx, argv[1], names[i].atom);
        ok = !JS_IsException(name) && !JS_IsException(value) && list_put(ctx, list, name, value);
        JS_FreeValue(ctx, name);
        JS_FreeValue(ctx, value);
    }
    JS_FreePropertyEnum(ctx, names, n);
    return ok ? JS_TRUE : JS_EXCEPTION;
}

enum { HEADERS_APPEND, HEADERS_SET, HEADERS_DELETE, HEADERS_GET, HEADERS_HAS };

// headers_do is a method of Headers, behind its arguments' conversion, which may have
// run any program. It takes over name and value.
static JSValue headers_do(JSContext *ctx, JSValueConst self, JSString *name, bool upper, JSValue value, int method)
{
    JSObject *list = list_arg(ctx, own_field(self, header_fields.list)->u.value);
    JSValue out = JS_UNDEFINED;
    uint32_t at;
    if (!list) {
        out = JS_EXCEPTION;
    } else if (method == HEADERS_GET) {
        out = list_get(ctx, list, name);
    } else if (method == HEADERS_HAS) {
        out = js_bool(list_find(list, name, 0) < list->u.array.count);
    } else if (JS_VALUE_GET_BOOL(own_field(self, header_fields.immutable)->u.value)) {
        out = JS_ThrowTypeError(ctx, "The headers of an incoming request and of a redirect cannot be changed; "
                                     "copy them: new Headers(headers)");
    } else {
        set_value(ctx, &own_field(self, header_fields.sorted)->u.value, JS_NULL);
        at = method == HEADERS_APPEND ? list->u.array.count : list_find(list, name, 0);
        if (method == HEADERS_DELETE) {
            list_delete(ctx, list, name, at);
        } else if (at < list->u.array.count) {
            set_value(ctx, &list->u.array.u.values[at + 1], value);
            list_delete(ctx, list, name, at + 2);
            value = JS_UNDEFINED;
        } else {
            bool ok = list_push(ctx, list, name_lower(ctx, name, upper), value);
            return ok ? JS_UNDEFINED : JS_EXCEPTION;
        }
    }
    free_flat(ctx, name);
    JS_FreeValue(ctx, value);
    return out;
}

static JSValue headers_method(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv, int method)
{
    static const char names[][8] = {"append", "set", "delete", "get", "has"};
    int wanted = method <= HEADERS_SET ? 2 : 1;
    bool upper;
    if (!own_field(this_val, header_fields.list))
        return JS_ThrowTypeError(ctx, "Headers.%s: this is not a Headers object", names[method]);
    if (argc < wanted)
        return JS_ThrowTypeError(ctx, "Headers.%s: %d argument%s required, but only %d present", names[method], wanted,
                                 wanted == 1 ? "" : "s", argc);
    JSString *name = name_arg(ctx, argv[0], &upper);
    if (!name)
        return JS_EXCEPTION;
    JSValue value = wanted == 2 ? value_arg(ctx, argv[1]) : JS_UNDEFINED;
    if (JS_IsException(value)) {
        free_flat(ctx, name);
        return value;
    }
    return headers_do(ctx, this_val, name, upper, value, method);
}

static const JSCFunctionListEntry headers_methods[] = {
    JS_CFUNC_MAGIC_DEF("append", 2, headers_method, HEADERS_APPEND),
    JS_CFUNC_MAGIC_DEF("delete", 1, headers_method, HEADERS_DELETE),
    JS_CFUNC_MAGIC_DEF("get", 1, headers_method, HEADERS_GET),
    JS_CFUNC_MAGIC_DEF("has", 1, headers_method, HEADERS_HAS),
    JS_CFUNC_MAGIC_DEF("set", 2, headers_method, HEADERS_SET),
};

// private_field finds the name of an object's private field, or throws.
static JSAtom private_field(JSContext *ctx, JSObject *p, const char *name)
{
    JSShapeProperty *prop = get_shape_prop(p->shape);
    for (int i = 0; i < p->shape->prop_count; i++) {
        if (prop[i].atom == JS_ATOM_NULL || JS_AtomGetKind(ctx, prop[i].atom) != JS_ATOM_KIND_PRIVATE)
            continue;
        const char *text = JS_AtomToCString(ctx, prop[i].atom);
        bool same = text && strcmp(text, name) == 0;
        JS_FreeCString(ctx, text);
        if (same)
            return JS_DupAtom(ctx, prop[i].atom);
    }
    JS_ThrowTypeError(ctx, "there is no private field %s", name);
    return JS_ATOM_NULL;
}

// native_headers_install gives Headers' prototype its methods, and learns the names of
// the private fields from an instance.
NATIVE(native_headers_install)
{
    UNUSED;
    JSObject *p = JS_VALUE_GET_OBJ(argv[1]);
    header_fields.list = private_field(ctx, p, "#list");
    header_fields.immutable = private_field(ctx, p, "#immutable");
    header_fields.sorted = private_field(ctx, p, "#sorted");
    if (!header_fields.list || !header_fields.immutable || !header_fields.sorted)
        return JS_EXCEPTION;
    JS_SetPropertyFunctionList(ctx, argv[0], headers_methods, countof(headers_methods));
    return JS_UNDEFINED;
}

#endif
