package main

import (
	"bytes"
	"fmt"
	"regexp"
)

// change is one edit to a file of QuickJS-ng. What it looks for must be there as
// often as it says, so that a new version does not silently escape it.
type change struct {
	file  string
	why   string
	old   *regexp.Regexp
	times int
	with  string
}

// literal is a pattern for a text.
func literal(text string) *regexp.Regexp { return regexp.MustCompile(regexp.QuoteMeta(text)) }

const argument = `\(((?:[^()]|\([^()]*\))*)\)` // with at most one level of brackets in it

// changes is all that we change in foreign code, in order.
func changes() []change {
	return []change{
		{
			file: "quickjs.c", why: "objects of the snapshot are never freed: src/counts.h",
			old: regexp.MustCompile(`--JS_REF_COUNT` + argument), times: 7, with: "count_down($1)",
		},
		{
			file: "quickjs.c", why: "as above",
			old: regexp.MustCompile(`JS_REF_COUNT` + argument + `--`), times: 2, with: "count_down($1)",
		},
		{
			file: "quickjs.c", why: "as above",
			old: regexp.MustCompile(`JS_REF_COUNT` + argument + `\+\+`), times: 19, with: "count_up($1)",
		},
		{
			file: "quickjs.c", why: "as above", old: literal("#define JS_GC_MARK(p)   (js_rc(p)->mark)\n"), times: 1,
			with: "#define JS_GC_MARK(p)   (js_rc(p)->mark)\n#include \"counts.h\"\n",
		},
		{
			file: "quickjs.c", why: "the allocator is ours: src/heap.h",
			old:   regexp.MustCompile(`(?s)/\* max overhead for size >= 64: 12\.5% \*/\n.*?\nvoid \*js_calloc_rt\(`),
			times: 1, with: "#include \"heap.h\"\n\nvoid *js_calloc_rt(",
		},
		{
			file: "quickjs.c", why: "fewer steps to define a property: src/define.h",
			old: literal("int JS_DefinePropertyValue(JSContext *ctx, JSValueConst this_obj,\n" +
				"                           JSAtom prop, JSValue val, int flags)\n{"),
			times: 1,
			with: "#include \"define.h\"\n\nint JS_DefinePropertyValue(JSContext *ctx, JSValueConst this_obj,\n" +
				"                           JSAtom prop, JSValue val, int flags)\n{",
		},
		{
			file: "quickjs.c", why: "as above, a function's length and name",
			old:   regexp.MustCompile(`(?s)static void js_function_set_properties\(JSContext \*ctx, JSValue func_obj,\s+JSAtom name, int len\)\n\{.*?\n\}\n`),
			times: 1,
			with: `static void define_new(JSContext *ctx, JSObject *p, JSAtom prop, JSValue value, int flags);

static void js_function_set_properties(JSContext *ctx, JSValue func_obj, JSAtom name, int len)
{
    JSObject *p = JS_VALUE_GET_OBJ(func_obj);
    define_new(ctx, p, JS_ATOM_length, js_int32(len), JS_PROP_CONFIGURABLE);
    define_new(ctx, p, JS_ATOM_name, JS_AtomToString(ctx, name), JS_PROP_CONFIGURABLE);
}
`,
		},
		{
			file: "quickjs.c", why: "as above, object literals and class fields",
			old: regexp.MustCompile(`ret = JS_DefinePropertyValue\(ctx, sp\[-2\], atom, sp\[-1\],\s+JS_PROP_C_W_E \| JS_PROP_THROW\);`), times: 1,
			with: "ret = define_field(ctx, sp[-2], atom, sp[-1]);",
		},
		{
			file: "quickjs.c", why: "a cheaper promise for async functions: src/async.h",
			old: literal("static JSValue js_promise_new(JSContext *ctx, JSValueConst new_target,\n" +
				"                               JSValue *resolving_funcs)\n{"),
			times: 1,
			with:  "#include \"async.h\"\n\nstatic JSValue js_promise_new(JSContext *ctx, JSValueConst new_target, JSValue *resolving_funcs)\n{",
		},
		{
			file: "quickjs.c", why: "as above",
			old:   literal("static bool js_async_function_resume(JSContext *ctx, JSAsyncFunctionData *s)\n{"),
			times: 1,
			with: `static JSValue async_promise(JSContext *ctx, JSValue *own);
static JSValue async_settle(JSContext *ctx, JSValueConst promise, JSValueConst value, bool reject);

static bool js_async_function_resume(JSContext *ctx, JSAsyncFunctionData *s)
{`,
		},
		{
			file: "quickjs.c", why: "as above",
			old:   literal("promise = JS_NewPromiseCapability(ctx, s->resolving_funcs);"),
			times: 1, with: "promise = async_promise(ctx, &s->resolving_funcs[0]);",
		},
		{
			file: "quickjs.c", why: "as above",
			old:   regexp.MustCompile(`JS_Call\(ctx, s->resolving_funcs\[([01])\], JS_UNDEFINED,\s+1, vc\(&(error|value)\)\);`),
			times: 2, with: "async_settle(ctx, s->resolving_funcs[0], $2, $1);",
		},
	}
}

// edit applies our changes to one file.
func edit(file string, data []byte) ([]byte, error) {
	for _, c := range changes() {
		if c.file != file {
			continue
		}
		if n := len(c.old.FindAllIndex(data, -1)); n != c.times {
			return nil, fmt.Errorf("editing %s (%s): the place occurs %d times, not %d", file, c.why, n, c.times)
		}
		data = c.old.ReplaceAll(data, []byte(c.with))
	}
	return bytes.Clone(data), nil
}
