package guests

import (
	"bytes"
	"image"
	"image/png"
	"testing"
)

func TestWantSeesEveryDifference(t *testing.T) {
	t.Parallel()
	var picture bytes.Buffer
	if err := png.Encode(&picture, image.NewGray(image.Rect(0, 0, 2, 3))); err != nil {
		t.Fatal(err)
	}
	text := "hello"
	ok := Answer{Status: 200, Headers: map[string]string{"content-type": "a"}, Body: []byte(`{"a":1,"b":[2]}`)}
	tests := map[string]struct {
		want   Want
		answer Answer
		right  bool
	}{
		"status":         {Want{Status: 201}, ok, false},
		"header":         {Want{Status: 200, Headers: map[string]string{"Content-Type": "b"}}, ok, false},
		"header, right":  {Want{Status: 200, Headers: map[string]string{"Content-Type": "a"}}, ok, true},
		"text":           {Want{Status: 200, Text: &text}, ok, false},
		"contains":       {Want{Status: 200, Contains: []string{"x"}}, ok, false},
		"absent":         {Want{Status: 200, Absent: []string{`"a"`}}, ok, false},
		"member":         {Want{Status: 200, JSON: []byte(`{"a":2}`)}, ok, false},
		"no such member": {Want{Status: 200, JSON: []byte(`{"c":null}`)}, ok, false},
		"members, right": {Want{Status: 200, JSON: []byte(`{"b":[2]}`)}, ok, true},
		"another value":  {Want{Status: 200, JSON: []byte(`[1]`)}, ok, false},
		"not JSON":       {Want{Status: 200, JSON: []byte(`{}`)}, Answer{Status: 200, Body: []byte("x")}, false},
		"not a picture":  {Want{Status: 200, PNG: &Size{2, 3}}, ok, false},
		"another size":   {Want{Status: 200, PNG: &Size{3, 2}}, Answer{Status: 200, Body: picture.Bytes()}, false},
		"its size":       {Want{Status: 200, PNG: &Size{2, 3}}, Answer{Status: 200, Body: picture.Bytes()}, true},
	}
	for name, tt := range tests {
		if err := tt.want.Check(tt.answer); (err == nil) != tt.right {
			t.Errorf("%s: got %v, want right: %v", name, err, tt.right)
		}
	}
}
