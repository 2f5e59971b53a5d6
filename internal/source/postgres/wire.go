package postgres

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// This file is the replication protocol on an open connection (PostgreSQL's
// documentation, "Streaming Replication Protocol"). It frames by itself, because a single
// message may have a gigabyte and what is too large must be passed over, not held.

// Bounds on what the server sends.
const (
	maxMessage = 32 << 20 // held of one message; of a larger one only its beginning
	maxNotice  = 64 << 10
	prefixKept = 64 // of a message that is too large: enough to tell which table it is about
	writeLimit = 10 * time.Second
)

// What the server sends while it streams: one of these.
type (
	// walData is one message of the output plugin. Its data is valid until the next read.
	walData struct {
		start lsn
		data  []byte
		size  int // more than len(data) for a message that is too large to be held
	}
	keepalive struct {
		end   lsn // everything before it has been sent
		reply bool
	}
)

// link is a connection on which the server streams. One goroutine reads; any may write.
type link struct {
	conn net.Conn
	r    *bufio.Reader
	buf  []byte

	mu  sync.Mutex // one writer at a time
	out []byte
}

func newLink(c net.Conn) *link {
	return &link{conn: c, r: bufio.NewReaderSize(c, 256<<10)}
}

// idle says that the next read may have to wait for the server.
func (l *link) idle() bool { return l.r.Buffered() == 0 }

// begin asks for the stream and waits until it begins. The command goes by the simple
// protocol, as all of replication does.
func (l *link) begin(command string) error {
	b, err := (&pgproto3.Query{String: command}).Encode(nil)
	if err != nil {
		return err
	}
	if err := l.write(b); err != nil {
		return err
	}
	for {
		kind, body, _, err := l.message()
		switch {
		case err != nil:
			return err
		case kind == 'W':
			return nil
		case kind == 'E':
			return serverError(body)
		case kind != 'N' && kind != 'S':
			return fmt.Errorf("the server answered with message %q", kind)
		}
	}
}

// next gives a walData, a keepalive or an error.
func (l *link) next() (any, error) {
	for {
		kind, body, size, err := l.message()
		if err != nil {
			return nil, err
		}
		switch kind {
		case 'd':
			return copyData(body, size)
		case 'E':
			return nil, serverError(body)
		case 'c':
			return nil, errors.New("the server ended the stream")
		case 'N', 'S', 'A': // notices and changed parameters
		default:
			return nil, fmt.Errorf("the server sent message %q inside the stream", kind)
		}
	}
}

// copyData reads what a CopyData message of a replication stream holds.
func copyData(b []byte, size int) (any, error) {
	switch {
	case len(b) >= 25 && b[0] == 'w':
		return walData{start: lsn(binary.BigEndian.Uint64(b[1:])), data: b[25:], size: size - 25}, nil
	case len(b) == 18 && b[0] == 'k':
		return keepalive{end: lsn(binary.BigEndian.Uint64(b[1:])), reply: b[17] == 1}, nil
	}
	return nil, errors.New("malformed message of the replication protocol")
}

// message reads one message. Of one that is too large body is only the beginning; size
// is always that of the whole.
func (l *link) message() (kind byte, body []byte, size int, err error) {
	var head [5]byte
	if _, err := io.ReadFull(l.r, head[:]); err != nil {
		return 0, nil, 0, err
	}
	length := binary.BigEndian.Uint32(head[1:])
	if length < 4 || length > 1<<30+1<<20 {
		return 0, nil, 0, errors.New("the server sent a message of an impossible length")
	}
	size = int(length - 4)
	keep := size
	switch {
	case head[0] != 'd' && size > maxNotice:
		return 0, nil, 0, errors.New("the server sent a message that is too long")
	case size > maxMessage:
		keep = prefixKept
	}
	if cap(l.buf) < keep || (cap(l.buf) > 1<<20 && keep < 64<<10) {
		l.buf = make([]byte, max(keep, 64<<10))
	}
	body = l.buf[:keep]
	if _, err := io.ReadFull(l.r, body); err != nil {
		return 0, nil, 0, err
	}
	if _, err := l.r.Discard(size - keep); err != nil {
		return 0, nil, 0, err
	}
	return head[0], body, size, nil
}

// confirm tells the server that everything before p is kept for good.
func (l *link) confirm(p lsn, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := append(l.out[:0], 'd', 0, 0, 0, 38, 'r')
	for range 3 { // written, flushed, applied
		b = binary.BigEndian.AppendUint64(b, uint64(p))
	}
	b = binary.BigEndian.AppendUint64(b, uint64(now.UnixMicro()-pgEpoch)) //nolint:gosec // two's complement, as it is read
	b = append(b, 0)
	l.out = b
	return l.send(b)
}

func (l *link) write(b []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.send(b)
}

func (l *link) send(b []byte) error {
	if err := l.conn.SetWriteDeadline(time.Now().Add(writeLimit)); err != nil { //nolint:forbidigo // a deadline of the operating system's clock
		return err
	}
	_, err := l.conn.Write(b)
	return err
}
