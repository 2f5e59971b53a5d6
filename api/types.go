// Package api is the public contract of a node's control plane: the wire types,
// and a client over them. The package manifest below it reads casemate.yaml, and
// problem holds the catalogue of errors.
//
// It imports nothing of internal, so that anybody can build on it. Sizes are
// bytes, durations are milliseconds, times are RFC 3339 in UTC, digests are
// "sha256:" and 64 hex digits.
package api

import (
	"encoding/json"
	"time"
)

// FunctionConfig is what a version is configured with. A zero field means the
// node's default; the node answers with every field filled in.
type FunctionConfig struct {
	Runtime       string            `json:"runtime" enum:"go,rust,c,assemblyscript,js,ts,wasm,provided,nodejs,python,http,azure"`
	Entry         string            `json:"entry,omitempty" enum:"command,handle" doc:"Of modules; the runtimes provided, nodejs, python, http and azure have none"`
	Handler       string            `json:"handler,omitempty" doc:"Of nodejs and python: file and function, such as index.handler"`
	Command       []string          `json:"command,omitempty" doc:"Of http and azure: a file of the function, or node or python3, and its arguments"`
	Isolation     string            `json:"isolation,omitempty" enum:"invocation,instance"`
	Sandbox       string            `json:"sandbox,omitempty" enum:"gvisor"`
	MemoryBytes   int64             `json:"memoryBytes,omitempty"`
	TimeoutMillis int64             `json:"timeoutMillis,omitempty"`
	CPUMillis     int64             `json:"cpuMillis,omitempty" doc:"Processor time of one invocation"`
	Calls         int64             `json:"calls,omitempty" doc:"Host calls one invocation may make"`
	OutputBytes   int64             `json:"outputBytes,omitempty"`
	LogBytes      int64             `json:"logBytes,omitempty"`
	ScratchBytes  int64             `json:"scratchBytes,omitempty" doc:"Of /tmp, which counts towards the memory"`
	Processes     int               `json:"processes,omitempty" doc:"Processes and threads at once"`
	Concurrency   Concurrency       `json:"concurrency,omitzero"`
	Environment   map[string]string `json:"environment,omitempty"`
	HTTP          []HTTPTrigger     `json:"http,omitempty"`
	Triggers      []Trigger         `json:"triggers,omitempty" doc:"Sources of events; each has a name of its own"`
}

// Concurrency bounds the invocations of one function that run at once.
type Concurrency struct {
	Max      int `json:"max,omitempty"`
	Reserved int `json:"reserved,omitempty"`
}

// HTTPTrigger binds a route to a function.
type HTTPTrigger struct {
	Method    string `json:"method"`
	Path      string `json:"path"`
	Public    bool   `json:"public,omitempty"`
	BodyLimit int64  `json:"bodyLimitBytes,omitempty"`
	CORS      *CORS  `json:"cors,omitempty"`
}

// CORS is the cross-origin policy of a route.
type CORS struct {
	Origins      []string `json:"origins"`
	Methods      []string `json:"methods,omitempty"`
	Headers      []string `json:"headers,omitempty"`
	Expose       []string `json:"expose,omitempty"`
	Credentials  bool     `json:"credentials,omitempty"`
	MaxAgeMillis int64    `json:"maxAgeMillis,omitempty"`
}

// Trigger binds a source of events to a function.
type Trigger struct {
	Name       string          `json:"name"`
	Kind       string          `json:"kind" doc:"schedule, webhook, topic, nats, amqp, kafka, mqtt, redis, sqs, postgres, outbox, kv, bucket or folder, or that of an installed connector"`
	Connection string          `json:"connection,omitempty" doc:"Of the function's namespace"`
	Settings   json.RawMessage `json:"settings,omitempty" doc:"An object; its fields are the kind's"`
	Schema     json.RawMessage `json:"schema,omitempty" doc:"JSON Schema 2020-12 that the data must meet"`
	NoSchema   string          `json:"noSchema,omitempty" doc:"Or the reason why there is none"`
	Delivery   Delivery        `json:"delivery,omitzero"`
}

