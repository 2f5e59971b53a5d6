package identity

import (
	"fmt"
	"strings"

	"github.com/casemate-dev/casemate/internal/function"
)

// Action is something a principal may be allowed to do.
type Action string

// The actions. Admin implies every other one.
const (
	Invoke  Action = "invoke"  // call a function
	Read    Action = "read"    // see functions, versions, logs, receipts, events
	Deploy  Action = "deploy"  // plan, apply, move aliases, delete, pause, replay
	Publish Action = "publish" // send events to a topic
	Connect Action = "connect" // have a trigger use a connection
	Admin   Action = "admin"   // everything, keys and connections included

	FetchData Action = "fetch" // read what a bucket holds
	StoreData Action = "store" // the same, write it, delete it, and make the bucket
)

// Scope is one permission: an action on functions, or on the topics, connections or
// buckets of that name. Namespace and Function may be "*". Its text form is
// action:namespace/function, as in invoke:shop/*.
type Scope struct {
	Action    Action
	Namespace string
	Function  string
}

// ParseScope reads the text form. "admin" stands alone.
func ParseScope(s string) (Scope, error) {
	if s == string(Admin) {
		return Scope{Admin, "*", "*"}, nil
	}
	action, rest, ok := strings.Cut(s, ":")
	ns, fn, ok2 := strings.Cut(rest, "/")
	sc := Scope{Action(action), ns, fn}
	valid := function.ValidName
	switch sc.Action {
	case Invoke, Read, Deploy, Publish, Connect:
	case FetchData, StoreData:
		valid = validBucket
	default:
		ok = false
	}
	if !ok || !ok2 || (ns != "*" && !function.ValidName(ns)) || (fn != "*" && !valid(fn)) {
		return Scope{}, fmt.Errorf("parsing scope %.100q: want %s", s, ScopeForms)
	}
	return sc, nil
}

// ScopeForms says to people how scopes are written.
const ScopeForms = "admin, or invoke, read, deploy, publish or connect, then :namespace/function, or fetch or store, then :namespace/bucket, as in invoke:default/*"

// validBucket is ValidName, except that a bucket's name may begin with a digit.
func validBucket(s string) bool {
	return s != "" && len(s) <= 63 && s[0] != '-' && s[len(s)-1] != '-' && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// String gives the text form.
func (s Scope) String() string {
	if s.Action == Admin {
		return string(Admin)
	}
	return string(s.Action) + ":" + s.Namespace + "/" + s.Function
}

// Principal is a caller whose identity has been established. The zero value is
// nobody and may do nothing.
type Principal struct {
	Kind   string // "key", "anonymous", "node"
	ID     string // the key's public id; never a secret
	Name   string // for people
	Scopes []Scope
}

// Anonymous is who calls a public route without a credential.
func Anonymous() Principal { return Principal{Kind: "anonymous"} }

// String is how receipts and logs name the principal: kind:id, or kind.
func (p Principal) String() string {
	if p.ID == "" {
		return p.Kind
	}
	return p.Kind + ":" + p.ID
}

// May reports whether a scope of p allows the action on the function. Pass "*"
// as name (or namespace) to ask for all of them: only a scope that itself says
// "*" there allows that. StoreData includes FetchData.
func (p Principal) May(a Action, on function.Ref) bool {
	for _, s := range p.Scopes {
		if s.Action == Admin {
			return true
		}
		if (s.Action == a || (s.Action == StoreData && a == FetchData)) && (s.Namespace == "*" || s.Namespace == on.Namespace) && (s.Function == "*" || s.Function == on.Name) {
			return true
		}
	}
	return false
}
