package control

import (
	"context"
	"io"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/identity"
)

type artifactInput struct {
	Digest string `path:"digest" doc:"sha256: and 64 hex digits"`
}

// deployer is the guard of artifacts, which belong to no namespace: whoever may
// deploy something may upload code for it.
func deployer(who identity.Principal, _ *artifactInput) error { return has(who, identity.Deploy) }

func (in *artifactInput) parse() (function.Digest, error) {
	d, err := function.ParseDigest(in.Digest)
	if err != nil {
		return "", problem.New(problem.BadRequest, "%.90q is not a digest", in.Digest).At("digest").Fix("Write sha256: and 64 lower-case hex digits.")
	}
	return d, nil
}

func (h *Handler) registerArtifacts() {
	register(h, huma.Operation{
		OperationID: "hasArtifact", Method: http.MethodHead, Path: "/v1/artifacts/{digest}", Tags: []string{"artifacts"},
		Summary: "Whether the node holds an artifact; 404 when it does not",
	}, deployer, func(ctx context.Context, _ *exchange, in *artifactInput) (*nothing, error) {
		d, err := in.parse()
		if err != nil {
			return nil, err
		}
		ok, err := h.cfg.Registry.HasArtifact(ctx, d)
		if err == nil && !ok {
			err = problem.New(problem.NotFound, "no artifact has this digest")
		}
		return nil, err
	})
	register(h, huma.Operation{
		OperationID: "putArtifact", Method: http.MethodPut, Path: "/v1/artifacts/{digest}", Tags: []string{"artifacts"},
		Summary: "Upload an artifact", Description: "The digest is verified while the body arrives. At most 64 MiB, with a Content-Length.",
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
			"application/octet-stream": {Schema: &huma.Schema{Type: "string", Format: "binary"}},
		}},
	}, deployer, func(ctx context.Context, x *exchange, in *artifactInput) (*nothing, error) {
		d, err := in.parse()
		if err != nil {
			return nil, err
		}
		err = h.putArtifact(ctx, x, d)
		h.audit(x, "artifact.put", string(d), err)
		return nil, err
	})
}

func (h *Handler) putArtifact(ctx context.Context, x *exchange, d function.Digest) error {
	size := x.request.ContentLength
	switch {
	case size > MaxArtifact:
		return problem.New(problem.BodyTooLarge, "an artifact may have %d bytes at most", MaxArtifact).Fix("Build it smaller: leave out debug information and what is not used.")
	case size <= 0:
		return problem.New(problem.BadRequest, "the artifact's size is not known").Fix("Send its Content-Length, which must not be 0.")
	}
	return h.cfg.Registry.PutArtifact(ctx, d, size, io.LimitReader(x.request.Body, size))
}