// Delivery says how the events of a trigger reach the function.
type Delivery struct {
	Concurrency       int           `json:"concurrency,omitempty" doc:"Events, or batches, under way at once"`
	Rate              int           `json:"rate,omitempty" doc:"Begun per second; 0 for no bound"`
	Ordered           bool          `json:"ordered,omitempty" doc:"Events of one key run one after another"`
	Attempts          int           `json:"attempts,omitempty" doc:"Before an event becomes a dead letter"`
	MaxAgeMillis      int64         `json:"maxAgeMillis,omitempty" doc:"Before an event becomes a dead letter"`
	BackoffMillis     int64         `json:"backoffMillis,omitempty" doc:"Before the second attempt; it doubles with each"`
	BackoffMostMillis int64         `json:"backoffMostMillis,omitempty"`
	Backlog           int           `json:"backlog,omitempty" doc:"More waiting events are refused at the source"`
	Batch             int           `json:"batch,omitempty" doc:"Most events of one invocation"`
	BatchWindowMillis int64         `json:"batchWindowMillis,omitempty" doc:"How long a batch waits to fill"`
	OnSuccess         []Destination `json:"onSuccess,omitempty"`
	OnFailure         []Destination `json:"onFailure,omitempty"`
	Reply             string        `json:"reply,omitempty" doc:"Topic of the same namespace for CloudEvents that the function answers with"`
}

// Destination is where the outcome of an event goes. One field is set.
type Destination struct {
	Function string `json:"function,omitempty" doc:"Of the same namespace"`
	Topic    string `json:"topic,omitempty" doc:"Of the same namespace"`
	Webhook  string `json:"webhook,omitempty" doc:"A connection of kind webhook"`
}

// FunctionSpec asks for a function to have this code and configuration.
type FunctionSpec struct {
	Name     string         `json:"name"`
	Artifact string         `json:"artifact"`
	Config   FunctionConfig `json:"config"`
}

// Change is one step of a plan.
type Change struct {
	Function string       `json:"function"`
	Action   string       `json:"action" enum:"create,update,none,delete"`
	Version  string       `json:"version,omitempty"` // the id it would have
	Current  string       `json:"current,omitempty"` // what live points at now
	Revision uint64       `json:"revision"`          // of the function's record that the plan was made on; 0: none
	Diff     []FieldDelta `json:"diff,omitempty"`
	Warnings []string     `json:"warnings,omitempty"` // such as a route that becomes public
}

// FieldDelta is one difference between two configurations.
type FieldDelta struct {
	Field string `json:"field"`
	From  string `json:"from,omitempty"`
	To    string `json:"to,omitempty"`
}

// PlanRequest asks what a deployment would change.
type PlanRequest struct {
	Functions []FunctionSpec `json:"functions"`
	Alias     string         `json:"alias,omitempty"` // to move; "live" when empty
}

// Plan is what a deployment would change. Apply carries out exactly that or
// fails with plan_stale.
type Plan struct {
	Namespace string   `json:"namespace"`
	Alias     string   `json:"alias"`
	Changes   []Change `json:"changes"`
}

// ApplyRequest carries out a plan for the same functions.
type ApplyRequest struct {
	Plan      Plan           `json:"plan"`
	Functions []FunctionSpec `json:"functions"`
}

// Applied is what a deployment did.
type Applied struct {
	Namespace string     `json:"namespace"`
	Functions []Deployed `json:"functions"`
}

// Deployed is one function after a deployment.
type Deployed struct {
	Name    string   `json:"name"`
	Version string   `json:"version"`
	Changed bool     `json:"changed"`
	URLs    []string `json:"urls,omitempty"`
}

// Version is one immutable build.
type Version struct {
	ID       string         `json:"id"`
	Artifact string         `json:"artifact"`
	Size     int64          `json:"sizeBytes"`
	Created  time.Time      `json:"created"`
	Creator  string         `json:"creator"`
	Config   FunctionConfig `json:"config"`
	Aliases  []string       `json:"aliases,omitempty"` // that point here now
}

// Weight is a share of an alias's traffic.
type Weight struct {
	Version string `json:"version"`
	Percent int    `json:"percent"`
}

// Alias is a movable pointer. The percentages add up to 100.
type Alias struct {
	Name    string      `json:"name"`
	Targets []Weight    `json:"targets"`
	History []AliasMove `json:"history,omitempty"` // newest first
}

// AliasMove is one past position of an alias.
type AliasMove struct {
	Targets []Weight  `json:"targets"`
	At      time.Time `json:"at"`
	By      string    `json:"by"`
	Why     string    `json:"why"` // deploy, alias, rollback
}

