// Says hello, as AWS's own library for Go has it. It also says when it was called.
package main

import (
	"context"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
)

type request struct {
	Name   string `json:"name"`
	Millis int    `json:"millis"`
}

type answer struct {
	Hello string `json:"hello"`
	At    int64  `json:"at"` // nanoseconds since the epoch
}

func handle(_ context.Context, r request) (answer, error) {
	at := time.Now().UnixNano()
	time.Sleep(time.Duration(r.Millis) * time.Millisecond)
	return answer{Hello: r.Name, At: at}, nil
}

func main() { lambda.Start(handle) }
