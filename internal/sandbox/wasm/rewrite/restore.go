package rewrite

import (
	"errors"
	"fmt"
	"strings"
)

// Restorable gives nil when linear memory and the exported globals are the whole
// mutable state of an instance, so that who restores both has restored it. The error
// names all that is in the way, for whoever built the module.
func (f *Facts) Restorable() error {
	var why []string
	for _, i := range f.Imports {
		if i.Kind != KindFunc {
			why = append(why, fmt.Sprintf("it imports the %v %q from %q", i.Kind, i.Name, i.Module))
			break
		}
	}
	for _, c := range []struct {
		found bool
		what  string
	}{
		{f.MutatesTable, "its code changes a table (table.set, fill, copy, init or grow)"},
		{f.DropsData, "its code drops data segments (data.drop)"},
		{f.DropsElements, "its code drops element segments (elem.drop)"},
		{f.MutableVector, "it has a mutable global of type v128"},
		{f.MutableReference, "it has a mutable global that holds a reference"},
	} {
		if c.found {
			why = append(why, c.what)
		}
	}
	if why == nil {
		return nil
	}
	return errors.New("an instance cannot be used again: " + strings.Join(why, "; "))
}