// Function is a function with its aliases.
type Function struct {
	Namespace string   `json:"namespace"`
	Name      string   `json:"name"`
	Revision  uint64   `json:"revision"`
	Aliases   []Alias  `json:"aliases"`
	Live      *Version `json:"live,omitempty"` // the version with the largest share of live
	URLs      []string `json:"urls,omitempty"`
	Stats     *Stats   `json:"stats,omitempty"` // describe only
	// Triggers says how those in force are doing; describe only.
	Triggers []TriggerStatus `json:"triggers,omitempty"`
}

// Stats sums up recent receipts of a function.
type Stats struct {
	Since      time.Time `json:"since"`
	Count      int64     `json:"count"`
	Failed     int64     `json:"failed"`
	P50Millis  float64   `json:"p50Millis"`
	P99Millis  float64   `json:"p99Millis"`
	CPUMillis  float64   `json:"cpuMillis"` // sum
	MemoryPeak int64     `json:"memoryPeakBytes"`
	Last       []Receipt `json:"last,omitempty"` // newest first, ten at most
}

// SetAlias moves an alias. With Revision, only from that state.
type SetAlias struct {
	Targets  []Weight `json:"targets"`
	Revision uint64   `json:"revision,omitempty"`
}

// Rollback moves an alias back to where it pointed before, or to a version.
type Rollback struct {
	Alias string `json:"alias,omitempty"`
	To    string `json:"to,omitempty"` // version id, or a prefix of at least 6 digits that fits one
}

// Invocation calls a function from the control plane.
type Invocation struct {
	Qualifier string              `json:"qualifier,omitempty"` // alias or version id
	Method    string              `json:"method,omitempty"`    // POST when empty
	Path      string              `json:"path,omitempty"`      // "/" when empty
	Query     string              `json:"query,omitempty"`
	Headers   map[string][]string `json:"headers,omitempty"`
	Body      []byte              `json:"body,omitempty"`  // base64
	Event     *Event              `json:"event,omitempty"` // deliver Body as the data of this event
}

// Event describes a CloudEvent (CloudEvents 1.0) whose data is the body. The
// node stamps its source.
type Event struct {
	ID              string            `json:"id,omitempty"`
	Type            string            `json:"type"`
	Subject         string            `json:"subject,omitempty"`
	DataContentType string            `json:"datacontenttype,omitempty"`
	Extensions      map[string]string `json:"extensions,omitempty"`
}

// InvocationResult is the function's answer, which may itself be an error status.
type InvocationResult struct {
	Status  int                 `json:"status"`
	Headers map[string][]string `json:"headers,omitempty"`
	Body    []byte              `json:"body,omitempty"` // base64
	Receipt Receipt             `json:"receipt"`
	Log     []string            `json:"log,omitempty"` // the last lines
}

// Receipt is the record of one invocation.
type Receipt struct {
	ID         string    `json:"id"`
	RequestID  string    `json:"requestId"`
	Namespace  string    `json:"namespace"`
	Function   string    `json:"function"`
	Version    string    `json:"version"`
	Artifact   string    `json:"artifact"`
	Alias      string    `json:"alias,omitempty"`
	Trigger    string    `json:"trigger"`
	Route      string    `json:"route,omitempty"`
	Principal  string    `json:"principal"`
	Event      string    `json:"event,omitempty" doc:"Id of the event, or of the first of a batch"`
	Events     int       `json:"events,omitempty" doc:"How many a batch had"`
	Members    []string  `json:"members,omitempty" doc:"Ids of a batch's events, one that is very long by its digest; where one receipt is asked for"`
	Source     string    `json:"source,omitempty" doc:"The function's trigger by name"`
	Attempt    int       `json:"attempt,omitempty" doc:"From 1, at delivering the event"`
	Replay     bool      `json:"replay,omitempty" doc:"The event was delivered before, and somebody had it run anew"`
	Chain      string    `json:"chain,omitempty" doc:"Id of the first of the events that led to this one"`
	Depth      int       `json:"depth,omitempty"`
	Sandbox    string    `json:"sandbox,omitempty"`
	Isolation  string    `json:"isolation,omitempty"`
	Cold       bool      `json:"cold,omitempty"`
	Start      time.Time `json:"start"`
	WallMillis float64   `json:"wallMillis"`
	CPUMillis  float64   `json:"cpuMillis"`
	Fuel       int64     `json:"fuel,omitempty" doc:"Instructions executed, an upper bound"`
	Calls      int64     `json:"calls,omitempty" doc:"Host calls made"`
	MemoryPeak int64     `json:"memoryPeakBytes"`
	BytesIn    int64     `json:"bytesIn"`
	BytesOut   int64     `json:"bytesOut"`
	LogBytes   int64     `json:"logBytes"`
	Status     int       `json:"status"`
	Outcome    string    `json:"outcome"`
}

