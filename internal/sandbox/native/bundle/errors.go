package bundle

import (
	"errors"
	"fmt"
)

// Reason says what is wrong with an archive.
type Reason string

// The reasons to refuse an archive.
const (
	Format    Reason = "format"    // not a zip archive in the form we accept
	Overlap   Reason = "overlap"   // entries share bytes, or leave bytes between them
	Name      Reason = "name"      // a name that could lead elsewhere or deceives
	Duplicate Reason = "duplicate" // two entries for one name, letter case aside
	Below     Reason = "below"     // an entry below something that is not a directory
	Type      Reason = "type"      // neither file, directory nor link; or special bits
	Link      Reason = "link"      // a link that could lead outside
	Method    Reason = "method"    // encrypted, or compressed in another way
	Size      Reason = "size"      // a size over its limit
	Count     Reason = "count"     // more entries than the limit
	Ratio     Reason = "ratio"     // unpacks to far more than it holds
	Content   Reason = "content"   // content that does not match its size or checksum
)

// ErrUnsupported says that this system cannot unpack safely.
var ErrUnsupported = errors.New("unpacking needs openat2, which Linux has since 5.6")

// Error says why an archive is refused. All of it may be shown to whoever sent the
// archive.
type Error struct {
	Entry  string // as the archive has it; empty when the archive as a whole is meant
	Reason Reason
	Detail string
}

func (e *Error) Error() string {
	if e.Entry == "" {
		return "archive refused: " + e.Detail
	}
	return fmt.Sprintf("archive refused: entry %.200q %s", e.Entry, e.Detail)
}

func refuse(entry string, r Reason, format string, args ...any) error {
	return &Error{Entry: entry, Reason: r, Detail: fmt.Sprintf(format, args...)}
}
