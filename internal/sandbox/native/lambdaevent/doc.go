// Package lambdaevent translates between a request as the platform has it and AWS
// Lambda's payload format 2.0, the one that function URLs and HTTP APIs send, both ways.
// internal/sandbox/native may import it; it imports leaves and the contract of sandbox.
// Its functions hold no state and may be called from many goroutines.
//
// # Whom a function may believe
//
// requestContext is the platform's: nothing that a caller sends gets into it, but for
// http.userAgent, which is by definition what the caller says of itself. The address in
// http.sourceIp is the one that the door wrote into x-forwarded-for after it had dropped
// the caller's; other triggers have none. Who was verified stands in authorizer.lambda.
//
// Source: https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html
package lambdaevent
