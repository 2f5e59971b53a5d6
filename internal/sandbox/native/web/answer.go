package web

import (
	"bufio"
	"errors"
	"io"
	"strings"
)

// Bounds on an answer besides the limit on its body, in bytes and fields.
const (
	maxHead    = 64 << 10 // status line and fields, and likewise trailers
	maxFields  = 256
	maxLine    = 16 << 10 // one line; the reader's buffer
	maxInterim = 16       // 1xx answers
	maxChunk   = 15       // hex digits of a chunk's size
)

// Response is the guest's answer. Header has lower-case names, without the fields
// that concern the connection or frame the body.
type Response struct {
	Status int
	Header map[string][]string
	Body   []byte
}

// answer reads one answer to a request of that method. It reports whether the
// connection can serve another.
func answer(r *bufio.Reader, method string, maxBody int64) (Response, bool, error) {
	for range maxInterim {
		h, err := readHead(r)
		if err != nil {
			return Response{}, false, err
		}
		if h.status == 101 {
			return Response{}, false, badAnswer("upgrades a connection that nobody asked to")
		}
		if h.status < 200 {
			continue
		}
		body, err := h.body(r, method, maxBody)
		if err != nil {
			return Response{}, false, err
		}
		// What follows an answer was not asked for, so nothing after it can be trusted.
		again := h.keep && r.Buffered() == 0
		return Response{Status: h.status, Header: h.fields, Body: body}, again, nil
	}
	return Response{}, false, badAnswer("never comes: only interim ones do")
}

// head is an answer's first part.
type head struct {
	status  int
	fields  map[string][]string
	length  int64 // declared; -1 when it is not
	chunked bool
	keep    bool // the connection stays open, by what was declared
}

// line reads one line without its end. A line that ends in LF alone counts (RFC
// 9112, section 2.2). The result holds until the next read.
func line(r *bufio.Reader, budget *int) ([]byte, error) {
	b, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return nil, badAnswer("has a line longer than %d bytes", maxLine)
	}
	if err != nil {
		return nil, closed(err)
	}
	if *budget -= len(b); *budget < 0 {
		return nil, badAnswer("has a head larger than %d bytes", maxHead)
	}
	b = b[:len(b)-1]
	if n := len(b); n > 0 && b[n-1] == '\r' {
		b = b[:n-1]
	}
	return b, nil
}

func closed(err error) error {
	detail := "the connection ended before the answer did"
	return &Error{Kind: Closed, Detail: detail, Cause: err}
}

// readHead reads up to the empty line.
func readHead(r *bufio.Reader) (head, error) {
	budget := maxHead
	first, err := line(r, &budget)
	if err != nil {
		return head{}, err
	}
	h := head{length: -1}
	minor, ok := statusLine(first, &h.status)
	if !ok {
		return head{}, badAnswer("does not begin with an HTTP/1.1 status line")
	}
	h.keep = minor == 1
	// All fields in one string: names and values are parts of it.
	text := make([]byte, 0, 512)
	ends := make([]int, 0, 32) // of name and value in turn
	for {
		b, err := line(r, &budget)
		if err != nil {
			return head{}, err
		}
		if len(b) == 0 {
			break
		}
		if len(ends) == 2*maxFields {
			return head{}, badAnswer("has more than %d header fields", maxFields)
		}
		if text, ends, err = appendField(text, ends, b); err != nil {
			return head{}, err
		}
	}
	all, at := string(text), 0
	h.fields = make(map[string][]string, len(ends)/2)
	values := make([]string, 0, len(ends)/2)
	var te []string
	for i := 0; i < len(ends); i += 2 {
		name, value := all[at:ends[i]], all[ends[i]:ends[i+1]]
		at = ends[i+1]
		switch name {
		case "content-length":
			if err := h.setLength(value); err != nil {
				return head{}, err
			}
		case "transfer-encoding":
			te = append(te, value)
		}
		if old, ok := h.fields[name]; ok {
			h.fields[name] = append(old, value)
			continue
		}
		values = append(values, value)
		h.fields[name] = values[len(values)-1 : len(values) : len(values)]
	}
	return h, h.settle(te, minor)
}

// settle works out what the fields say of the connection and of the body, and
// drops them.
func (h *head) settle(te []string, minor byte) error {
	switch {
	case len(te) == 0:
	case len(te) > 1 || !strings.EqualFold(te[0], "chunked"):
		return badAnswer("has a transfer coding other than chunked")
	case minor == 0:
		return badAnswer("is chunked, which HTTP/1.0 does not know")
	case h.length >= 0:
		return badAnswer("is chunked and has a length too")
	default:
		h.chunked = true
	}
	for _, v := range h.fields["connection"] {
		for option := range strings.SplitSeq(v, ",") {
			option = strings.ToLower(strings.Trim(option, " \t"))
			if option == "close" {
				h.keep = false
			}
			if option != "" {
				delete(h.fields, option)
			}
		}
	}
	for name := range h.fields {
		if ofConnection(name) {
			delete(h.fields, name)
		}
	}
	return nil
}

