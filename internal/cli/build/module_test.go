package build

import (
	"errors"
	"strings"
	"testing"
)

func TestWhatIsNoCoreModuleIsNamed(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		module string
		want   string
	}{
		"nothing":          {"", "not WebAssembly"},
		"text":             {"#!/bin/sh", "not WebAssembly"},
		"magic alone":      {"\x00asm", "not a version 1"},
		"component":        {"\x00asm\x0d\x00\x01\x00rest", "component"},
		"version 2":        {"\x00asm\x02\x00\x00\x00", "not a version 1"},
		"no exports":       {"\x00asm\x01\x00\x00\x00", "no function _start"},
		"cut in a section": {string(startOnly[:20]), "malformed"},
		"a memory _start":  {strings.Replace(string(startOnly), "_start\x00", "_start\x02", 1), "no function _start"},
		"endless number":   {"\x00asm\x01\x00\x00\x00\x07\xff\xff\xff\xff\xff\xff", "malformed"},
		"section of 4 GiB": {"\x00asm\x01\x00\x00\x00\x07\xff\xff\xff\xff\x0f", "malformed"},
		"name of 4 GiB":    {"\x00asm\x01\x00\x00\x00\x07\x07\x01\xff\xff\xff\xff\x0fx", "malformed"},
		"billions of them": {"\x00asm\x01\x00\x00\x00\x07\x05\xff\xff\xff\xff\x0f", "malformed"},
	}
	for name, tt := range tests {
		j := &job{Request: Request{Entry: EntryCommand}}
		var bad *InputError
		if err := checkModule(j, []byte(tt.module)); !errors.As(err, &bad) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
}

func TestAReactorWithHandleIsAccepted(t *testing.T) {
	t.Parallel()
	reactor := strings.Replace(string(startOnly), "_start", "handle", 1)
	j := &job{Request: Request{Entry: EntryHandle}}
	if err := checkModule(j, []byte(reactor)); err != nil {
		t.Error(err)
	}
}

func FuzzExportedFunctions(f *testing.F) {
	f.Add(startOnly)
	f.Add([]byte("\x00asm\x01\x00\x00\x00\x07\x05\xff\xff\xff\xff\x0f"))
	f.Fuzz(func(t *testing.T, module []byte) {
		if len(module) < 8 {
			return
		}
		names, err := exportedFunctions(module)
		if err != nil && names != nil {
			t.Error("names came with an error")
		}
		for name := range names {
			if len(name) > len(module) {
				t.Error("a name is longer than the module")
			}
		}
	})
}
