package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/casemate-dev/casemate/api/problem"
)

// list is how the node answers with several items, so that members can be added.
type list[T any] struct {
	Items []T `json:"items"`
}

// Status asks the node how it is.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	return fetch[Status](ctx, c, http.MethodGet, path("status"), nil)
}

// ManifestSchema returns the JSON Schema of the manifest that the node accepts.
func (c *Client) ManifestSchema(ctx context.Context) ([]byte, error) {
	resp, err := c.send(ctx, http.MethodGet, path("schemas", "manifest"), nil, nil, -1)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	return c.read(ctx, resp)
}

// HasArtifact reports whether the node holds the artifact already.
func (c *Client) HasArtifact(ctx context.Context, digest string) (bool, error) {
	resp, err := c.send(ctx, http.MethodHead, path("artifacts", digest), nil, nil, -1)
	var refused *Error
	if errors.As(err, &refused) && refused.Code == problem.NotFound {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, resp.Body.Close()
}

// PutArtifact uploads size bytes of r, whose digest the node verifies.
func (c *Client) PutArtifact(ctx context.Context, digest string, size int64, r io.Reader) error {
	if size <= 0 {
		return fmt.Errorf("uploading artifact: size must be positive, got %d", size)
	}
	header := http.Header{"Content-Type": {"application/octet-stream"}} // a module or a script; the version says which
	resp, err := c.send(ctx, http.MethodPut, path("artifacts", digest), header, r, size)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// Plan asks what a deployment would change. It changes nothing.
func (c *Client) Plan(ctx context.Context, ns string, in PlanRequest) (*Plan, error) {
	return fetch[Plan](ctx, c, http.MethodPost, path("namespaces", ns, "plan"), in)
}

// Apply carries out a plan, or fails with problem.PlanStale when the functions
// have changed since.
func (c *Client) Apply(ctx context.Context, ns string, in ApplyRequest) (*Applied, error) {
	return fetch[Applied](ctx, c, http.MethodPost, path("namespaces", ns, "apply"), in)
}

// Functions lists the functions of a namespace that the key may read, by name.
func (c *Client) Functions(ctx context.Context, ns string) ([]Function, error) {
	return fetchList[Function](ctx, c, path("namespaces", ns, "functions"))
}

// Function describes one function, with its aliases' history and recent statistics.
func (c *Client) Function(ctx context.Context, ns, name string) (*Function, error) {
	return fetch[Function](ctx, c, http.MethodGet, path("namespaces", ns, "functions", name), nil)
}

// Versions lists the versions of a function, newest first.
func (c *Client) Versions(ctx context.Context, ns, name string) ([]Version, error) {
	return fetchList[Version](ctx, c, path("namespaces", ns, "functions", name, "versions"))
}

// SetAlias points an alias at versions, creating it when there is none.
func (c *Client) SetAlias(ctx context.Context, ns, name, alias string, in SetAlias) (*Alias, error) {
	return fetch[Alias](ctx, c, http.MethodPut, path("namespaces", ns, "functions", name, "aliases", alias), in)
}

// DeleteAlias removes an alias. The one called live stays.
func (c *Client) DeleteAlias(ctx context.Context, ns, name, alias string) error {
	return c.call(ctx, http.MethodDelete, path("namespaces", ns, "functions", name, "aliases", alias), nil, nil)
}

// Rollback moves an alias back.
func (c *Client) Rollback(ctx context.Context, ns, name string, in Rollback) (*Alias, error) {
	return fetch[Alias](ctx, c, http.MethodPost, path("namespaces", ns, "functions", name, "rollback"), in)
}

// DeleteFunction removes a function with its aliases and versions.
func (c *Client) DeleteFunction(ctx context.Context, ns, name string) error {
	return c.call(ctx, http.MethodDelete, path("namespaces", ns, "functions", name), nil, nil)
}

// Invoke runs a function and waits for its answer. An answer with an error
// status is a result; a function that crashed is an *Error, whose Receipt names
// the record of it.
func (c *Client) Invoke(ctx context.Context, ns, name string, in Invocation) (*InvocationResult, error) {
	return fetch[InvocationResult](ctx, c, http.MethodPost, path("namespaces", ns, "functions", name, "invocations"), in)
}

// Receipt returns the record of one invocation.
func (c *Client) Receipt(ctx context.Context, id string) (*Receipt, error) {
	return fetch[Receipt](ctx, c, http.MethodGet, path("receipts", id), nil)
}

// CreateKey makes an API key. The answer is the only place its secret is shown.
func (c *Client) CreateKey(ctx context.Context, in CreateKey) (*CreatedKey, error) {
	return fetch[CreatedKey](ctx, c, http.MethodPost, path("keys"), in)
}

// Keys lists the API keys, without secrets.
func (c *Client) Keys(ctx context.Context) ([]Key, error) {
	return fetchList[Key](ctx, c, path("keys"))
}

// RevokeKey ends a key's use at once.
func (c *Client) RevokeKey(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, path("keys", id), nil, nil)
}

func fetch[T any](ctx context.Context, c *Client, method, path string, in any) (*T, error) {
	out := new(T)
	if err := c.call(ctx, method, path, in, out); err != nil {
		return nil, err
	}
	return out, nil
}

func fetchList[T any](ctx context.Context, c *Client, path string) ([]T, error) {
	l, err := fetch[list[T]](ctx, c, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	return l.Items, nil
}
