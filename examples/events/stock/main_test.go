package main

import (
	"strings"
	"testing"
)

func TestReorder(t *testing.T) {
	for body, want := range map[string]string{
		`{"operation":"insert","new":{"sku":"a","left":9}}`:                               "false",
		`{"operation":"update","new":{"sku":"a","left":4},"old":{"sku":"a","left":5}}`:    "true",
		`{"operation":"update","new":{"sku":"a","left":3},"old":{"sku":"a","left":4}}`:    "false",
		`{"operation":"insert","new":{"sku":"a","left":1},"old":null,"committed":"later"}`: "true",
	} {
		out, err := reorder(t.Context(), &Request{Body: []byte(body)})
		if err != nil || !strings.Contains(string(out.Body), want) {
			t.Errorf("%s: %v, %v", body, out, err)
		}
	}
}