func (h *head) setLength(v string) error {
	var n int64
	for i := range len(v) {
		if v[i] < '0' || v[i] > '9' || n > 1<<50 {
			return badAnswer("has a length that is no number")
		}
		n = n*10 + int64(v[i]-'0')
	}
	if v == "" || h.length >= 0 && h.length != n {
		return badAnswer("has more than one length")
	}
	h.length = n
	return nil
}

// statusLine reads "HTTP/1.1 200 OK" (RFC 9112, section 4). It gives the minor
// version, '1' as 1.
func statusLine(b []byte, status *int) (byte, bool) {
	if len(b) < 12 || string(b[:7]) != "HTTP/1." || b[7] != '0' && b[7] != '1' || b[8] != ' ' {
		return 0, false
	}
	for _, c := range b[9:12] {
		if c < '0' || c > '9' {
			return 0, false
		}
		*status = *status*10 + int(c-'0')
	}
	if len(b) > 12 && b[12] != ' ' || *status < 100 || *status > 599 {
		return 0, false
	}
	for _, c := range b[12:] {
		if c < ' ' && c != '\t' || c == 0x7f {
			return 0, false
		}
	}
	return b[7] - '0', true
}

// appendField appends a field's name, in lower case, and its value.
func appendField(text []byte, ends []int, b []byte) ([]byte, []int, error) {
	i := 0
	for ; i < len(b) && b[i] != ':'; i++ {
		c := b[i]
		if !tokenByte(c) { // a folded line begins with a space, and so ends here
			return nil, nil, badAnswer("has a malformed header field")
		}
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		text = append(text, c)
	}
	if i == 0 || i == len(b) {
		return nil, nil, badAnswer("has a malformed header field")
	}
	ends = append(ends, len(text))
	value := b[i+1:]
	for len(value) > 0 && (value[0] == ' ' || value[0] == '\t') {
		value = value[1:]
	}
	for n := len(value); n > 0 && (value[n-1] == ' ' || value[n-1] == '\t'); n-- {
		value = value[:n-1]
	}
	for _, c := range value {
		if c < ' ' && c != '\t' || c == 0x7f {
			return nil, nil, badAnswer("has a control character in a header field")
		}
	}
	text = append(text, value...)
	return text, append(ends, len(text)), nil
}

func tooLarge(limit int64) error {
	return &Error{Kind: TooLarge, Detail: "the answer is larger than its limit", Cause: sizeError(limit)}
}

// body reads the answer's content (RFC 9112, section 6.3).
func (h *head) body(r *bufio.Reader, method string, limit int64) ([]byte, error) {
	switch {
	case method == "HEAD" || h.status == 204 || h.status == 304:
		return nil, nil
	case h.chunked:
		return chunks(r, limit)
	case h.length > limit:
		return nil, tooLarge(limit)
	case h.length >= 0:
		b := make([]byte, h.length)
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, closed(err)
		}
		return b, nil
	}
	h.keep = false
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	switch {
	case err != nil:
		return nil, closed(err)
	case int64(len(b)) > limit:
		return nil, tooLarge(limit)
	}
	return b, nil
}

// chunks reads a chunked body (RFC 9112, section 7.1) and drops its trailers.
func chunks(r *bufio.Reader, limit int64) ([]byte, error) {
	var body []byte
	for {
		budget := maxLine
		b, err := line(r, &budget)
		if err != nil {
			return nil, err
		}
		size, ok := chunkSize(b)
		switch {
		case !ok:
			return nil, badAnswer("has a malformed chunk")
		case size == 0:
			return body, trailers(r)
		case size > limit-int64(len(body)):
			return nil, tooLarge(limit)
		}
		// Memory follows what arrives, not what is announced.
		at := len(body)
		for want := at + int(size); len(body) < want; {
			body = append(body, make([]byte, min(want-len(body), max(4<<10, len(body))))...)
			n, err := io.ReadFull(r, body[at:])
			if at += n; err != nil {
				return nil, closed(err)
			}
		}
		var end [2]byte
		if _, err := io.ReadFull(r, end[:]); err != nil {
			return nil, closed(err)
		}
		if end != [2]byte{'\r', '\n'} {
			return nil, badAnswer("has a malformed chunk")
		}
	}
}

// chunkSize reads the size before a chunk; extensions mean nothing to us.
func chunkSize(b []byte) (int64, bool) {
	var n int64
	i := 0
	for ; i < len(b); i++ {
		c := b[i] | 0x20
		switch {
		case b[i] >= '0' && b[i] <= '9':
			n = n<<4 | int64(b[i]-'0')
		case c >= 'a' && c <= 'f':
			n = n<<4 | int64(c-'a'+10)
		default:
			rest := strings.TrimLeft(string(b[i:]), " \t")
			return n, i > 0 && (rest == "" || rest[0] == ';')
		}
		if i >= maxChunk {
			return 0, false
		}
	}
	return n, i > 0
}

func trailers(r *bufio.Reader) error {
	budget := maxHead
	for {
		b, err := line(r, &budget)
		if err != nil || len(b) == 0 {
			return err
		}
		if _, _, err := appendField(nil, nil, b); err != nil {
			return err
		}
	}
}
