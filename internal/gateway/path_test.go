package gateway

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/api/problem"
)

func TestCanonical(t *testing.T) {
	t.Parallel()
	for target, want := range map[string]string{
		"/": "/", "/a": "/a", "/a/": "/a/", "/a.b/c..d": "/a.b/c..d", "/a%20b": "/a b", "/%7Eshop/x": "/~shop/x",
		"/caf%C3%A9": "/café", "/...": "/...", "/a:b@c": "/a:b@c", "/.well-known/x": "/.well-known/x",
		"/a?q=/../b": "/a", "/100%25": "/100%", "/a;b=c/d": "/a;b=c/d", "/x%3Fy": "/x?y",
	} {
		if path, _, reason := canonical(target); path != want || reason != "" {
			t.Errorf("%q: got %q, refused because %q", target, path, reason)
		}
	}
}

// confusing are targets that two readers may understand differently.
var confusing = []string{
	"//host/hello", "//hello", "/hello//", "/a//hello", "///",
	"/../hello", "/a/../hello", "/./hello", "/hello/.", "/hello/..", "/..", "/.",
	"/..%2fhello", "/..%2Fhello", "/a%2fhello", "/%2fhello", "/hello%2f",
	"/%2e%2e/hello", "/%2E%2e/hello", "/.%2e/hello", "/a/%2e/hello", "/%2e",
	"/%252e%252e/hello", "/%252fhello", "/%255chello", "/%2500",
	"/..;/hello", "/a/..;x=1/hello", "/.;/hello", "/%2e%2e%3b/hello",
	`/\hello`, `/..\hello`, `\hello`, "/%5chello", "/..%5Chello",
	"/hello%00", "/%00", "/hello%0d%0a", "/hello%09", "/hello%7f", "/hello%c2%85",
	"/%c0%ae%c0%ae/hello", "/%ff", "/hello%e0%80%af", "/hello%", "/hello%zz", "/hello%2",
	"/hello#x", "/hello?a#b", "/hello?\xff",
	"https://localhost/hello", "http://evil/hello", "localhost/hello", "hello", "*", "", "https:/hello", "?x",
}

func TestAttackPathConfusion(t *testing.T) {
	t.Parallel()
	for _, target := range confusing {
		if path, _, reason := canonical(target); reason == "" {
			t.Errorf("%q is taken for %q", target, path)
		}
	}
	// The same through the whole server, with a key that may do everything.
	w := served(t, Limits{})
	for _, target := range confusing {
		stream := w.raw(t, get1(target, bearer(goodKey)))
		for _, status := range statuses(t, stream) {
			if status != 400 {
				t.Errorf("%q is answered with %d", target, status)
			}
		}
	}
	if n := w.invoker.count.Load(); n != 0 {
		t.Errorf("functions were started %d times", n)
	}
	w.rawAnswer(t, get1("/a/../hello", bearer(goodKey))).want(t, problem.InvalidPath)
}

func TestAttackOddMethods(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{})
	for _, line := range []string{
		"TRACE /any", "CONNECT localhost:443", "CONNECT /any", "get /any", "G-T /any", "PRI *", strings.Repeat("A", 21) + " /any",
	} {
		request := line + " HTTP/1.1\r\nHost: localhost\r\n" + bearer(goodKey) + "\r\nX-Secret: s\r\nConnection: close\r\n\r\n"
		a := w.rawAnswer(t, request)
		if a.status != 501 && a.status != 400 {
			t.Errorf("%s: got %d", line, a.status)
		}
		if strings.Contains(a.text, "X-Secret") {
			t.Errorf("%s echoes the request", line)
		}
	}
	a := w.rawAnswer(t, "OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	a.want(t, problem.InvalidPath)
	w.do(t, "PATCH", "/any", nil, bearer(goodKey))
	if n := w.invoker.count.Load(); n != 1 || w.invoker.last(t).Method != "PATCH" {
		t.Errorf("functions were started %d times", n)
	}
}

// FuzzCanonicalPath holds canonical against two other readers: net/url, and
// http.ServeMux, which must never want to clean a path that was accepted.
func FuzzCanonicalPath(f *testing.F) {
	for _, s := range confusing {
		f.Add(s)
	}
	for _, s := range []string{"/", "/a/b?x=1", "/%41", "/caf%C3%A9/", "/a%25b", "/a{b}", "/é", "/%7E/%2d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, target string) {
		path, query, reason := canonical(target)
		if reason != "" {
			return
		}
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return // net/http refuses it before us
		}
		if u.Path != path || u.RawQuery != query {
			// checkRequestLine refuses a disagreement; see that it does.
			g := newWorld(t, Limits{}).Gateway
			x := &exchange{r: &http.Request{Method: "GET", RequestURI: target, URL: u}}
			if g.checkRequestLine(x) == nil {
				t.Fatalf("%q: read as %q, by net/url as %q", target, path, u.Path)
			}
			return
		}
		if path[0] != '/' || strings.Contains(path, "//") || strings.ContainsAny(path, "\\\x00\r\n") {
			t.Fatalf("%q: accepted as %q", target, path)
		}
		for segment := range strings.SplitSeq(path, "/") {
			if segment == "." || segment == ".." {
				t.Fatalf("%q: accepted as %q", target, path)
			}
		}
		mux := http.NewServeMux()
		mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
		rec := httptest.NewRecorder()
		mux.ServeHTTP(rec, &http.Request{Method: "GET", Host: "localhost", URL: u, RequestURI: target, ProtoMajor: 1, ProtoMinor: 1})
		if rec.Code != http.StatusTeapot {
			t.Fatalf("%q: accepted, but ServeMux answers %d, Location %q", target, rec.Code, rec.Header().Get("Location"))
		}
	})
}
