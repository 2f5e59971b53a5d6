package source

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
)

// decode reads exactly one JSON object.
func decode(raw json.RawMessage, into any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	var kind *json.UnmarshalTypeError
	switch {
	case err == nil:
	case errors.As(err, &kind) && kind.Field != "":
		return &FieldError{kind.Field, "must be a " + kind.Type.String()}
	case strings.HasPrefix(err.Error(), "json: unknown field "):
		return &FieldError{strings.Trim(strings.TrimPrefix(err.Error(), "json: unknown field "), `"`), "is not a setting of this kind"}
	default:
		return &FieldError{"settings", "must be a JSON object"}
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return &FieldError{"settings", "must be one JSON object"}
	}
	return nil
}
