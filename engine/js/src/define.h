// Quicker ways to give an object a property: an invocation makes its objects anew, and
// the general way looks at what such an object cannot be. build/edits.go puts these in
// their places in quickjs.c.
#ifndef CASEMATE_DEFINE_H
#define CASEMATE_DEFINE_H

// define_new gives a fresh object a property that it does not have yet. It takes over
// the value. When memory runs out there is an exception, and no property.
static void define_new(JSContext *ctx, JSObject *p, JSAtom prop, JSValue value, int flags)
{
    JSProperty *pr = add_property(ctx, p, prop, flags);
    if (likely(pr))
        pr->u.value = value;
    else
        JS_FreeValue(ctx, value);
}

// define_field defines a member of an object literal or a public field of a class. It
// takes over the value, and gives -1 with an exception.
static inline int define_field(JSContext *ctx, JSValueConst obj, JSAtom prop, JSValue value)
{
    if (JS_VALUE_GET_TAG(obj) == JS_TAG_OBJECT) {
        JSObject *p = JS_VALUE_GET_OBJ(obj);
        JSProperty *pr;
        if (p->class_id == JS_CLASS_OBJECT && p->extensible && !find_own_property(&pr, p, prop)) {
            pr = add_property(ctx, p, prop, JS_PROP_C_W_E);
            if (unlikely(!pr)) {
                JS_FreeValue(ctx, value);
                return -1;
            }
            pr->u.value = value;
            return true;
        }
    }
    return JS_DefinePropertyValue(ctx, obj, prop, value, JS_PROP_C_W_E | JS_PROP_THROW);
}

// keep_shape gives a list of objects that hold on to the shapes which objects like p
// pass through while they are made, with room for all properties from the beginning.
// Shapes are found by what they hold, so as long as the list is there, making such an
// object needs no memory but its own.
static JSValue keep_shape(JSContext *ctx, JSObject *p)
{
    int n = p->shape->prop_count, hash_size = JS_PROP_INITIAL_HASH_SIZE;
    JSValue list = JS_NewArray(ctx);
    JSShape *first;
    while (hash_size < n)
        hash_size *= 2;
    // The newest is found first.
    first = JS_IsException(list) ? NULL : js_new_shape2(ctx, p->shape->proto, hash_size, max_int(n, JS_PROP_INITIAL_SIZE));
    for (int k = 0; first && k <= n; k++) {
        JSValue o = JS_NewObjectFromShape(ctx, js_dup_shape(first), p->class_id, NULL);
        for (int i = 0; !JS_IsException(o) && i < k; i++) {
            JSShapeProperty *prop = &get_shape_prop(p->shape)[i];
            define_new(ctx, JS_VALUE_GET_OBJ(o), prop->atom, JS_UNDEFINED, prop->flags);
        }
        if (JS_IsException(o) || JS_SetPropertyUint32(ctx, list, k, o) < 0) {
            JS_FreeValue(ctx, list);
            list = JS_EXCEPTION;
            break;
        }
    }
    js_free_shape_null(ctx->rt, first);
    return list;
}

#endif
