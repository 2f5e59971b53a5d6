package web

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

func parse(s, method string, limit int64) (Response, bool, error) {
	return answer(bufio.NewReaderSize(strings.NewReader(s), maxLine), method, limit)
}

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		what, in, method string
		status           int
		body             string
		again            bool
	}{
		{"length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "GET", 200, "hello", true},
		{"length twice", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\ncontent-length: 5\r\n\r\nhello", "GET", 200, "hello", true},
		{"no reason", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "GET", 200, "", true},
		{"empty reason", "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", "GET", 200, "", true},
		{"line feeds", "HTTP/1.1 200 OK\nContent-Length: 2\n\nhi", "GET", 200, "hi", true},
		{"until the end", "HTTP/1.1 200 OK\r\n\r\nhello", "GET", 200, "hello", false},
		{"old", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", "GET", 200, "hi", false},
		{"close", "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 2\r\n\r\nhi", "GET", 200, "hi", false},
		{"more than asked", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\n\r\n", "GET", 200, "hi", false},
		{"chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n", "GET", 200, "hello", true},
		{"trailers", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nA \r\n0123456789\r\n00\r\nX: y\r\n\r\n", "GET", 200, "0123456789", true},
		{"interim", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 1\r\n\r\nx", "POST", 201, "x", true},
		{"head", "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", "HEAD", 200, "", true},
		{"head, chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "HEAD", 200, "", true},
		{"no content", "HTTP/1.1 204 No Content\r\n\r\n", "GET", 204, "", true},
		{"not modified", "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", "GET", 304, "", true},
		{"redirect", "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n", "GET", 302, "", true},
		{"at the limit", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789", "GET", 200, "0123456789", true},
	} {
		t.Run(c.what, func(t *testing.T) {
			got, again, err := parse(c.in, c.method, 10)
			if err != nil {
				t.Fatal(err)
			}
			if got.Status != c.status || string(got.Body) != c.body || again != c.again {
				t.Errorf("got %d %q, again %v; want %d %q, again %v", got.Status, got.Body, again, c.status, c.body, c.again)
			}
		})
	}
}

func TestAnswersThatAreRefused(t *testing.T) {
	ok := "HTTP/1.1 200 OK\r\n"
	for _, c := range []struct {
		what, in string
		want     Kind
	}{
		{"nothing", "", Closed},
		{"half a line", "HTTP/1.1 2", Closed},
		{"half a head", ok + "Content-Length: 5\r\n", Closed},
		{"half a body", ok + "Content-Length: 5\r\n\r\nhel", Closed},
		{"half a chunk", ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nhel", Closed},
		{"no last chunk", ok + "Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n", Closed},
		{"garbage", "hello world, this is no answer\r\n\r\n", BadAnswer},
		{"HTTP/2", "HTTP/2.0 200 OK\r\n\r\n", BadAnswer},
		{"HTTP/1.2", "HTTP/1.2 200 OK\r\n\r\n", BadAnswer},
		{"no status", "HTTP/1.1 abc OK\r\n\r\n", BadAnswer},
		{"status 099", "HTTP/1.1 099 OK\r\n\r\n", BadAnswer},
		{"status 999", "HTTP/1.1 999 OK\r\n\r\n", BadAnswer},
		{"long status", "HTTP/1.1 2000 OK\r\n\r\n", BadAnswer},
		{"reason with escape", "HTTP/1.1 200 \x1b[31m\r\n\r\n", BadAnswer},
		{"upgrade", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", BadAnswer},
		{"interim for ever", strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 17), BadAnswer},
		{"folded", ok + "A: b\r\n c\r\n\r\n", BadAnswer},
		{"space before colon", ok + "A : b\r\n\r\n", BadAnswer},
		{"no colon", ok + "A\r\n\r\n", BadAnswer},
		{"no name", ok + ": b\r\n\r\n", BadAnswer},
		{"control character", ok + "A: b\x00c\r\n\r\n", BadAnswer},
		{"bare return", ok + "A: b\rX: y\r\n\r\n", BadAnswer},
		{"two lengths", ok + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", BadAnswer},
		{"list of lengths", ok + "Content-Length: 5, 5\r\n\r\nhello", BadAnswer},
		{"negative length", ok + "Content-Length: -5\r\n\r\n", BadAnswer},
		{"signed length", ok + "Content-Length: +5\r\n\r\nhello", BadAnswer},
		{"empty length", ok + "Content-Length:\r\n\r\n", BadAnswer},
		{"length beyond numbers", ok + "Content-Length: 99999999999999999999999999\r\n\r\n", BadAnswer},
		{"length and chunks", ok + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", BadAnswer},
		{"other coding", ok + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", BadAnswer},
		{"chunked twice", ok + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", BadAnswer},
		{"chunked 1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", BadAnswer},
		{"chunk without size", ok + "Transfer-Encoding: chunked\r\n\r\n\r\n", BadAnswer},
		{"chunk with 0x", ok + "Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", BadAnswer},
		{"chunk beyond numbers", ok + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("f", 17) + "\r\n", BadAnswer},
		{"chunk longer than it says", ok + "Transfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n", BadAnswer},
		{"chunk with another end", ok + "Transfer-Encoding: chunked\r\n\r\n3\r\nhelxx0\r\n\r\n", BadAnswer},
		{"bad trailer", ok + "Transfer-Encoding: chunked\r\n\r\n0\r\nX y\r\n\r\n", BadAnswer},
		{"long line", ok + "A: " + strings.Repeat("b", maxLine) + "\r\n\r\n", BadAnswer},
		{"large head", ok + strings.Repeat("A: "+strings.Repeat("b", 1000)+"\r\n", 70) + "\r\n", BadAnswer},
		{"many fields", ok + strings.Repeat("A: b\r\n", maxFields+1) + "\r\n", BadAnswer},
		{"large trailers", ok + "Transfer-Encoding: chunked\r\n\r\n0\r\n" + strings.Repeat("A: "+strings.Repeat("b", 1000)+"\r\n", 70) + "\r\n", BadAnswer},
		{"too large", ok + "Content-Length: 11\r\n\r\n01234567890", TooLarge},
		{"announced too large", ok + "Content-Length: 1000000000000\r\n\r\n", TooLarge},
		{"too large until the end", ok + "\r\n01234567890", TooLarge},
		{"too large in one chunk", ok + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("f", 15) + "\r\n", TooLarge},
		{"too large in chunks", ok + "Transfer-Encoding: chunked\r\n\r\n6\r\n012345\r\n6\r\n012345\r\n0\r\n\r\n", TooLarge},
	} {
		t.Run(c.what, func(t *testing.T) {
			got, again, err := parse(c.in, "GET", 10)
			var failed *Error
			if !errors.As(err, &failed) || failed.Kind != c.want || again {
				t.Errorf("got %+v, again %v, %v; want %s", got, again, err, c.want)
			}
		})
	}
}

func TestFieldsOfTheConnectionAreDropped(t *testing.T) {
	got, _, err := parse("HTTP/1.1 200 OK\r\nConnection: Keep-Alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nTE: x\r\nTrailer: Y\r\nUpgrade: h2c\r\n"+
		"Proxy-Authenticate: z\r\nContent-Length: 0\r\nSet-Cookie: a=1\r\nX-One: \t v \t\r\nset-cookie: b=2\r\n\r\n", "GET", 10)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{"set-cookie": {"a=1", "b=2"}, "x-one": {"v"}}
	if !maps.EqualFunc(got.Header, want, slices.Equal) {
		t.Errorf("got %v, want %v", got.Header, want)
	}
}

// TestMemoryFollowsWhatArrives: a chunk may announce much and send little.
func TestMemoryFollowsWhatArrives(t *testing.T) {
	in := "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40000000\r\nx"
	r := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := parse(in, "GET", 1<<31); err == nil {
				b.Fatal("half a chunk passes")
			}
		}
	})
	if got := r.AllocedBytesPerOp(); got > 1<<20 {
		t.Errorf("%d bytes were allocated for a chunk of which one byte arrived", got)
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", true)
	f.Add("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n0\r\nA: b\r\n\r\n", false)
	f.Add("HTTP/1.0 404 Not Found\r\nConnection: close\r\n\r\nx", false)
	f.Add("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n", false)
	f.Fuzz(func(t *testing.T, in string, head bool) {
		method := "GET"
		if head {
			method = "HEAD"
		}
		got, again, err := parse(in, method, 64)
		if err != nil {
			var failed *Error
			if !errors.As(err, &failed) || failed.Detail == "" {
				t.Fatalf("a failure that is not typed: %v", err)
			}
			return
		}
		if got.Status < 200 || got.Status > 599 || len(got.Body) > 64 || head && len(got.Body) > 0 {
			t.Fatalf("got %d with %d bytes", got.Status, len(got.Body))
		}
		if again && !strings.Contains(in, "HTTP/1.1") {
			t.Fatal("an answer of HTTP/1.0 keeps its connection")
		}
		for name, values := range got.Header {
			if !token(name) || name != strings.ToLower(name) || ofConnection(name) || len(values) == 0 {
				t.Fatalf("field %q", name)
			}
			for _, v := range values {
				if !fieldValue(v) {
					t.Fatalf("value %q", v)
				}
			}
		}
	})
}

func TestTargets(t *testing.T) {
	for _, c := range []struct{ path, query, want string }{
		{"/", "", "/"},
		{"", "", "/"},
		{"a b", "", "/a%20b"},
		{"/größe/日", "q=%20&x=a+b", "/gr%C3%B6%C3%9Fe/%E6%97%A5?q=%20&x=a+b"},
		{"/a?b#c%2f", "", "/a%3Fb%23c%252f"},
		{"/a\r\nX: y", "a\r\nX: y#z", "/a%0D%0AX:%20y?a%0D%0AX:%20y%23z"},
		{"/~a-b_c.d!$&'()*+,;=:@/", "", "/~a-b_c.d!$&'()*+,;=:@/"},
		{"/[]", "[]={}|", "/%5B%5D?[]={}|"},
	} {
		if got := Target(c.path, c.query); got != c.want {
			t.Errorf("Target(%q, %q) = %q, want %q", c.path, c.query, got, c.want)
		}
	}
}

func TestRequestsThatCannotBeSent(t *testing.T) {
	for _, r := range []Request{
		{Method: "CONNECT", Target: "/"},
		{Method: "", Target: "/"},
		{Method: "GET /x", Target: "/"},
		{Method: "GET", Target: ""},
		{Method: "GET", Target: "http://x/"},
		{Method: "GET", Target: "/a b"},
		{Method: "GET", Target: "/a\r\n"},
		{Method: "GET", Target: "/", Header: map[string][]string{"a b": {"c"}}},
		{Method: "GET", Target: "/", Header: map[string][]string{"a": {"b\r\nc: d"}}},
		{Method: "GET", Target: "/", Extra: []Field{{"a", "b\nc"}}},
		{Method: "GET", Target: "/", Extra: []Field{{"", "b"}}},
	} {
		t.Run(fmt.Sprintf("%v", r), func(t *testing.T) {
			b, err := appendRequest(nil, &r, "localhost")
			var failed *Error
			if !errors.As(err, &failed) || failed.Kind != BadRequest {
				t.Errorf("got %q, %v", b, err)
			}
		})
	}
}

func TestEnvironment(t *testing.T) {
	got := Environment("shop", "v1", 8080)
	want := []string{"PORT=8080", "K_SERVICE=shop", "K_REVISION=v1", "K_CONFIGURATION=shop"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}
