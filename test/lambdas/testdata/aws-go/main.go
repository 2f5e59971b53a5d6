// As in "Building Lambda functions with Go", on github.com/aws/aws-lambda-go.
package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

func handler(ctx context.Context, request events.LambdaFunctionURLRequest) (events.LambdaFunctionURLResponse, error) {
	lc, _ := lambdacontext.FromContext(ctx)
	fmt.Printf("Processing request data for request %s.\n", request.RequestContext.RequestID)
	switch request.QueryStringParameters["want"] {
	case "error":
		return events.LambdaFunctionURLResponse{}, errors.New("asked to fail")
	case "panic":
		panic("asked to panic")
	case "bytes":
		return events.LambdaFunctionURLResponse{
			StatusCode: 200, Headers: map[string]string{"content-type": "application/octet-stream"},
			Body: base64.StdEncoding.EncodeToString([]byte{'G', 'o', 0, 255}), IsBase64Encoded: true,
		}, nil
	}
	return events.LambdaFunctionURLResponse{
		StatusCode: 200,
		Headers:    map[string]string{"content-type": "text/plain", "x-same-id": fmt.Sprint(lc.AwsRequestID != "")},
		Body:       "Hello from " + lambdacontext.FunctionName + ", " + request.QueryStringParameters["name"],
	}, nil
}

func main() {
	lambda.Start(handler)
}
