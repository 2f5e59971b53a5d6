package problem

// Code is stable: clients may switch on it. Codes are never renamed or reused.
type Code string

// The catalogue. Keep it in the order of table below.
const (
	BadRequest        Code = "bad_request"
	InvalidPath       Code = "invalid_path"
	InvalidHeader     Code = "invalid_header"
	InvalidManifest   Code = "invalid_manifest"
	InvalidModule     Code = "invalid_module"
	SecretInConfig    Code = "secret_in_config"
	Unauthenticated   Code = "unauthenticated"
	Forbidden         Code = "forbidden"
	NotFound          Code = "not_found"
	MethodNotAllowed  Code = "method_not_allowed"
	RequestTimeout    Code = "request_timeout"
	Conflict          Code = "conflict"
	Precondition      Code = "precondition_failed"
	RouteTaken        Code = "route_taken"
	PlanStale         Code = "plan_stale"
	Gone              Code = "gone"
	BodyTooLarge      Code = "body_too_large"
	UnsupportedMedia  Code = "unsupported_media_type"
	DigestMismatch    Code = "digest_mismatch"
	InvalidEvent      Code = "invalid_event"
	TooManyRequests   Code = "too_many_requests"
	BacklogFull       Code = "backlog_full"
	HeadersTooLarge   Code = "headers_too_large"
	ClientGone        Code = "client_gone"
	Internal          Code = "internal"
	NotImplemented    Code = "not_implemented"
	FunctionCrashed   Code = "function_crashed"
	FunctionBadAnswer Code = "function_bad_answer"
	FunctionOutput    Code = "function_output_limit"
	FunctionMemory    Code = "function_memory_limit"
	FunctionStack     Code = "function_stack_limit"
	FunctionCPU       Code = "function_cpu_limit"
	FunctionCalls     Code = "function_call_limit"
	ArtifactTampered  Code = "artifact_tampered"
	SandboxLost       Code = "sandbox_lost"
	Overloaded        Code = "overloaded"
	Draining          Code = "draining"
	FunctionTimeout   Code = "function_timeout"
	StorageFull       Code = "storage_full"
)

// Row is what the catalogue says of a code.
type Row struct {
	Code   Code
	Status int
	Title  string
	Remedy string
}

// table is a function so that nothing can change it.
func table() []Row {
	return []Row{
		{BadRequest, 400, "The request could not be understood", "Correct the field named and send the request again."},
		{InvalidPath, 400, "The path is not in canonical form", "Send the path without empty, dot or encoded-dot segments, backslashes or control characters."},
		{InvalidHeader, 400, "A header cannot be accepted", "Remove or correct the header named."},
		{InvalidManifest, 400, "The manifest is not valid", "Correct the place named; `casemate config validate` checks without deploying."},
		{InvalidModule, 400, "The code cannot be run", "Build for WASI preview 1 (`wasm32-wasi`), exporting `_start`, or `_initialize` and `handle`; for js and ts, export a default object with a `fetch` method."},
		{SecretInConfig, 400, "A plain environment value looks like a secret", "Take the value out of the manifest. Environment values are stored and shown in the clear."},
		{Unauthenticated, 401, "A valid credential is needed", "Send an API key as `Authorization: Bearer …`. `casemate key create` makes one."},
		{Forbidden, 403, "The credential does not allow this", "Use a credential whose scopes name this function, or ask its owner for one."},
		{NotFound, 404, "Nothing is here", "Check the path. `casemate list` shows what is deployed."},
		{MethodNotAllowed, 405, "The method is not allowed here", "Use one of the methods in the Allow header."},
		{RequestTimeout, 408, "The request took too long to arrive", "Send the whole request without long pauses."},
		{Conflict, 409, "Somebody else changed this first", "Read the current state and try again."},
		{RouteTaken, 409, "Another function already serves this route", "Choose another path, or delete the function that holds it."},
		{PlanStale, 409, "The plan no longer fits what is deployed", "Make a new plan and apply that."},
		{Gone, 410, "Nothing is taken in here any more", "Stop sending to this address, or deploy the trigger again."},
		{Precondition, 412, "A condition of the request does not hold", "Read the current state and try again."},
		{BodyTooLarge, 413, "The body is larger than this route accepts", "Send less, or raise bodyLimit in the manifest."},
		{UnsupportedMedia, 415, "The media type is not accepted here", "Send the media type named in the detail."},
		{DigestMismatch, 422, "The content does not match its digest", "Upload the artifact again; `casemate deploy` computes the digest for you."},
		{InvalidEvent, 422, "An event breaks a rule", "Correct the field named. Nothing of what was sent with it has been taken in."},
		{TooManyRequests, 429, "Too many requests at once", "Wait for the time in Retry-After, then try again; raise concurrency.max in the manifest if this is normal load."},
		{BacklogFull, 429, "Too many events wait already", "Wait for the time in Retry-After, then send the same again, with the same ids. If it stays, the function is too slow, paused or failing."},
		{HeadersTooLarge, 431, "The headers are too large", "Send fewer or shorter headers."},
		{ClientGone, 499, "The caller went away", "Nobody sees this answer; it stands in the receipt."},
		{Internal, 500, "Something went wrong on our side", "Try again. If it stays, give the request id to whoever runs this node."},
		{NotImplemented, 501, "This is not available here", "See the detail for what is missing."},
		{FunctionCrashed, 502, "The function failed", "See its output with `casemate logs`, by the request id."},
		{FunctionBadAnswer, 502, "The function's answer could not be understood", "Answer with one line of JSON, {\"status\":200,\"headers\":{}}, and then the body."},
		{FunctionOutput, 502, "The function's answer was too large", "Answer with less, or raise limits.output in the manifest."},
		{FunctionMemory, 502, "The function ran out of memory", "Use less, or raise memory in the manifest."},
		{FunctionStack, 502, "The function called itself too deeply", "Look for recursion without an end."},
		{FunctionCPU, 502, "The function did more work than it may", "Do less in one invocation, or raise limits.cpu in the manifest. The same input fails again: work is counted, not timed."},
		{FunctionCalls, 502, "The function made too many host calls", "Make fewer in one invocation, or raise limits.calls in the manifest."},
		{ArtifactTampered, 502, "The stored code is not what was deployed", "It was refused. Deploy the function again and find out who changed the data directory."},
		{SandboxLost, 502, "The sandbox ended before the function answered", "Send the request again if it may safely be done twice."},
		{Overloaded, 503, "The node has no room for this now", "Wait for the time in Retry-After, then try again."},
		{Draining, 503, "The node is shutting down", "Send the request again, to another node or after the restart."},
		{FunctionTimeout, 504, "The function took too long", "Do less in one invocation, or raise timeout in the manifest."},
		{StorageFull, 507, "The node cannot store any more", "Free space in the data directory's file system."},
	}
}

// Catalogue returns every row, in order of status.
func Catalogue() []Row { return table() }

// Lookup returns the row of a code; an unknown code gets the row of Internal.
func Lookup(code Code) Row {
	for _, r := range table() {
		if r.Code == code {
			return r
		}
	}
	return Lookup(Internal)
}
