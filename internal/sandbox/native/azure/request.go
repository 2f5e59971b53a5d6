package azure

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"mime"
	"net/textproto"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/casemate-dev/casemate/internal/sandbox"
)

// hostVersion of the Functions host whose protocol this is.
const hostVersion = "4.0.0.0"

// payload is the body of the request to a handler.
type payload struct {
	Data     map[string]any
	Metadata map[string]any
}

// httpRequest is an HTTP request as a handler gets it. Query and Identities are JSON
// within a string.
type httpRequest struct {
	URL        string `json:"Url"`
	Method     string
	Query      string
	Headers    map[string][]string
	Params     map[string]string
	Identities string
	Body       any `json:",omitempty"`
}

// identity is a ClaimsIdentity as the host writes it.
type identity struct {
	AuthenticationType *string
	IsAuthenticated    bool
	Actor              *string
	BootstrapContext   *string
	Claims             []string
	Label              *string
	Name               *string
	NameClaimType      string
	RoleClaimType      string
}

// encode makes the body of the request for an invocation.
func encode(f *Function, h *sandbox.Head, params map[string]string, body []byte, now time.Time) ([]byte, error) {
	p := payload{Data: map[string]any{}, Metadata: map[string]any{"sys": map[string]string{
		"MethodName": f.Name,
		"UtcNow":     now.UTC().Format(time.RFC3339Nano),
		"RandGuid":   guidOf(h.ID),
	}}}
	switch trigger := strings.ToLower(f.Trigger.Type); trigger {
	case "httptrigger":
		r := requestOf(h, params, body)
		p.Data[f.Trigger.Name] = r
		p.Metadata["Headers"] = single(r.Headers)
		p.Metadata["Query"] = query(h.Query)
		for name, value := range r.Params {
			p.Metadata[name] = value
		}
	case "eventgridtrigger":
		p.Data[f.Trigger.Name] = cloudEvent(h, body)
	case "timertrigger":
		p.Data[f.Trigger.Name] = map[string]any{"Schedule": map[string]any{"AdjustForDST": true}, "ScheduleStatus": nil, "IsPastDue": false}
	default:
		if strings.EqualFold(f.Trigger.DataType, "binary") || !utf8.Valid(body) {
			p.Data[f.Trigger.Name] = body
		} else {
			p.Data[f.Trigger.Name] = string(body)
		}
		if trigger == "queuetrigger" {
			p.Metadata["Id"] = h.ID
			p.Metadata["DequeueCount"] = 1
			p.Metadata["InsertionTime"] = now.UTC().Format(time.RFC3339)
		}
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(p); err != nil {
		return nil, fmt.Errorf("encoding the invocation: %v", err)
	}
	return b.Bytes(), nil
}

func requestOf(h *sandbox.Head, params map[string]string, body []byte) *httpRequest {
	q, err := json.Marshal(query(h.Query))
	if err != nil {
		q = []byte("{}")
	}
	r := &httpRequest{
		URL: urlOf(h), Method: h.Method, Query: string(q), Identities: identities(h.Caller),
		Headers: make(map[string][]string, len(h.Headers)), Params: map[string]string{},
	}
	for name, values := range h.Headers {
		r.Headers[textproto.CanonicalMIMEHeaderKey(name)] = values
	}
	for name, value := range h.Params {
		r.Params[name] = value
	}
	for name, value := range params {
		r.Params[name] = value
	}
	switch {
	case len(body) == 0:
	case binary(first(h.Headers["content-type"])):
		r.Body = body // base64
	default:
		r.Body = string(body)
	}
	return r
}

// urlOf is the address that was asked for, as the host puts it together: the path is
// not escaped again.
func urlOf(h *sandbox.Head) string {
	scheme, host := first(h.Headers["x-forwarded-proto"]), first(h.Headers["host"])
	if scheme == "" {
		scheme = "http"
	}
	if host == "" {
		host = "localhost"
	}
	s := scheme + "://" + host + h.Path
	if h.Query != "" {
		s += "?" + h.Query
	}
	return s
}

// query gives parameters by name, several values joined by commas, as ASP.NET does.
func query(raw string) map[string]string {
	values, _ := url.ParseQuery(raw) // what it cannot read it leaves out
	out := make(map[string]string, len(values))
	for name, v := range values {
		out[name] = strings.Join(v, ",")
	}
	return out
}

func single(headers map[string][]string) map[string]string {
	out := make(map[string]string, len(headers))
	for name, v := range headers {
		out[name] = strings.Join(v, ",")
	}
	return out
}

// binary reports media types whose content is handed over as base64.
func binary(contentType string) bool {
	t, _, err := mime.ParseMediaType(contentType)
	return err == nil && (t == "application/octet-stream" || strings.HasPrefix(t, "multipart/"))
}

// identities names the caller, if there is one.
func identities(caller string) string {
	i := identity{
		Claims:        []string{},
		NameClaimType: "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/name",
		RoleClaimType: "http://schemas.microsoft.com/ws/2008/06/identity/claims/role",
	}
	if caller != "" && caller != "anonymous" {
		kind := "Casemate"
		i.AuthenticationType, i.IsAuthenticated, i.Name = &kind, true, &caller
	}
	b, err := json.Marshal([]identity{i})
	if err != nil {
		return "[]"
	}
	return string(b)
}

// cloudEvent makes the JSON form of an event that came in binary form (CloudEvents
// 1.0, JSON event format, section 3).
func cloudEvent(h *sandbox.Head, body []byte) map[string]any {
	e := map[string]any{}
	for name, v := range h.Headers {
		if attribute, ok := strings.CutPrefix(name, "ce-"); ok {
			value := first(v)
			if s, err := url.PathUnescape(value); err == nil {
				value = s
			}
			e[attribute] = value
		}
	}
	contentType := first(h.Headers["content-type"])
	if contentType != "" {
		e["datacontenttype"] = contentType
	}
	t, _, _ := mime.ParseMediaType(contentType)
	switch {
	case len(body) == 0:
	case (contentType == "" || t == "application/json" || strings.HasSuffix(t, "+json")) && json.Valid(body):
		e["data"] = json.RawMessage(body)
	case utf8.Valid(body):
		e["data"] = string(body)
	default:
		e["data_base64"] = body
	}
	return e
}

// guidOf makes a GUID that is an invocation's own.
func guidOf(id string) string {
	sum := sha256.Sum256([]byte(id))
	sum[6], sum[8] = sum[6]&0x0f|0x80, sum[8]&0x3f|0x80 // RFC 9562, version 8
	return fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}

func first(v []string) string {
	if len(v) == 0 {
		return ""
	}
	return v[0]
}
