package harness

import (
	"math"
	"runtime/debug"
)

// A stack grows by doubling, and both halves are there while it is copied: a quarter of the memory leaves room
// for that. So endless recursion ends with a stack trace, and not because the jail is out of memory.
func init() {
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 {
		debug.SetMaxStack(int(limit / 4))
	}
}
