package webhook

// Code says why a request is refused.
type Code string

// Codes of refusals. Only Reason, which is for the log and not for the sender, says more;
// neither tells which key was tried or how far a comparison went.
const (
	NotFound      Code = "not-found"       // no trigger
	BadMethod     Code = "bad-method"      // neither POST nor a handshake
	MissingHeader Code = "missing-header"  // what the provider always sends is not there
	Malformed     Code = "malformed"       // headers or body cannot be read
	Unsupported   Code = "unsupported"     // a form of CloudEvents that is not read
	TooLarge      Code = "too-large"       // the body, or a batch
	BadSignature  Code = "bad-signature"   // no active key made the signature
	Stale         Code = "stale"           // signed too long ago
	Future        Code = "future"          // signed for a time that has not come
	WrongClaims   Code = "wrong-claims"    // a token for somebody else, or by somebody else
	WrongOrigin   Code = "wrong-origin"    // a sender that the handshake does not grant
	NotReady      Code = "keys-unreadable" // the connection has no usable key
	Busy          Code = "busy"            // come again
	Gone          Code = "gone"            // the trigger is no more
	Invalid       Code = "invalid"         // the trigger's schema or bounds are broken
	Full          Code = "full"            // too many events wait: come again
)

// Refusal is why a request was not taken in. Its text is for the node's log: the sender
// is told the status alone.
type Refusal struct {
	Code   Code
	Reason string
	// Cause is a *source.InvalidError of Invalid and a *source.BusyError of Full, which the
	// sender may be told; nil of the others.
	Cause error
}

// Unwrap gives the cause.
func (r *Refusal) Unwrap() error { return r.Cause }

func (r *Refusal) Error() string { return "web hook refused: " + r.Reason }

// Status is the HTTP status that answers the request.
func (r *Refusal) Status() int {
	switch r.Code {
	case NotFound:
		return 404
	case BadMethod:
		return 405
	case MissingHeader, Malformed:
		return 400
	case Unsupported:
		return 415
	case TooLarge:
		return 413
	case WrongOrigin:
		return 403
	case NotReady, Busy:
		return 503
	case Gone:
		return 410
	case Invalid:
		return 422
	case Full:
		return 429
	case BadSignature, Stale, Future, WrongClaims:
		return 401
	default:
		return 401
	}
}

func refuse(c Code, reason string) *Refusal { return &Refusal{Code: c, Reason: reason} }
