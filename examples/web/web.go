// Package web is for functions that have a name: it tells of its environment.
package web

import (
	"os"
	"time"
)

// Setting is the value of an environment variable.
func Setting(name string) string { return os.Getenv(name) }

// Wait tells the value of an environment variable after a while.
func Wait(name string, duration time.Duration) string {
	time.Sleep(duration)
	return os.Getenv(name)
}
