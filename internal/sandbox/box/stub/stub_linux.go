package stub

import (
	"github.com/casemate-dev/casemate/internal/sandbox/box/broker"
	"github.com/casemate-dev/casemate/internal/sandbox/box/look"
	"github.com/casemate-dev/casemate/internal/sandbox/box/message"
)

// Main plays the role that name, the program's first argument, asks for, and gives
// its exit code. It reports false for any other name.
func Main(name string) (code int, ok bool) {
	switch name {
	case message.RoleBroker:
		return broker.Main(), true
	case message.RoleProbe:
		return look.Main(), true
	}
	return 0, false
}
