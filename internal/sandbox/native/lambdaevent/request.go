package lambdaevent

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"mime"
	"net/netip"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/casemate-dev/casemate/internal/sandbox"
)

// What stands where AWS has names of its own.
const (
	// AccountID is the account of every function.
	AccountID = "000000000000"
	// DomainPrefix and DomainName are where every function claims to be. The name that the
	// caller used is in the header host; it is not in requestContext because a caller chooses it.
	DomainPrefix = "function"
	DomainName   = DomainPrefix + ".casemate.internal"
)

const (
	routeKey   = "$default"
	anonymous  = "anonymous"
	triggerWeb = "http"
	timeLayout = "02/Jan/2006:15:04:05 -0700"
)

// request is payload format 2.0. The order of the fields is that of AWS's documentation.
type request struct {
	Version        string            `json:"version"`
	RouteKey       string            `json:"routeKey"`
	RawPath        string            `json:"rawPath"`
	RawQuery       string            `json:"rawQueryString"`
	Cookies        []string          `json:"cookies,omitempty"`
	Headers        map[string]string `json:"headers"`
	Query          map[string]string `json:"queryStringParameters,omitempty"`
	Context        requestContext    `json:"requestContext"`
	PathParameters map[string]string `json:"pathParameters,omitempty"`
	Body           *string           `json:"body,omitempty"`
	Base64         bool              `json:"isBase64Encoded"`
}

type requestContext struct {
	AccountID    string      `json:"accountId"`
	APIID        string      `json:"apiId"`
	Authorizer   *authorizer `json:"authorizer,omitempty"`
	DomainName   string      `json:"domainName"`
	DomainPrefix string      `json:"domainPrefix"`
	HTTP         httpContext `json:"http"`
	RequestID    string      `json:"requestId"`
	RouteKey     string      `json:"routeKey"`
	Stage        string      `json:"stage"`
	Time         string      `json:"time"`
	TimeEpoch    int64       `json:"timeEpoch"` // milliseconds
}

// authorizer has the form in which AWS hands on what a Lambda authorizer found out.
type authorizer struct {
	Lambda identity `json:"lambda"`
}

type identity struct {
	Caller  string `json:"caller"`
	Trigger string `json:"trigger"`
}

type httpContext struct {
	Method    string `json:"method"`
	Path      string `json:"path"`
	Protocol  string `json:"protocol"`
	SourceIP  string `json:"sourceIp"`
	UserAgent string `json:"userAgent"`
}

// FromHTTP gives the event that a function gets for a request, as JSON. Paths are
// percent-encoded, as function URLs have them.
func FromHTTP(h *sandbox.Head, body []byte, now time.Time) ([]byte, error) {
	path := (&url.URL{Path: h.Path}).EscapedPath()
	now = now.UTC()
	r := request{
		Version: "2.0", RouteKey: routeKey, RawPath: path, RawQuery: h.Query,
		Query: parameters(h.Query), PathParameters: h.Params,
		Context: requestContext{
			AccountID: AccountID, APIID: DomainPrefix, DomainName: DomainName, DomainPrefix: DomainPrefix,
			HTTP:      httpContext{Method: h.Method, Path: path, Protocol: "HTTP/1.1", SourceIP: sourceIP(h)},
			RequestID: h.ID, RouteKey: routeKey, Stage: routeKey, Time: now.Format(timeLayout), TimeEpoch: now.UnixMilli(),
		},
	}
	if h.Caller != "" && h.Caller != anonymous {
		r.Context.Authorizer = &authorizer{identity{Caller: h.Caller, Trigger: h.Trigger}}
	}
	r.Headers = make(map[string]string, len(h.Headers))
	for name, values := range h.Headers {
		name = strings.ToLower(name)
		if name == "cookie" {
			r.Cookies = append(r.Cookies, cookies(values)...)
			continue
		}
		r.Headers[name] = strings.Join(values, ",")
	}
	r.Context.HTTP.UserAgent = r.Headers["user-agent"]
	if len(body) > 0 {
		s := string(body)
		if !isText(r.Headers["content-type"], r.Headers["content-encoding"], body) {
			s, r.Base64 = base64.StdEncoding.EncodeToString(body), true
		}
		r.Body = &s
	}
	b, err := json.Marshal(&r)
	if err != nil {
		return nil, fmt.Errorf("encoding event: %w", err)
	}
	return b, nil
}

// sourceIP gives the address that the door saw, or "".
func sourceIP(h *sandbox.Head) string {
	values := h.Headers["x-forwarded-for"]
	if h.Trigger != triggerWeb || len(values) != 1 {
		return ""
	}
	addr, err := netip.ParseAddr(values[0])
	if err != nil {
		return ""
	}
	return addr.String()
}

// cookies takes the Cookie fields apart.
func cookies(values []string) []string {
	var list []string
	for _, v := range values {
		for c := range strings.SplitSeq(v, ";") {
			if c = strings.TrimSpace(c); c != "" {
				list = append(list, c)
			}
		}
	}
	return list
}

// parameters decodes a query. What cannot be decoded stands as it was sent; what was
// given more than once is joined by commas.
func parameters(query string) map[string]string {
	if query == "" {
		return nil
	}
	m := make(map[string]string)
	for pair := range strings.SplitSeq(query, "&") {
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		name, value = unescape(name), unescape(value)
		if before, ok := m[name]; ok {
			value = before + "," + value
		}
		m[name] = value
	}
	return m
}

func unescape(s string) string {
	if u, err := url.QueryUnescape(s); err == nil {
		return u
	}
	return s
}

// isText says whether a body may stand in the event as it is. It has to be UTF-8 to
// survive that, whatever its type says.
func isText(contentType, contentEncoding string, body []byte) bool {
	if contentEncoding != "" && !strings.EqualFold(contentEncoding, "identity") {
		return false
	}
	if contentType != "" && !isTextType(contentType) {
		return false
	}
	return utf8.Valid(body)
}

func isTextType(contentType string) bool {
	t, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return false
	}
	switch t {
	case "application/json", "application/javascript", "application/xml", "application/x-www-form-urlencoded", "application/graphql":
		return true
	}
	return strings.HasPrefix(t, "text/") || strings.HasSuffix(t, "+json") || strings.HasSuffix(t, "+xml")
}
