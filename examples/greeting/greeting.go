// Package greeting comes from a repository without a go.mod.
package greeting

// Hello greets.
func Hello(name string) string { return "Hello, " + name + "!" }
