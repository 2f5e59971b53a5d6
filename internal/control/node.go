package control

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/manifest"
	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/identity"
)

type nothing struct{}

// body is the answer of most operations.
type body[T any] struct{ Body T }

// document is an answer that exists as bytes.
type document struct {
	ContentType string `header:"Content-Type"`
	Body        []byte
}

type list[T any] struct {
	Items []T `json:"items"`
}

func detailsType() reflect.Type { return reflect.TypeFor[problem.Details]() }

// described documents an answer of that media type.
func described(status, media, what string) map[string]*huma.Response {
	return map[string]*huma.Response{status: {Description: what, Content: map[string]*huma.MediaType{media: {Schema: &huma.Schema{}}}}}
}

func (h *Handler) registerNode() {
	register(h, huma.Operation{
		OperationID: "health", Method: http.MethodGet, Path: healthPath, Tags: []string{"node"},
		Summary: "Whether the node answers", Security: []map[string][]string{{}},
	}, func(identity.Principal, *nothing) error { return nil }, func(context.Context, *exchange, *nothing) (*body[health], error) {
		return &body[health]{health{"ok"}}, nil
	})
	register(h, huma.Operation{
		OperationID: "getStatus", Method: http.MethodGet, Path: "/v1/status", Tags: []string{"node"}, Summary: "The node's own account of itself",
	}, operator[nothing], func(ctx context.Context, _ *exchange, _ *nothing) (*body[api.Status], error) {
		s := h.cfg.Status(ctx)
		s.Events = h.counts(ctx)
		return &body[api.Status]{s}, nil
	})
	register(h, huma.Operation{
		OperationID: "getSandboxPosture", Method: http.MethodGet, Path: "/v1/posture/sandbox", Tags: []string{"node"}, Summary: "What separates guest code from the machine",
	}, operator[nothing], func(context.Context, *exchange, *nothing) (*body[api.SandboxPosture], error) {
		return &body[api.SandboxPosture]{h.cfg.Posture()}, nil
	})
	register(h, huma.Operation{
		OperationID: "getManifestSchema", Method: http.MethodGet, Path: "/v1/schemas/manifest", Tags: []string{"node"},
		Summary: "The JSON Schema of casemate.yaml", Responses: described("200", "application/schema+json", "A JSON Schema (2020-12)"),
	}, operator[nothing], func(context.Context, *exchange, *nothing) (*document, error) {
		return &document{"application/schema+json", manifest.Schema()}, nil
	})
	register(h, huma.Operation{
		OperationID: "getOpenAPI", Method: http.MethodGet, Path: "/openapi.json", Tags: []string{"node"},
		Summary: "This document", Responses: described("200", "application/openapi+json", "An OpenAPI 3.1 document"),
	}, operator[nothing], func(context.Context, *exchange, *nothing) (*document, error) {
		text, err := openAPI(h.api)
		if err != nil {
			return nil, err
		}
		return &document{"application/openapi+json", text}, nil
	})
}

type health struct {
	Status string `json:"status"`
}

// OpenAPI returns the OpenAPI 3.1 document of the API, indented. It does not vary.
func OpenAPI() ([]byte, error) { return openAPI(build(Config{}).api) }

func openAPI(a huma.API) ([]byte, error) {
	text, err := json.MarshalIndent(a.OpenAPI(), "", "  ")
	if err != nil {
		return nil, fmt.Errorf("writing the OpenAPI document: %v", err)
	}
	return append(text, '\n'), nil
}
