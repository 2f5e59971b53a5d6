package control

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/identity"
	"github.com/casemate-dev/casemate/internal/state"
)

type createKeyInput struct{ Body api.CreateKey }

type keyInput struct {
	ID string `path:"id" maxLength:"64"`
}

const (
	maxScopes    = 100
	maxKeyName   = 100                                // characters
	maxKeyMillis = int64(10 * 365 * 24 * 3600 * 1000) // ten years
)

func (h *Handler) registerKeys() {
	register(h, huma.Operation{
		OperationID: "createKey", Method: http.MethodPost, Path: "/v1/keys", Tags: []string{"keys"},
		Summary: "Make an API key", Description: "The answer is the only place where the secret is shown.", MaxBodyBytes: maxSmallBody, DefaultStatus: http.StatusCreated,
	}, administrator[createKeyInput], func(ctx context.Context, x *exchange, in *createKeyInput) (*body[api.CreatedKey], error) {
		secret, key, err := h.createKey(ctx, x, &in.Body)
		h.audit(x, "key.create", key.ID, err, slog.String("kind", in.Body.Kind), slog.String("name", in.Body.Name), slog.Any("scopes", in.Body.Scopes))
		if err != nil {
			return nil, err
		}
		return &body[api.CreatedKey]{api.CreatedKey{Key: keyOut(&key), Secret: secret}}, nil
	})
	register(h, huma.Operation{
		OperationID: "listKeys", Method: http.MethodGet, Path: "/v1/keys", Tags: []string{"keys"}, Summary: "The API keys, without secrets",
	}, administrator[nothing], func(ctx context.Context, _ *exchange, _ *nothing) (*body[list[api.Key]], error) {
		keys, err := h.cfg.Keys.List(ctx)
		if err != nil {
			return nil, err
		}
		out := list[api.Key]{Items: make([]api.Key, 0, len(keys))}
		for i := range keys {
			out.Items = append(out.Items, keyOut(&keys[i]))
		}
		return &body[list[api.Key]]{out}, nil
	})
	register(h, huma.Operation{
		OperationID: "revokeKey", Method: http.MethodDelete, Path: "/v1/keys/{id}", Tags: []string{"keys"}, Summary: "End a key's use, at once",
	}, administrator[keyInput], func(ctx context.Context, x *exchange, in *keyInput) (*nothing, error) {
		err := h.cfg.Keys.Revoke(ctx, in.ID, x.who.String())
		switch {
		case errors.Is(err, state.ErrNotFound):
			err = problem.New(problem.NotFound, "there is no key %.64q", in.ID).Fix("`casemate key list` shows the keys there are.")
		case err != nil:
			err = problem.New(problem.Internal, "the key is refused from now on, but that could not be stored").Because(err).
				Fix("Revoke it again: as long as it is not stored, a restart of the node would bring the key back.")
		}
		h.audit(x, "key.revoke", in.ID, err)
		return nil, err
	})
}

func (h *Handler) createKey(ctx context.Context, x *exchange, in *api.CreateKey) (string, identity.Key, error) {
	fail := func(e *problem.Error) (string, identity.Key, error) { return "", identity.Key{}, e }
	if len(in.Scopes) == 0 || len(in.Scopes) > maxScopes {
		return fail(problem.New(problem.BadRequest, "a key has 1 to %d scopes", maxScopes).At("scopes").Fix("Name them, as in invoke:default/*."))
	}
	if len([]rune(in.Name)) > maxKeyName {
		return fail(problem.New(problem.BadRequest, "the name is longer than %d characters", maxKeyName).At("name"))
	}
	if in.ExpiresMillis < 0 || in.ExpiresMillis > maxKeyMillis {
		return fail(problem.New(problem.BadRequest, "a key expires in the future, within ten years, or never").At("expiresInMillis").Fix("Leave it out for a key that never expires."))
	}
	want := identity.NewKey{Kind: identity.KeyKind(in.Kind), Name: in.Name, Creator: x.who.String()}
	for i, s := range in.Scopes {
		scope, err := identity.ParseScope(s)
		if err != nil {
			return fail(problem.New(problem.BadRequest, "%.100q is not a scope", s).At("scopes["+strconv.Itoa(i)+"]").
				Fix("Write %s.", identity.ScopeForms))
		}
		want.Scopes = append(want.Scopes, scope)
	}
	if in.ExpiresMillis > 0 {
		want.Expires = h.cfg.Clock().Add(time.Duration(in.ExpiresMillis) * time.Millisecond)
	}
	secret, key, err := h.cfg.Keys.Create(ctx, want)
	var wrong *identity.FieldError
	if errors.As(err, &wrong) {
		return fail(problem.New(problem.BadRequest, "%s", wrong.Reason).At(wrong.Field).Because(err))
	}
	return secret, key, err
}
