package main

import (
	"context"
	"testing"
)

func TestGreet(t *testing.T) {
	tests := map[string]struct {
		body   string
		status int
		want   string
	}{
		"a name":   {`{"name":"Ada"}`, 200, `{"message":"Hello, Ada!","caller":"key:test"}`},
		"nothing":  {``, 200, `{"message":"Hello, world!","caller":"key:test"}`},
		"not JSON": {`{`, 400, `{"error":"the body is not JSON"}`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := greet(context.Background(), &Request{Caller: "key:test", Body: []byte(tt.body)})
			if err != nil {
				t.Fatal(err)
			}
			if got.Status != tt.status || string(got.Body) != tt.want+"\n" {
				t.Errorf("got %d %s, want %d %s", got.Status, got.Body, tt.status, tt.want)
			}
		})
	}
}