// LogRecord is one element of a log stream: a line, or the receipt that ends an
// invocation.
type LogRecord struct {
	Time      time.Time `json:"time"`
	Function  string    `json:"function"`
	Version   string    `json:"version"`
	RequestID string    `json:"requestId"`
	Text      string    `json:"text,omitempty"`
	Receipt   *Receipt  `json:"receipt,omitempty"`
}

// LogQuery selects log records.
type LogQuery struct {
	Function  string // empty: every function of the namespace
	RequestID string
	Since     time.Time
	Tail      int  // at most this many past records; 0: 100
	Follow    bool // then go on with new ones until the context ends
}

// Key is an API key without its secret.
type Key struct {
	ID      string     `json:"id"`
	Kind    string     `json:"kind" enum:"bearer,aws"`
	Name    string     `json:"name,omitempty"`
	Scopes  []string   `json:"scopes"`
	Created time.Time  `json:"created"`
	Creator string     `json:"creator"`
	Expires *time.Time `json:"expires,omitempty"`
	Revoked *time.Time `json:"revoked,omitempty"`
	// AccessKeyID is how clients of AWS name the key; of kind aws only.
	AccessKeyID string `json:"accessKeyId,omitempty"`
}

// The kinds of keys.
const (
	KeyBearer = "bearer" // sent with each request
	KeyAWS    = "aws"    // an access key, with which clients of AWS sign
)

// CreateKey asks for a key.
type CreateKey struct {
	Kind          string   `json:"kind,omitempty" enum:"bearer,aws"` // bearer when empty
	Name          string   `json:"name,omitempty"`
	Scopes        []string `json:"scopes"`
	ExpiresMillis int64    `json:"expiresInMillis,omitempty"` // 0: never
}

// CreatedKey carries the secret, the only time it is ever shown.
type CreatedKey struct {
	Key
	Secret string `json:"secret"`
}

// Status is a node's own account of itself.
type Status struct {
	Healthy     bool              `json:"healthy"`
	State       string            `json:"state" enum:"starting,ready,draining"`
	Node        string            `json:"node"` // id
	Version     string            `json:"version"`
	Go          string            `json:"go"`
	Started     time.Time         `json:"started"`
	UptimeMS    int64             `json:"uptimeMillis"`
	Listeners   []Listener        `json:"listeners"`
	Components  map[string]string `json:"components"` // name → version or state
	Sandbox     SandboxStatus     `json:"sandbox"`
	Functions   int               `json:"functions"`
	Invocations int64             `json:"invocations"` // since start
	InFlight    int               `json:"inFlight"`
	RSSBytes    int64             `json:"rssBytes"`
	Events      *EventCounts      `json:"events,omitempty"`
	Objects     *ObjectStore      `json:"objects,omitempty" doc:"Left out when the node has none"`
	Warnings    []string          `json:"warnings,omitempty"`
}

// Listener is a socket that the node holds open.
type Listener struct {
	Name    string `json:"name"` // gateway, control, objects
	Address string `json:"address"`
	TLS     string `json:"tls"` // least version
	URL     string `json:"url"`
}

// ObjectStore is the node's own object store, which speaks S3. Counts are of all
// namespaces.
type ObjectStore struct {
	URL     string `json:"url" doc:"Endpoint for clients of S3"`
	Buckets int    `json:"buckets"`
	Objects int64  `json:"objects" doc:"Current versions"`
	Bytes   int64  `json:"bytes" doc:"Of all versions"`
}

// SandboxStatus says which defences hold around guest code on this machine.
type SandboxStatus struct {
	Processes  int      `json:"processes"`
	Warm       int      `json:"warm"`
	Enforced   []string `json:"enforced"`
	Unenforced []string `json:"unenforced,omitempty"`
}
