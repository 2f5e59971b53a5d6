package main

import (
	"context"
	"encoding/json"
)

// The request is tried once, at deployment: what encoding/json learns of the types then
// is there for each invocation.
func main() { Serve(greet, &Request{Body: []byte(`{"name":"Ada"}`)}) }

type greeting struct {
	Message string `json:"message"`
	Caller  string `json:"caller"`
}

// greet answers {"name": "Ada"} with a greeting.
func greet(_ context.Context, r *Request) (*Response, error) {
	var in struct {
		Name string `json:"name"`
	}
	if len(r.Body) > 0 {
		if err := json.Unmarshal(r.Body, &in); err != nil {
			return JSON(400, map[string]string{"error": "the body is not JSON"})
		}
	}
	if in.Name == "" {
		in.Name = "world"
	}
	println("greeting", in.Name) // standard error is the log
	return JSON(200, greeting{Message: "Hello, " + in.Name + "!", Caller: r.Caller})
}
